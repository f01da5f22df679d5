"""Writing ONNX files: traced from the network, held against it on ragged batches, left behind only if they agree."""

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from serfit import __version__
from serfit.corpus.synthetic.voices import draw_speaker, speak
from serfit.errors import UserError, counted, error_line
from serfit.inference.about import About
from serfit.inference.bundle import Member
from serfit.inference.calibrated import Calibrated
from serfit.inference.networks import Network, TorchNetwork, Waveform
from serfit.inference.onnx import FORMAT, INPUTS, METADATA, OnnxNetwork, open_onnx, output_names
from serfit.inference.origin import Applied, Origin
from serfit.inference.publish.eight_bits import write_eight_bits
from serfit.inference.publish.graph import PublishedGraph
from serfit.inference.publish.heldout import Heldout
from serfit.inference.recogniser import Estimates, Recogniser
from serfit.labels import SAMPLE_RATE, Dimension
from serfit.nn.passes import padded
from serfit.scores.calibration import Calibration
from serfit.system import counters
from serfit.system.files import write_text
from serfit.system.precision import Precision
from serfit.system.records import plain

MOST_DIFFERENCE = 1e-4
"""Largest difference to torch with which a file is left behind: on [0, 1], and of pooled vectors relative to their
largest entry."""

MOST_INLINE_BYTES = 1_800_000_000
"""Weights beyond this go into a second file: protobuf, of which ONNX is made, ends at two gigabytes."""


@dataclass(frozen=True, slots=True)
class Written:
    """An ONNX file and how far it is from torch.

    Attributes:
        file: its name.
        precision: fp32, or int8 for the weights of the transformer's matrix products.
        values: largest absolute difference per dimension, on the corpus's scale, over what it was measured on.
        embedding: largest difference of a pooled vector's entry, relative to the largest entry.
        measured_on: what both predicted, in words.
    """

    file: str
    precision: str
    values: Mapping[Dimension, float]
    embedding: float
    measured_on: str

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "file": self.file,
            "precision": self.precision,
            "greatest_difference_to_torch": {name: float(f"{value:.3g}") for name, value in self.values.items()},
            "greatest_relative_difference_of_embedding": float(f"{self.embedding:.3g}"),
            "measured_on": self.measured_on,
        }


def write_onnx(
    members: Sequence[Member],
    calibrations: Sequence[Calibration | None],
    path: Path,
    *,
    int8: bool = False,
    speech: Heldout | None = None,
) -> Iterator[Written]:
    """Write a network, or the mean of several, as one ONNX file with a YAML file beside it.

    Args:
        members: the networks, on the CPU.
        calibrations: for each the one to put inside, or None.
        path: ends with .onnx; with int8, NAME.int8.onnx is written beside it.
        int8: also write a variant with eight-bit weights.
        speech: what to measure the difference to torch on; None measures it on synthetic waveforms.

    Yields:
        What is written, as soon as it is there and described in the YAML file; the fp32 file first.

    Raises:
        UserError: the extra is missing, a file is in the way, the members don't go together, or the graph isn't the
            network; nothing is left behind then. The eight-bit file can't be made; the fp32 file stays.
    """
    paths = onnx_paths(path, int8)
    check_onnx_target(path, paths)
    reference = _reference(members, calibrations)
    about = _about(members, calibrations)
    kinds = sorted({"none" if one is None else one.kind for one in calibrations})
    assert len(kinds) == 1, f"one calibration for all members, not {kinds}"
    kind = None if kinds == ["none"] else kinds[0]
    described = {"format": FORMAT, "members": len(members), "calibration": kind, "about": about.to_json()}
    graph = PublishedGraph(
        [one.model for one in members], calibrations, about.dimensions, about.scales, about.shortest
    ).eval()
    comparison = _Comparison(reference, tuple(_probes(about.shortest)), speech)
    with _workshop(path.parent) as folder:
        _trace(graph, folder / path.name, json.dumps(described, allow_nan=False), len(members))
        written = [comparison.of(folder / path.name, "fp32", MOST_DIFFERENCE)]
        _move_in(folder, path.parent)
    write_text(path.with_suffix(".yaml"), _yaml(about, members, calibrations, written))
    yield written[0]
    if int8:
        try:
            with _workshop(path.parent) as folder:
                write_eight_bits(path, folder / paths[1].name, MOST_INLINE_BYTES)
                written.append(comparison.of(folder / paths[1].name, "int8", np.inf))
                _move_in(folder, path.parent)
        except Exception as error:  # of onnx and onnxruntime, of many classes: what is done must not be lost
            raise UserError(
                f"{path} is written and complete, but {paths[1].name} isn't ({error_line(error)}); report this with "
                "the versions of onnx and onnxruntime, or export without --int8"
            ) from error
        write_text(path.with_suffix(".yaml"), _yaml(about, members, calibrations, written))
        yield written[1]


