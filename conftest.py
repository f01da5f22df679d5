"""A desk for the examples in docstrings that use a trained model: the bundle "mine" and 4 s of sound, "speech.wav"."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

NEEDED = {
    "triton": ["nn/kernels.py"],  # comes with torch on Linux
    "starlette": ["inference/page/guard.py"],
    "gradio": ["inference/page/page.py", "inference/page/server.py"],
}
"""Modules that can't be imported, and so not be looked through for examples, without a package."""

collect_ignore = [f"src/serfit/{path}" for package in NEEDED if not find_spec(package) for path in NEEDED[package]]

ASKS_A_MODEL = ("serfit", "serfit.inference.recogniser", "serfit.inference.windows")
"""Modules with such examples."""


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; the network in it has random weights."""
    from serfit.config.schema import ModelParams
    from serfit.inference.about import About
    from serfit.inference.bundle import Member, write_bundle
    from serfit.labels import LabelScale
    from serfit.nn.model import build_model

    folder = tmp_path_factory.mktemp("desk")
    params = ModelParams(speech_encoder="random:tiny")
    model = build_model(params, 2, 1, False)
    scale = LabelScale(1.0, 5.0)
    about = About(
        name="mine",
        dimensions=("valence", "arousal"),
        scales={"valence": scale, "arousal": scale},
        normalise=model.encoder.normalise,
        shortest=model.encoder.shortest_input,
        embedding_width=model.embedding_width,
    )
    write_bundle(folder / "mine", [Member(about, params, model)])
    soundfile.write(folder / "speech.wav", 0.1 * np.random.default_rng(1).standard_normal(64_000), 16_000)
    return folder


@pytest.fixture(autouse=True)
def _at_the_desk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(request.node, pytest.DoctestItem) and request.node.dtest.globs.get("__name__") in ASKS_A_MODEL:
        monkeypatch.chdir(request.getfixturevalue("desk"))
