"""Public models as bundles: the numbers of a forward pass written down here, and a sentence for all that is unknown."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import serfit
from inference.public.published import (
    WAVEFORMS,
    Published,
    audeering,
    odyssey,
    vox_profile,
    vox_profile_whisper,
    write,
)
from serfit.errors import UserError
from serfit.inference.bundle import DESCRIPTION, read_bundle, write_bundle
from serfit.inference.public.importing import import_model
from serfit.inference.publish.hub import write_hub_folder
from serfit.inference.source import open_members
from serfit.labels import DIMENSIONS

FORMS: dict[str, Callable[[Path], Published]] = {
    "audeering": audeering,
    "odyssey": odyssey,
    "odyssey on a base WavLM": partial(odyssey, layout="base"),
    "vox-profile": vox_profile,
    "vox-profile with LoRA": partial(vox_profile, lora=True),
    "vox-profile without the first state": partial(vox_profile, first_state=False),
    "vox-profile on a base WavLM": partial(vox_profile, layout="base"),
    "vox-profile on Whisper": vox_profile_whisper,
    "vox-profile on Whisper with 80 bands": partial(vox_profile_whisper, bands=80),
}


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[pytest.mark.slow] if "Whisper" in form else []) for form in FORMS]
)
def test_the_bundle_computes_what_the_public_model_computes(form: str, tmp_path: Path) -> None:
    published = FORMS[form](tmp_path / "public-model")
    write_bundle(tmp_path / "bundle", [import_model(str(published.folder))])
    model = serfit.load(tmp_path / "bundle")
    assert model.dimensions == DIMENSIONS
    units = model.estimate(WAVEFORMS).unit
    expected = [[published.computed(waveform)[name] for name in DIMENSIONS] for waveform in WAVEFORMS]
    np.testing.assert_allclose(units, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected, axis=0).min() > 1e-3, "waveforms and outputs differ by more than the tolerance"
    for waveform, unit in zip(WAVEFORMS, units, strict=True):
        emotion = model.predict(waveform, rate=16_000)
        np.testing.assert_allclose(list(emotion.unit.values()), unit, rtol=0, atol=1e-5)
        assert emotion.values == pytest.approx({name: 1 + 6 * one for name, one in emotion.unit.items()})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each layout once, never changed."""
    folder = tmp_path_factory.mktemp("public")
    return {
        form: FORMS[form](folder / form).folder
        for form in ("audeering", "odyssey", "vox-profile", "vox-profile on Whisper")
    }


def rewritten(folder: Path, target: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], object]) -> str:
    """A copy of a model after a change to its tensors and its configuration; the name of the copy."""
    config = json.loads((folder / "config.json").read_text())
    pickled = folder / "pytorch_model.bin"
    tensors = torch.load(pickled, weights_only=True) if pickled.exists() else load_file(folder / "model.safetensors")
    change(tensors, config)
    return str(write(target, config, tensors))


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_a_model_of_a_single_attribute_is_known_by_its_name(dimension: str, tmp_path: Path) -> None:
    published = odyssey(tmp_path / f"SER-Odyssey-Baseline-WavLM-{dimension.capitalize()}", (dimension,))
    write_bundle(tmp_path / "bundle", [import_model(str(published.folder))])
    model = serfit.load(tmp_path / "bundle")
    assert model.dimensions == (dimension,)
    expected = [[published.computed(waveform)[dimension]] for waveform in WAVEFORMS]
    np.testing.assert_allclose(model.estimate(WAVEFORMS).unit, expected, rtol=0, atol=1e-5)


def test_outputs_are_known_by_what_the_files_or_the_user_say_and_by_nothing_else(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    def imported(name: str, labels: list[str], order: Any = ()) -> Any:
        said = {str(index): label for index, label in enumerate(labels)}
        folder = rewritten(folders[name], tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}",
                           lambda _, config: config.update(id2label=said))  # fmt: skip
        return import_model(folder, order=order).about.origin.imported

    unnamed = ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert imported("audeering", ["Valence", "ACTIVATION", "dominance"]).outputs == ("valence", "arousal", "dominance")
    assert imported("odyssey", unnamed).outputs == ("arousal", "dominance", "valence")
    assert imported("odyssey", ["dominance", "valence", "arousal"]).outputs == ("dominance", "valence", "arousal")
    assert imported("audeering", unnamed, ("dominance", "valence", "arousal")).outputs[0] == "dominance"
    for labels, order in (
        (unnamed, ()),
        ([], ("valence", "arousal")),
        (unnamed, ("valence", "valence", "arousal")),
        (["valence", "arousal"], ()),
        (["arousal", "dominance", "valence"], ("valence", "arousal", "dominance")),
    ):
        with pytest.raises(UserError, match=r"has 3 outputs, .*; give its dimensions in their order"):
            imported("audeering", labels, order)
    with pytest.raises(UserError, match=r"predicts anger, sadness, and serfit knows valence, arousal, dominance"):
        imported("audeering", ["anger", "sadness", "valence"])
    with pytest.raises(UserError, match="named in its weights; leave --order out"):
        import_model(str(folders["vox-profile"]), order=("valence",))
    with pytest.raises(UserError, match=r"SER-x has 1 output, config\.json names none"):
        import_model(str(odyssey(tmp_path / "SER-x", ("valence",)).folder))