def _move_in(folder: Path, target: Path) -> None:
    """Move everything out of a folder into another, weights before the graph that names them."""
    for made in sorted(folder.iterdir(), key=lambda made: made.suffix == ".onnx"):
        made.replace(target / made.name)


def onnx_paths(path: Path, int8: bool) -> list[Path]:
    """The ONNX files that are written for one that is named."""
    return [path, path.with_suffix(".int8.onnx")] if int8 else [path]


def check_onnx_target(path: Path, paths: Sequence[Path]) -> None:
    """Raise UserError where an ONNX file can't be written, before anything expensive begins."""
    if path.suffix != ".onnx":
        raise UserError(f"--output {path} must end with .onnx, for example --output model.onnx")
    inside = [index for one in paths for index in (one, one.with_name(f"{one.name}.data"))]
    for index in (*inside, path.with_suffix(".yaml")):
        if index.exists():
            raise UserError(f"{index} exists, and nothing is overwritten; name another --output, or remove it")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"writing ONNX needs {error.name}, which isn't installed: `uv sync --extra onnx`") from error


@contextmanager
def _workshop(parent: Path) -> Iterator[Path]:
    """A folder on the same disk, removed with whatever is left in it."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".serfit-onnx-", dir=parent))
    except OSError as error:
        raise UserError(
            f"can't write into {parent}: {error.strerror or error}; choose a folder that you may write to (--output)"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reference(members: Sequence[Member], calibrations: Sequence[Calibration | None]) -> Recogniser:
    """Compute torch's outputs in float32 on the CPU. Raises UserError if the members don't go together."""
    device = torch.device("cpu")
    networks: list[Network] = []
    for member, calibration in zip(members, calibrations, strict=True):
        network = TorchNetwork(member.about, member.model, device, Precision().autocast)
        networks.append(network if calibration is None else Calibrated(network, calibration))
    return Recogniser(tuple(networks))


def _about(members: Sequence[Member], calibrations: Sequence[Calibration | None]) -> About:
    """Describe the graph, which normalises waveforms itself."""
    first = members[0].about
    origins = []
    for member, calibration in zip(members, calibrations, strict=True):
        said = None if calibration is None else Applied(kind=calibration.kind, utterances=calibration.utterances)
        origins.append(member.about.origin.model_copy(update={"calibration": said}))
    return replace(
        first,
        normalise=False,
        shortest=max(member.about.shortest for member in members),
        embedding_width=sum(member.about.embedding_width for member in members),
        origin=origins[0] if len(origins) == 1 else Origin(members=tuple(origins)),
    )


def _probes(shortest: int) -> Iterator[Waveform]:
    """Waveforms of very different lengths and levels, the same every time."""
    random = counters.generator("onnx probes")
    for gender, valence, arousal in (("F", 0.9, 0.8), ("M", 0.2, 0.3), ("F", 0.1, 0.9)):
        yield speak(random, draw_speaker(random, gender), valence, arousal)  # type: ignore[arg-type]
    yield (0.001 * random.standard_normal(shortest)).astype(np.float32)
    yield (0.2 * random.standard_normal(shortest + 317)).astype(np.float32)
    yield np.zeros(SAMPLE_RATE, dtype=np.float32)
    yield (0.5 + 0.1 * random.standard_normal(5 * SAMPLE_RATE)).astype(np.float32)


def _trace(graph: PublishedGraph, path: Path, described: str, members: int) -> None:
    """Write the graph, without the traces of this machine that the exporter leaves in it."""
    lengths = torch.tensor([SAMPLE_RATE, SAMPLE_RATE // 2 + 17])
    example = (torch.linspace(-0.5, 0.5, 2 * SAMPLE_RATE).reshape(2, -1), lengths)
    with torch.no_grad(), _quiet():
        program: Any = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            verbose=False,
            input_names=list(INPUTS),
            output_names=list(output_names(members)),
            dynamic_shapes=({0: "batch", 1: "samples"}, {0: "batch"}),
        )
    model = program.model
    outputs = list(model.graph.outputs)
    for part in (model.graph, *model.functions.values()):
        for node in part.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
                if value.name in output_names(members) and not any(value is one for one in outputs):
                    value.name = f"inner_{value.name}"  # the exporter calls a value after its operator, as "embedding"
        part.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props[METADATA] = described
    model.producer_name, model.producer_version = "serfit", __version__
    size = sum(tensor.nbytes for tensor in graph.state_dict().values())
    program.save(str(path), external_data=size > MOST_INLINE_BYTES)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about packages and axes that have no bearing here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """ONNX files compared with torch.

    Attributes:
        reference: torch's network.
        probes: edge cases, on which a file must agree.
        speech: what the reported difference is measured on; None for the probes.
    """

    reference: Recogniser
    probes: tuple[Waveform, ...]
    speech: Heldout | None

    def of(self, path: Path, precision: str, most: float) -> Written:
        """Compare a file with torch: on probes together, each alone and with rubbish for padding, and on speech.

        Raises:
            UserError: it is further from the reference than `most`, or not finite.
        """
        network = open_onnx(path, torch.device("cpu"))
        expected = self.reference.estimate(self.probes)
        far, apart = _distance(expected, list(_asked(network, self.probes)))
        made = counted(len(self.probes), "synthetic waveform")
        words = f"{made}: speech, noise and silence, from the shortest to several s"
        if self.speech is not None:
            outputs = network(self.speech.waveforms)
            told = self.reference.estimate(self.speech.waveforms)
            said, said_apart = _distance(told, [(outputs.unit, outputs.embeddings)])
            words = f"{len(self.speech.waveforms):,} of {self.speech.total:,} test utterances of the runs"
        else:
            said, said_apart = far, apart
        worst, worst_apart = max(*far, *said), max(apart, said_apart)
        if not max(worst, worst_apart) <= most or not np.isfinite(worst):
            raise UserError(
                f"the ONNX graph isn't the network: on [0, 1] it is off by {worst:.2g}, its pooled vectors by "
                f"{worst_apart:.2g} of their largest entry, and {most:g} is allowed; nothing was written; report this "
                "with the versions of torch and onnxruntime"
            )
        scales = self.reference.scales
        ranges = [scales[name].maximum - scales[name].minimum for name in self.reference.dimensions]
        values = {name: away * by for name, away, by in zip(self.reference.dimensions, said, ranges, strict=True)}
        return Written(path.name, precision, values, said_apart, words)


def _distance(
    expected: Estimates, outputs: Sequence[tuple[NDArray[Any], NDArray[np.float32]]]
) -> tuple[list[float], float]:
    """Largest difference on [0, 1] per dimension, and of pooled vectors relative to their largest entry."""
    away = np.abs(np.stack([unit for unit, _ in outputs]) - expected.unit).max(axis=(0, 1))
    largest = max(float(np.abs(expected.embeddings).max()), 1e-12)
    apart = max(float(np.abs(embedding - expected.embeddings).max()) / largest for _, embedding in outputs)
    return [float(one) for one in away], apart


def _asked(
    network: OnnxNetwork, probes: Sequence[Waveform]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Values [N, D] and pooled vectors [N, P] of the probes in one ragged batch, alone, and beside rubbish."""
    lengths = [len(one) for one in probes]
    together = network.run(padded([torch.from_numpy(one) for one in probes]).numpy(), lengths)
    yield together["unit"], together["embedding"]
    alone = [network.run(one[None], [len(one)]) for one in probes]
    yield tuple(np.concatenate([one[name] for one in alone]) for name in ("unit", "embedding"))  # type: ignore[misc]
    rubbish = np.full((len(probes), max(lengths) + 1000), 1e6, dtype=np.float32)
    for row, one in zip(rubbish, probes, strict=True):
        row[: len(one)] = one
    beside = network.run(rubbish, lengths)
    yield beside["unit"], beside["embedding"]


