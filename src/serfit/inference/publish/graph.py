"""What an ONNX file of serfit computes: waveforms as they were read to values on the corpus's scale, in one graph."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from serfit.labels import Dimension, LabelScale
from serfit.nn.model import EmotionModel
from serfit.scores.calibration import Calibration, MonotoneMap


class MonotoneGraph(nn.Module):
    """A `MonotoneMap` as tensor operations that a graph can hold."""

    starts: Tensor
    widths: Tensor
    slopes: Tensor

    def __init__(self, line: MonotoneMap) -> None:
        """Keep the map's numbers as float32 buffers."""
        super().__init__()
        knots = torch.tensor(line.knots, dtype=torch.float64)
        values = torch.tensor(line.values, dtype=torch.float64)
        self.register_buffer("starts", knots[:-1].float())
        self.register_buffer("widths", knots.diff().float())
        self.register_buffer("slopes", (values.diff() / knots.diff()).float())
        self.first, self.last, self.lowest, self.slope = line.knots[0], line.knots[-1], line.values[0], line.slope

    def forward(self, unit: Tensor) -> Tensor:
        """Predictions [B] as calibrated ones."""
        beyond = (unit - self.first).clamp(max=0.0) + (unit - self.last).clamp(min=0.0)
        mapped = self.lowest + self.slope * beyond
        if len(self.starts):
            within = torch.minimum((unit[:, None] - self.starts).clamp(min=0.0), self.widths)
            mapped = mapped + (within * self.slopes).sum(1)
        return mapped


class PublishedGraph(nn.Module):
    """One network or the mean of several, each calibrated by its own maps where it has some."""

    minimum: Tensor
    range: Tensor

    def __init__(
        self,
        models: Sequence[EmotionModel],
        calibrations: Sequence[Calibration | None],
        dimensions: Sequence[Dimension],
        scales: Mapping[Dimension, LabelScale],
        shortest: int,
    ) -> None:
        """Wrap M models without copying their weights.

        Args:
            models: at least one.
            calibrations: as many; None leaves a model's values as they are.
            dimensions: names of the D values.
            scales: the corpus's.
            shortest: fewest samples that all models can process.
        """
        super().__init__()
        self.shortest = shortest
        self.networks: Any = nn.ModuleList(models)
        self.maps = nn.ModuleList(
            [
                nn.ModuleList([] if one is None else [MonotoneGraph(one.maps[name]) for name in dimensions])
                for one in calibrations
            ]
        )
        self.register_buffer("minimum", torch.tensor([scales[name].minimum for name in dimensions]))
        self.register_buffer(
            "range", torch.tensor([scales[name].maximum - scales[name].minimum for name in dimensions])
        )

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """What `output_names` names: [B, D] on the corpus's scale and on [0, 1], [B, P], then [B, D] and [B, M, D].

        A row that is too short, or is said to be longer than S, is NaN in every output: ONNX has no operator that
        raises, and any number would be made up. It changes nothing for the other rows.

        Args:
            waveform: [B, S] as read, mono at 16 kHz, of any width; what lies beyond a length is never looked at.
            lengths: [B] int64.
        """
        usable = (lengths >= self.shortest) & (lengths <= waveform.shape[1])
        waveform = nn.functional.pad(waveform, (0, self.shortest))  # an array narrower than that would end in an error
        counted = torch.where(usable, lengths, self.shortest)
        pooled = [network.pool(network.encoder.traced(waveform, counted)) for network in self.networks]
        each = zip(self.networks, self.maps, pooled, strict=True)
        mapped = [_mapped(maps, network.head(vectors)) for network, maps, vectors in each]
        units = [torch.where(usable[:, None], unit, torch.nan) for unit in mapped]
        members = torch.stack(units, dim=1)
        unit = members.mean(dim=1)
        values = unit * self.range + self.minimum
        embedding = torch.where(usable[:, None], torch.cat(pooled, dim=1), torch.nan)
        if len(units) == 1:
            return values, unit, embedding
        deviation = ((members - unit[:, None]).square().sum(1) / (len(units) - 1)).sqrt()
        return values, unit, embedding, deviation * self.range, members


def _mapped(maps: nn.Module, unit: Tensor) -> Tensor:
    columns = [one(unit[:, column]) for column, one in enumerate(maps.children())]
    return torch.stack(columns, dim=1) if columns else unit
