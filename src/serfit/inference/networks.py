"""Networks that hear waveforms: each gives values on [0, 1] and pooled vectors, whatever computes them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from serfit.errors import UserError, is_out_of_memory
from serfit.inference.about import About
from serfit.labels import SAMPLE_RATE
from serfit.nn.encoders.base import INPUT
from serfit.nn.model import EmotionModel
from serfit.nn.passes import PASS_SECONDS, padded, plan_passes

Waveform = NDArray[np.float32]
"""Mono speech at 16 kHz, [S]."""

LARGEST_PASS = {"cpu": 30.0, "cuda": 480.0}
"""Padded seconds of speech in one pass at first; halved when memory runs out. Larger passes gain nothing on CPUs."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of a network for N waveforms.

    Attributes:
        unit: [N, D] float64, values on [0, 1] (if the head is linear, a little beyond is possible).
        embeddings: [N, P] float32, pooled vectors; P is 0 where the network doesn't give them.
        members: [M, N, D] as unit, where the network is itself the mean of M; None where it is one.
    """

    unit: NDArray[np.float64]
    embeddings: NDArray[np.float32]
    members: NDArray[np.float64] | None = None

    @property
    def each(self) -> NDArray[np.float64]:
        """The values of every single network, [M, N, D]; M is 1 for one network."""
        return self.unit[None] if self.members is None else self.members


class Network(Protocol):
    """A network ready to be used."""

    @property
    def about(self) -> About:
        """The dimensions and scales it predicts, and how its audio must be prepared."""

    @property
    def members(self) -> int:
        """Number of networks whose mean it is; 1 for a single network."""

    def __call__(self, waveforms: Sequence[Waveform]) -> Outputs:
        """Predict N waveforms as they were read, each at least `about.shortest` samples long.

        The same for each waveform, up to rounding, whatever else is asked about together with it.

        Raises:
            UserError: memory runs out with a single one.
        """


@dataclass(slots=True)
class TorchNetwork:
    """An `EmotionModel` in evaluation mode.

    Attributes:
        about: what it predicts.
        model: the network, on its device.
        device: where it computes.
        autocast: context of the encoder's passes (mixed precision).
        pass_seconds: padded seconds of one pass; None takes what suits the device.
    """

    about: About
    model: EmotionModel = field(repr=False)
    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]] = field(repr=False)
    pass_seconds: float | None = None

    @property
    def members(self) -> int:
        """See `Network`."""
        return 1

    def __call__(self, waveforms: Sequence[Waveform]) -> Outputs:
        """See `Network`."""
        seconds = self.pass_seconds or LARGEST_PASS.get(self.device.type, LARGEST_PASS["cpu"])
        overhead = PASS_SECONDS.get(self.device.type, 0.0) * SAMPLE_RATE
        lengths = [self.model.encoder.computed_samples(len(waveform)) for waveform in waveforms]
        unit = np.empty((len(waveforms), len(self.about.dimensions)), dtype=np.float64)
        embeddings = np.empty((len(waveforms), self.about.embedding_width), dtype=np.float32)
        while True:
            try:
                for indices in plan_passes(lengths, round(seconds * SAMPLE_RATE), overhead=overhead):
                    unit[indices], embeddings[indices] = self._pass([waveforms[index] for index in indices])
                return Outputs(unit, embeddings)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            seconds = self.pass_seconds = self._less(seconds, max(lengths) / SAMPLE_RATE)

    def _pass(self, waveforms: Sequence[Waveform]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        prepared = [self.model.encoder.prepare(torch.from_numpy(waveform)) for waveform in waveforms]
        lengths = torch.tensor([len(one) for one in prepared])
        inputs = padded(prepared).to(self.device)
        with torch.inference_mode():
            with self.autocast():
                pooled = self.model.embed(inputs, lengths, INPUT)
            values = self.model.head(pooled.float())
        return values.double().cpu().numpy(), pooled.float().cpu().numpy()

    def _less(self, seconds: float, longest: float) -> float:
        """Half of what was too much. Raises UserError where it was a single waveform."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if seconds <= longest:
            raise UserError(
                f"memory on {self.device} runs out with {longest:.1f} s of speech in one piece; cut it into windows "
                "(--window 3), or use a machine with more memory"
            )
        return max(seconds / 2, longest)