def _yaml(
    about: About, members: Sequence[Member], calibrations: Sequence[Calibration | None], written: Sequence[Written]
) -> str:
    normalised = sorted({"zero mean, unit variance" if one.about.normalise else "none" for one in members})
    count = len(members)
    said = {
        "name": about.name,
        "made_by": f"serfit {__version__}",
        "files": [one.to_json() for one in written],
        "sample_rate": SAMPLE_RATE,
        "normalisation": f"inside, over each waveform's own samples: {' and '.join(normalised)}",
        "shortest_waveform": about.shortest,
        "inputs": {
            "waveform": "float32 [batch, samples]: mono, as read, padded at the end with anything",
            "lengths": f"int64 [batch]: samples of each that count, {about.shortest} to the width of waveform; the "
            "outputs of a row beyond these limits are NaN",
        },
        "example": _EXAMPLE.format(file=written[0].file, rate=SAMPLE_RATE),
        "outputs": _outputs(about, count),
        "dimensions": list(about.dimensions),
        "scales": {name: [scale.minimum, scale.maximum] for name, scale in about.scales.items()},
        "members": count,
        "calibration": [None if one is None else plain(one) for one in calibrations],
        "origin": _readable(plain(about.origin)),
    }
    text: str = yaml.dump(said, Dumper=_Blocks, sort_keys=False, allow_unicode=True, width=110)
    return text


