"""Exported networks: ONNX files of `serfit export`, asked through onnxruntime as any other network.

A file says itself what it predicts, in its metadata, so it needs nothing beside it (an ensemble of large encoders keeps
its weights in a second file, NAME.onnx.data). Nothing in it is code.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from serfit.errors import UserError, counted, error_line
from serfit.inference.about import MOST, About
from serfit.inference.calibrated import Choice
from serfit.inference.networks import LARGEST_PASS, Outputs, Waveform
from serfit.labels import SAMPLE_RATE
from serfit.nn.passes import PASS_SECONDS, padded, plan_passes
from serfit.scores.calibration import KINDS
from serfit.system.files import refuse_lfs_pointer

FORMAT = 1
METADATA = "serfit"
"""Key of a file's metadata under which it says what it is, as JSON."""


@dataclass(frozen=True, slots=True)
class OnnxNetwork:
    """The network of an ONNX file.

    Attributes:
        about: what it predicts.
        session: onnxruntime's.
        members: how many networks the file holds; their mean counts.
    """

    about: About
    session: Any
    members: int

    def __call__(self, waveforms: Sequence[Waveform]) -> Outputs:
        """See `serfit.inference.networks.Network`."""
        count, width = len(waveforms), len(self.about.dimensions)
        each = np.empty((self.members, count, width), dtype=np.float64)
        unit = np.empty((count, width), dtype=np.float64)
        embeddings = np.empty((count, self.about.embedding_width), dtype=np.float32)
        lengths = [len(waveform) for waveform in waveforms]
        most = round(LARGEST_PASS["cpu"] * SAMPLE_RATE)
        for indices in plan_passes(lengths, most, overhead=PASS_SECONDS["cpu"] * SAMPLE_RATE):
            heard = [torch.from_numpy(waveforms[index]) for index in indices]
            said = self.run(padded(heard).numpy(), [lengths[index] for index in indices])
            unit[indices], embeddings[indices] = said["unit"], said["embedding"]
            each[:, indices] = said["members"].swapaxes(0, 1) if self.members > 1 else said["unit"]
        return Outputs(unit, embeddings, each if self.members > 1 else None)

    def run(self, batch: NDArray[np.float32], lengths: Sequence[int]) -> dict[str, NDArray[np.float32]]:
        """The graph's outputs by name, for a padded batch [B, S] of waveforms with lengths [B], in one pass.

        Raises:
            UserError: a row is too short or said to be longer than it is; onnxruntime fails, usually because memory
                runs out.
        """
        for row, length in enumerate(lengths, start=1):
            if not self.about.shortest <= length <= batch.shape[1]:
                raise UserError(
                    f"row {row} of {len(lengths)} is said to have {counted(length, 'sample')}, and the model needs "
                    f"{self.about.shortest:,} to {batch.shape[1]:,} of them, the width of the array; leave the row "
                    "out, or correct its length"
                )
        inputs = {"waveform": batch, "lengths": np.array(lengths, dtype=np.int64)}
        names = output_names(self.members)
        try:
            said = dict(zip(names, self.session.run(list(names), inputs), strict=True))
        except Exception as error:  # onnxruntime's own, of many classes
            seconds = max(lengths) / SAMPLE_RATE
            raise UserError(
                f"onnxruntime fails with {seconds:.1f} s of speech in one piece ({error_line(error)}); cut it into "
                "windows (--window 3), or use a machine with more memory"
            ) from error
        for name, widths in _widths(self.about, self.members).items():
            if said[name].shape != (len(lengths), *widths):
                raise UserError(
                    f"an ONNX file gives {name} of shape {said[name].shape}, and promises "
                    f"{(len(lengths), *widths)}; export the run again"
                )
        return said


def is_onnx(path: Path) -> bool:
    """Whether a path is named as an ONNX file."""
    return path.suffix.lower() == ".onnx"


def open_onnx(path: Path, device: torch.device, calibrate: Choice = None) -> OnnxNetwork:
    """The network of an ONNX file.

    Args:
        path: the file.
        device: where to compute; a GPU is used where the installed onnxruntime knows it.
        calibrate: the calibration wanted; a file has the one that it was exported with.

    Raises:
        UserError: onnxruntime is missing, or the file, or it is damaged or not from `serfit export`.
    """
    session = _session(path, device)
    described = _described(session, path)
    version, members, inside = (described.get(key) for key in ("format", "members", "calibration"))
    if not (_number(version) and _number(members) and (inside is None or inside in KINDS)):
        raise UserError(f"the metadata of {path} are incomplete or can't be; export the run again")
    if version > FORMAT:
        raise UserError(f"{path} is of ONNX format {version}, and this serfit reads up to {FORMAT}; update serfit")
    about = About.from_json(described.get("about") or {}, str(path))
    inputs = {one.name: (one.type, len(one.shape)) for one in session.get_inputs()}
    outputs = {one.name: (one.type, tuple(one.shape[1:])) for one in session.get_outputs()}
    promised = {name: ("tensor(float)", widths) for name, widths in _widths(about, members).items()}
    if inputs != dict(zip(INPUTS, _INPUT_TYPES, strict=True)) or outputs != promised:
        raise UserError(f"{path} hasn't the inputs and outputs that its metadata promise; export the run again")
    if calibrate is not None and calibrate != (inside or "none"):
        raise UserError(
            f"{path} was exported with the calibration {inside or 'none'}, and {calibrate} is asked for; export the "
            f"run again with --calibrate {calibrate}"
        )
    return OnnxNetwork(about, session, members)


_INPUT_TYPES = (("tensor(float)", 2), ("tensor(int64)", 1))


def _widths(about: About, members: int) -> dict[str, tuple[int, ...]]:
    """Sizes of each output behind the batch."""
    values, embedding = (len(about.dimensions),), (about.embedding_width,)
    sizes = (values, values, embedding, values, (members, *values))
    return dict(zip(output_names(members), sizes, strict=False))


def _number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST


def _session(path: Path, device: torch.device) -> Any:
    if not path.is_file():
        raise UserError(f"there is no file {path}; `serfit export RUN --to onnx --output {path}` makes one")
    refuse_lfs_pointer(path)
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "ONNX files need onnxruntime, which isn't installed: `uv sync --extra onnx`, or `pip install onnxruntime`"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    available = set(onnxruntime.get_available_providers())
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [name for name in wanted if name in available] + ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own, of many classes
        raise UserError(
            f"{path} can't be opened as ONNX ({error_line(error)}); it is damaged, of another kind, or lacks its file "
            "of weights"
        ) from error


def _described(session: Any, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
        if not isinstance(data, dict):
            raise ValueError("it is no object")
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} doesn't say what it predicts: it wasn't written by `serfit export`, or its metadata were removed"
        ) from error
    return data


INPUTS = ("waveform", "lengths")


def output_names(members: int) -> tuple[str, ...]:
    """Names of the graph's outputs; an ensemble also says how far its members differ, and what each of them says."""
    return ("values", "unit", "embedding", *(("spread", "members") if members > 1 else ()))
