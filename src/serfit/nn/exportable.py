"""The network as one graph of tensors, waveform and lengths in, values and pooled vector out: what ONNX can hold.

The network itself keeps lengths on the host, enters and leaves its chain anywhere and takes faster paths where nothing
is padded. A graph can do none of that: here lengths are a tensor, every mask is always applied, and batch and length
may change from call to call. Layers, attention, mix, pooling and head are the network's own; only what counts on the
host - normalisation, the CNN with its group norm, the position bias - is written again. Tests hold both against each
other.
"""

from typing import Any

import torch
from torch import Tensor, nn

from serfit.nn.attention import relative_buckets
from serfit.nn.encoder import CNN, States
from serfit.nn.frames import Layout, frame_count, valid_mask
from serfit.nn.model import EmotionModel

_VARIANCE_FLOOR = 1e-7
"""As in transformers' feature extractor."""


class ExportableModel(nn.Module):
    """An `EmotionModel` in evaluation mode whose forward is a graph."""

    def __init__(self, model: EmotionModel) -> None:
        """Wrap a model without copying its weights."""
        super().__init__()
        self.model = model

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Values [B, D] on [0, 1] and pooled vectors [B, P].

        Args:
            waveforms: [B, S] as read, mono at 16 kHz; what stands beyond a waveform's length is never looked at.
            lengths: [B] int64, samples of each, at least the encoder's `shortest_input` and at most S.
        """
        encoder = self.model.encoder
        valid = valid_mask(lengths, waveforms.shape[1])
        heard = torch.where(valid, waveforms, 0.0)
        if encoder.normalise:
            heard = normalised_rows(heard, lengths, valid)
        states = self._hear(heard, lengths)
        bias = None
        if encoder.config.model_type == "wavlm":
            bias = bias_of_pairs(encoder.hf.encoder.layers[0].attention, states.layout.frames)
        pooled = self.model.pool(encoder.run(states, CNN, encoder.last_stage, bias=bias))
        values: Tensor = self.model.head(pooled)
        return values, pooled

    def _hear(self, waveforms: Tensor, lengths: Tensor) -> States:
        """The CNN, channels before time as ONNX runtimes want it: [B, S] to [B, T, C]."""
        encoder = self.model.encoder
        hidden = waveforms[:, None]
        geometry = zip(encoder.config.conv_kernel, encoder.config.conv_stride, strict=True)
        for layer, (kernel, stride) in zip(encoder.hf.feature_extractor.conv_layers, geometry, strict=True):
            lengths = frame_count(lengths, (kernel,), (stride,))
            hidden = layer.conv(hidden)
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                hidden = group_norm_rows(norm, hidden, lengths)
            elif norm is not None:
                hidden = norm(hidden.transpose(1, 2)).transpose(1, 2)
            hidden = layer.activation(hidden)
        frames = hidden.shape[-1]
        return States((hidden.transpose(1, 2),), Layout((), frames, lengths, valid_mask(lengths, frames)))


def normalised_rows(waveforms: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
    """Each waveform of [B, S] at zero mean and unit variance over its valid samples, and 0 beyond.

    Args:
        waveforms: [B, S], 0 where not valid.
        lengths: [B].
        valid: bool [B, S].
    """
    counts = lengths[:, None].to(waveforms.dtype)
    centred = torch.where(valid, waveforms - waveforms.sum(1, keepdim=True) / counts, 0.0)
    return centred / (centred.square().sum(1, keepdim=True) / counts + _VARIANCE_FLOOR).sqrt()


def group_norm_rows(norm: nn.GroupNorm, hidden: Tensor, lengths: Tensor) -> Tensor:
    """Group norm over time of [B, C, T] with statistics over the first lengths[b] frames only; 0 beyond."""
    batch, channels, frames = hidden.shape
    valid = valid_mask(lengths, frames)[:, None, None]
    grouped = hidden.reshape(batch, norm.num_groups, channels // norm.num_groups, frames)
    counts = (lengths * (channels // norm.num_groups))[:, None, None, None].to(hidden.dtype)
    mean = torch.where(valid, grouped, 0.0).sum((2, 3), keepdim=True) / counts
    centred = torch.where(valid, grouped - mean, 0.0)
    variance = centred.square().sum((2, 3), keepdim=True) / counts
    normed = (centred * (variance + norm.eps).rsqrt()).reshape(batch, channels, frames)
    if norm.affine:
        normed = normed * norm.weight[:, None] + norm.bias[:, None]
    return torch.where(valid[:, 0], normed, 0.0)


def bias_of_pairs(attention: Any, frames: int) -> Tensor:
    """`serfit.nn.attention.position_bias` [heads, T, T], gathered for each pair of frames instead of strided."""
    table = attention.rel_attn_embed.weight
    distances = torch.arange(1 - frames, frames, device=table.device)
    by_distance = table[relative_buckets(distances, attention.num_buckets, attention.max_distance)]
    places = torch.arange(frames, device=table.device)
    found: Tensor = by_distance[places[None, :] - places[:, None] + (frames - 1)]
    return found.permute(2, 0, 1)