def test_half_precision_is_computed_in_float32(folders: dict[str, Path], tmp_path: Path) -> None:
    def halved(tensors: dict[str, torch.Tensor], _: object) -> None:
        tensors.update({name: one.half() for name, one in tensors.items()})

    def rounded(tensors: dict[str, torch.Tensor], _: object) -> None:
        tensors.update({name: one.half().float() for name, one in tensors.items()})

    for name, folder in folders.items():
        states = [
            import_model(rewritten(folder, tmp_path / f"{name}-{change.__name__}", change)).model.state_dict()
            for change in (halved, rounded)
        ]
        assert all(tensor.dtype == torch.float32 for tensor in states[0].values())
        for key, tensor in states[0].items():
            torch.testing.assert_close(tensor, states[1][key], rtol=1e-6, atol=1e-7)


def test_what_is_of_no_known_layout_is_refused_with_those_that_are(tmp_path: Path) -> None:
    folder = write(tmp_path / "other", {"model_type": "wav2vec2"}, {"lm_head.weight": torch.zeros(2, 2)})
    with pytest.raises(UserError, match=r"is of no layout .*EmotionModel .*SERModel .*WavLMWrapper") as caught:
        import_model(str(folder))
    assert "\n" not in str(caught.value)


ENCODERS = {
    "audeering": "wav2vec2.encoder.layers.3.layer_norm",
    "odyssey": "ssl_model.encoder.layers.3.layer_norm",
    "vox-profile": "backbone_model.encoder.layers.3.layer_norm",
    "vox-profile on Whisper": "backbone_model.encoder.layers.2.fc1",
}
"""Of each layout a weight of a layer beyond those that there are."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_every_tensor_counts(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """Each one missing, of another shape or not finite; and others beyond them."""
    unread = (
        "emotion_", "detailed_", "gender_", "backbone_model.decoder.", "backbone_model.encoder.embed_positions",
        *(f"{prefix}.masked_spec_embed" for prefix in ("wav2vec2", "ssl_model", "backbone_model")),
        *(["weights"] if name == "vox-profile on Whisper" else []),
    )  # fmt: skip
    decisive = [one for one in rewritten_names(folders[name], tmp_path / "names") if not one.startswith(unread)]
    for number, key in enumerate(decisive[:: max(1, len(decisive) // 25)] + decisive[-12:]):
        for kind in ("missing", "reshaped", "NaN"):

            def damage(tensors: dict[str, torch.Tensor], _: object, key: str = key, kind: str = kind) -> None:
                tensor = tensors.pop(key)
                if kind == "reshaped":
                    tensors[key] = torch.zeros(tuple(size + 1 for size in tensor.shape))
                elif kind == "NaN":
                    tensors[key] = torch.full_like(tensor, torch.nan)

            folder = rewritten(folders[name], tmp_path / f"{number}-{kind}", damage)
            with pytest.raises(UserError) as caught:
                import_model(folder)
            assert "\n" not in str(caught.value), key
    beyond = rewritten(folders[name], tmp_path / "beyond", lambda tensors, _: tensors.update(gate=torch.zeros(2)))
    with pytest.raises(UserError, match=r"holds tensors beyond .* \(?.*gate"):
        import_model(beyond)
    layer = f"{ENCODERS[name]}.weight"
    deeper = rewritten(folders[name], tmp_path / "deeper", lambda tensors, _: tensors.update({layer: torch.ones(32)}))
    with pytest.raises(UserError, match=r"layers\.\d"):
        import_model(deeper)


def rewritten_names(folder: Path, target: Path) -> list[str]:
    found: list[str] = []
    rewritten(folder, target, lambda tensors, _: found.extend(tensors))
    return found


def test_a_configuration_that_cannot_be_gets_a_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    for number, (name, change, words) in enumerate(
        [
            ("odyssey", {"mean": None}, "mean is None"),
            ("odyssey", {"std": -1.0}, "std is -1.0"),
            ("odyssey", {"std": "0.08"}, "std is '0.08'"),
            ("audeering", {"pooling_mode": "max"}, "pools its frames by max"),
            ("audeering", {"hidden_size": 31}, "hidden_size"),
            ("audeering", {"model_type": "bert"}, "is of type bert"),
        ]
    ):
        folder = rewritten(folders[name], tmp_path / str(number), lambda _, config, new=change: config.update(new))  # type: ignore[misc]
        with pytest.raises(UserError, match=words):
            import_model(folder)


def test_nothing_is_unpickled_or_run(folders: dict[str, Path], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    hostile = tmp_path / "hostile"
    write(hostile, json.loads((folders["audeering"] / "config.json").read_text()), {}, pickled=True)
    (hostile / "pytorch_model.bin").write_bytes(pickle.dumps({"classifier.dense.weight": Trap()}))
    with pytest.raises(UserError, match="nothing in it was run"):
        import_model(str(hostile))
    assert not (tmp_path / "sprung").exists()
    import_model(str(folders["odyssey"]))  # beside code that raises when it is run


def test_what_is_no_public_model_is_refused(
    folders: dict[str, Path], trained: Callable[..., Path], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "bundle", [import_model(str(folders["odyssey"]))])
    for name, words in (
        (tmp_path / "bundle", "is a serfit bundle or run already"),
        (trained(), "is a serfit bundle or run already"),
        (tmp_path / "nowhere", "there is no folder"),
        ("somebody/nothing", "can't be had"),
    ):
        with pytest.raises(UserError, match=words):
            import_model(str(name))
    with pytest.raises(UserError, match="--revision main is for names on the hub"):
        import_model(str(folders["odyssey"]), revision="main")
    with pytest.raises(UserError, match="make a bundle of it: serfit import"):
        serfit.load(folders["odyssey"])


def test_the_licence_is_what_the_page_states_or_what_was_known(folders: dict[str, Path], tmp_path: Path) -> None:
    def licence(page: str | bytes | None) -> tuple[str, str]:
        folder = Path(rewritten(folders["odyssey"], tmp_path / str(len(list(tmp_path.iterdir()))), lambda *_: None))
        if page is not None:
            (folder / "README.md").write_bytes(page if isinstance(page, bytes) else page.encode())
        imported = import_model(str(folder)).about.origin.imported
        assert imported is not None
        return imported.licence, imported.licence_from

    derived = Path(rewritten(folders["audeering"], tmp_path / "derived", lambda *_: None))
    (derived / "README.md").write_text("---\nlicense: mit\n---\n")
    imported = import_model(str(derived)).about.origin.imported
    assert imported is not None
    assert imported.in_words == "mit (its README.md)", "the terms of another page aren't those of this model"
    assert licence("---\nlicense: apache-2.0\n---\n") == ("apache-2.0", "its README.md")
    assert licence("---\nlicense: other\nlicense_name: my-terms\n---\n") == ("my-terms", "its README.md")
    assert licence("---\nlicense: [mit, cc0-1.0]\n---\n") == ("mit, cc0-1.0", "its README.md")
    usual = "its page on the hub when this serfit was written; no README.md here states it"
    for page in (
        None,
        "# no front matter",
        "---\nlicense: {a: b}\n---\n",
        "---\n[\n---\n",
        b"---\n\xff\xfe\n---\n",
        b"",
    ):
        assert licence(page) == ("mit", usual), page


def test_the_licence_travels_with_the_bundle_and_its_card(folders: dict[str, Path], tmp_path: Path) -> None:
    member = import_model(str(folders["audeering"]))
    write_hub_folder(tmp_path / "first", [folders["audeering"]], [member], None)
    write_hub_folder(tmp_path / "again", [tmp_path / "first"], read_bundle(tmp_path / "first"), None)
    for folder in ("first", "again"):
        text = (tmp_path / folder / "README.md").read_text()
        assert yaml.safe_load(text.split("---")[1])["license"] == "cc-by-nc-sa-4.0"
        for words in (
            "cc-by-nc-sa-4.0 (its README.md); no commercial use",
            "arousal, dominance, valence; here",
            "valence from 1 to 7",
            f'serfit.load("{folder}")',
            "raters of MSP-Podcast, spoken in en",
        ):
            assert words in text, words
        assert str(folders["audeering"].parent) not in text + (tmp_path / folder / DESCRIPTION).read_text()
    (again,) = read_bundle(tmp_path / "again")
    assert (again.about, again.params, again.variant) == (member.about, member.params, member.variant)
    with pytest.raises(UserError, match="a public model is among the 2 networks"):
        write_hub_folder(tmp_path / "both", [], [member, member], None)
    strange = member.about.origin.imported.model_copy(update={"licence": "My <b>own</b>: [x](y)"})  # type: ignore[union-attr]
    origin = member.about.origin.model_copy(update={"imported": strange})
    write_hub_folder(tmp_path / "own", [], [replace(member, about=replace(member.about, origin=origin))], None)
    body = (tmp_path / "own" / "README.md").read_text()
    assert yaml.safe_load(body.split("---")[1])["license"] == "other"
    assert "<b>" not in body


def test_older_versions_are_told_to_update_and_lies_about_the_variant_are_refused(
    folders: dict[str, Path], trained: Callable[..., Path], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "bundle", [import_model(str(folders["vox-profile"]))])
    description = tmp_path / "bundle" / DESCRIPTION
    told = json.loads(description.read_text())
    assert told["format"] == 2
    for lie in ({"projection": 0}, {"projection": 10**9}, {"activation": "relu6"}, {"mix_norm": "no"}, [], None,
                {**told["members"][0]["variant"], "head_norm": True}, {}):  # fmt: skip
        changed = {**told, "members": [{**told["members"][0], "variant": lie}]}
        description.write_text(json.dumps(changed))
        with pytest.raises(UserError):
            read_bundle(tmp_path / "bundle")
    write_bundle(tmp_path / "own", open_members(trained()))
    told = json.loads((tmp_path / "own" / DESCRIPTION).read_text())
    assert (told["format"], "variant" in told["members"][0]) == (1, False), "bundles of runs are what they were"
