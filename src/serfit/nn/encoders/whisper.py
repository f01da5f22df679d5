"""Whisper's encoder: log-mel spectra, two convolutions, fixed positions, a pre-norm transformer.

Radford et al., "Robust speech recognition via large-scale weak supervision", 2022. The decoder is never built. Whisper
was pretrained on 30 s of speech and silence. It is used in one of two declared ways: on the utterance alone, its
positions cut and everything behind its end masked, or on windows of 30 s as in pretraining, whose silence is attended
to. Either way longer speech is encoded window by window, and all its frames are pooled together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serfit.nn.dropout import DropoutSeeds, dropout
from serfit.nn.encoders.attention import attend
from serfit.nn.encoders.base import CNN, EMBEDDING, INPUT, Encoder, States
from serfit.nn.encoders.log_mel import HOP, SHORTEST, WINDOW, log_mel
from serfit.nn.encoders.sizes import Sizes
from serfit.nn.encoders.source import Source
from serfit.nn.encoders.wav2vec2_config import configured, skeleton
from serfit.nn.encoders.weights import with_weights
from serfit.nn.encoders.whisper_config import Settings
from serfit.nn.frames import Layout, valid_mask

_STRIDE = 2
"""Spectra per frame: the stride of the second convolution."""


@dataclass(frozen=True, slots=True)
class _Attended:
    """What the layers of a pass attend to.

    Attributes:
        layout: the frames that are computed: with windows, those of their silence too.
        keys: bool, broadcastable to [B, heads, T, T], which frames a frame attends to; None where it is all of them.
    """

    layout: Layout
    keys: Tensor | None


class WhisperEncoder(Encoder):
    """The encoder of Whisper, of any size.

    Attributes:
        windows: whether it computes windows of 30 s that are filled up with silence, as in pretraining.
    """

    def __init__(self, hf: nn.Module, *, windows: bool = False, **options: Any) -> None:
        """Wrap a transformers `WhisperEncoder`; windows as the attribute, options as for `Encoder`."""
        config: Any = hf.config
        sizes = Sizes(
            width=config.d_model,
            heads=config.encoder_attention_heads,
            inner=config.encoder_ffn_dim,
            channels=config.d_model,
            hop=HOP * _STRIDE,
        )
        super().__init__(hf, sizes, config.encoder_layers, **options)
        self.windows = windows
        self.positions: int = config.max_source_positions
        self.window_samples: int = self.positions * sizes.hop
        self.hf.embed_positions.requires_grad_(False)

    @classmethod
    def of(cls, source: Source, **options: Any) -> Self:
        """Build the encoder of a source; options as for this class.

        Raises:
            UserError: the settings can't be, the weights don't belong to them, or aren't finite, or a file states
                spectra that are computed in another way.
        """
        from transformers.models.whisper import modeling_whisper

        config = configured(source.settings, source.where, Settings)
        build = modeling_whisper.WhisperEncoder
        hf = with_weights(lambda: skeleton(config, source.where, build), source.tensors, source.name)
        taken = {"feature_size": config.num_mel_bins, "n_fft": WINDOW, "hop_length": HOP}
        source.normalisation.check_spectra(source.name, taken, "this encoder takes")
        return cls(hf, normalise=False, **options)  # whatever is stated: transformers' extractor doesn't do it either

    @property
    def shortest_input(self) -> int:
        """See `Encoder`."""
        return SHORTEST

    def frame_count(self, samples: Any) -> Any:
        """See `Encoder`: the frames of the speech itself, also where silence is added to it."""
        return (samples // HOP + 1) // _STRIDE

    def entry(self, stage: int) -> int:
        """See `Encoder`.

        Positions are added anew to what the CNN gives, for they cost nothing. Windows can't be entered midway: behind
        the speech they hold frames that layers attend to and the pooling doesn't.
        """
        if self.windows and stage < self.last_stage:
            return INPUT
        return CNN if stage == EMBEDDING else stage

    def computed_samples(self, samples: int) -> int:
        """See `Encoder`."""
        return -(-samples // self.window_samples) * self.window_samples if self.windows else samples

    @property
    def preparation(self) -> str:
        """See `Encoder`."""
        return f"{self.config.num_mel_bins} mel bands are computed, of waveforms whose level is left as it is"

    @property
    def architecture(self) -> dict[str, Any]:
        """See `Encoder`."""
        keys = "num_mel_bins", "encoder_attention_heads", "activation_function", "max_source_positions"
        found = {key: getattr(self.config, key) for key in keys}
        return {"model_type": "whisper", **found, "input": "window" if self.windows else "utterance"}

    def stage_modules(self, stage: int) -> dict[str, nn.Module]:
        """See `Encoder`."""
        hf = self.hf
        match stage:
            case 0:
                return {}
            case 1:
                return {"conv1": hf.conv1, "conv2": hf.conv2}
            case 2:
                return {"embed_positions": hf.embed_positions}
        index = stage - EMBEDDING - 1
        parts = {f"layers.{index}": hf.layers[index]}
        return parts | {"layer_norm": hf.layer_norm} if stage == self.last_stage else parts

    def stage_parameters(self, stage: int) -> Iterator[nn.Parameter]:
        """See `Encoder`. Positions are sinusoids and stay what they are."""
        return iter(()) if stage == EMBEDDING else super().stage_parameters(stage)

    def front_bytes(self, stage: int, seconds: float, word: int, *, checkpointing: bool) -> float:
        """See `Encoder`: a trained CNN keeps the taps of both convolutions, and what goes into their activations."""
        if stage != INPUT or self.frozen_stages > INPUT:
            return 0.0
        first, second = 3 * self.config.num_mel_bins + self.width, 4 * self.width
        kept = second if checkpointing else _STRIDE * first + second
        return word * kept * self.computed_frames(seconds)

    def traced(self, waveforms: Tensor, lengths: Tensor) -> States:
        """See `Encoder`; the convolutions, layers and attention are those of `run`."""
        hidden = self._convolved(
            self._spectra(waveforms, lengths, graph=True), None if self.windows else lengths // HOP
        )
        counts, frames = self.frame_count(lengths), hidden.shape[1]
        layout = Layout((), frames, counts, valid_mask(counts, frames))
        # Every mask is applied: a graph can't know whether a batch is padded, or longer than one window.
        keys = self._same_window(frames, None if self.windows else layout.valid)
        return self.run(States((hidden,), layout), CNN, self.last_stage, shared=_Attended(layout, keys))

    def _spectra(self, waveforms: Tensor, lengths: Tensor, *, graph: bool = False) -> Tensor:
        """Log-mel spectra [B, M, bands] of waveforms [B, S] with lengths [B], or of the windows that they fill."""
        bands = self.config.num_mel_bins
        if not self.windows:
            return log_mel(waveforms, lengths, bands, graph=graph)
        batch, samples = waveforms.shape
        window = self.window_samples
        count = (samples + window - 1) // window
        speech = torch.where(valid_mask(lengths, samples), waveforms, 0.0)
        rows = F.pad(speech, (0, count * window - samples)).reshape(batch * count, window)
        full = torch.full((batch * count,), window, device=rows.device)
        return log_mel(rows, full, bands, graph=graph).reshape(batch, -1, bands)

    def _front(self, inputs: Tensor, layout: Layout, call: Any) -> tuple[Tensor, Layout]:
        spectra = self._spectra(inputs, layout.lengths)
        hidden = call(self._convolved, spectra, None if self.windows else layout.lengths // HOP)
        counts = [self.frame_count(count) for count in layout.counts]
        return hidden, Layout.of(counts, hidden.shape[1], hidden.device)

    def _convolved(self, spectra: Tensor, lengths: Tensor | None) -> Tensor:
        """Both convolutions: spectra [B, M, bands], of which lengths [B] are valid, to frames [B, T, H].

        Between them what lies behind an utterance must become 0 again: the second one sees the first of it wherever
        the number of spectra is odd.
        """
        edge = _STRIDE * self.positions
        hidden = F.gelu(_three_taps(self.hf.conv1, spectra, edge))
        if lengths is not None:
            hidden = torch.where(valid_mask(lengths, hidden.shape[1])[..., None], hidden, 0.0)
        return F.gelu(_three_taps(self.hf.conv2, hidden, edge))

    def _embed(self, frames: Tensor, layout: Layout, noise: DropoutSeeds | None, time_mask: Tensor | None) -> Tensor:
        """See `Encoder`. The residual stream keeps the parameters' precision under autocast."""
        hidden = frames.to(self.dtype)
        if time_mask is not None:
            hidden = hidden.masked_fill(time_mask[..., None], 0.0)
        indices = torch.arange(hidden.shape[1], device=hidden.device) % self.positions
        hidden = hidden + F.embedding(indices, self.hf.embed_positions.weight)
        return dropout(hidden, self.p, noise, 4 * EMBEDDING, self._counts(layout))

    def _counts(self, layout: Layout) -> tuple[int, ...]:
        """The frames that are computed: those of the speech, or of all windows that an utterance needs."""
        if not self.windows:
            return layout.counts
        return tuple(-(-count // self.positions) * self.positions for count in layout.counts)

    def _shared(self, layout: Layout) -> _Attended:
        computed = Layout.of(self._counts(layout), layout.frames, layout.lengths.device) if self.windows else layout
        if computed.frames > self.positions:
            return _Attended(computed, self._same_window(computed.frames, computed.valid))
        return _Attended(computed, None if computed.valid is None else computed.valid[:, None, None, :])

    def _same_window(self, frames: int, valid: Tensor | None) -> Tensor:
        """Bool [1 or B, 1, T, T]: frames attend to valid ones of their own window, and those of padding to themselves.

        A frame that attended to nothing would be NaN, and even a weight of 0 doesn't make that harmless.
        """
        indices = torch.arange(frames, device=self.device)
        windows = indices // self.positions
        same = (windows[:, None] == windows[None, :])[None, None]
        return same if valid is None else (same & valid[:, None, None, :]) | (indices[:, None] == indices[None, :])

    def _layer(
        self, stage: int, hidden: Tensor, layout: Layout, shared: _Attended, noise: DropoutSeeds | None
    ) -> Tensor:
        layer, site, computed = self.hf.layers[stage - EMBEDDING - 1], 4 * stage, shared.layout

        def attended(x: Tensor) -> Tensor:
            out = attend(layer.self_attn, x, computed, None, self.attention_p, noise, site, keys=shared.keys)
            return dropout(out, self.p, noise, site + 1, computed.counts)

        def fed_forward(x: Tensor) -> Tensor:
            return dropout(layer.fc2(layer.activation_fn(layer.fc1(x))), self.p, noise, site + 2, computed.counts)

        hidden = hidden + attended(layer.self_attn_layer_norm(hidden))
        hidden = hidden + fed_forward(layer.final_layer_norm(hidden))
        return self.hf.layer_norm(hidden) if stage == self.last_stage else hidden


def _three_taps(conv: nn.Conv1d, x: Tensor, edge: int) -> Tensor:
    """Convolve [B, T, C] to [B, ceil(T / stride), O], a kernel of 3 with zeros around each stretch of `edge` frames.

    One matrix product over frames with their neighbours side by side. A neighbour in another window is masked; taking
    the windows apart would need their number, which a graph for any length doesn't have.
    """
    indices = torch.arange(x.shape[1], device=x.device)[:, None]
    before = torch.where(indices % edge == 0, 0.0, F.pad(x, (0, 0, 1, 0))[:, :-1])
    after = torch.where(indices % edge == edge - 1, 0.0, F.pad(x, (0, 0, 0, 1))[:, 1:])
    taps = torch.cat([before, x, after], dim=-1)[:, :: conv.stride[0]]
    return F.linear(taps, conv.weight.transpose(1, 2).flatten(1), conv.bias)