def _readable(origin: dict[str, Any]) -> dict[str, Any]:
    """An origin without thousands of digests, which the ONNX file itself holds."""
    read = {key: value for key, value in origin.items() if key != "trained_on"}
    return read | ({"members": [_readable(one) for one in read["members"]]} if "members" in read else {})


class _Blocks(yaml.SafeDumper):
    """Writes text of several lines as it is, to be read and copied."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Blocks.add_representer(str, _text)


_EXAMPLE = """\
import numpy as np
import onnxruntime
import soundfile

speech, rate = soundfile.read("speech.wav", dtype="float32")
assert rate == {rate} and speech.ndim == 1
session = onnxruntime.InferenceSession("{file}")
(values,) = session.run(["values"], {{"waveform": speech[None], "lengths": np.array([len(speech)])}})
"""


def _outputs(about: About, members: int) -> dict[str, str]:
    order = ", ".join(about.dimensions)
    said = {
        "values": f"float32 [batch, {len(about.dimensions)}]: {order} on the corpus's scale; not clipped, so a little "
        "beyond it is possible",
        "unit": f"float32 [batch, {len(about.dimensions)}]: the same with that scale mapped to [0, 1]",
        "embedding": f"float32 [batch, {about.embedding_width}]: pooled vectors",
        "spread": "float32: standard deviation over the members, on the corpus's scale",
        "members": f"float32 [batch, {members}, {len(about.dimensions)}]: what each member says, on [0, 1]",
    }
    return {name: said[name] for name in output_names(members)}
