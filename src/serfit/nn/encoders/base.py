"""What an encoder is to the rest of serfit: a chain of stages that can be entered and left anywhere.

Memory, forecast, features, bundles and ONNX ask these methods; nothing outside this package knows how an encoder is
built. A family of encoders is one subclass in a module of its own, and one line in `serfit.nn.encoders.build`. Weights,
names and submodules are transformers'; its forward functions are never called, so that neither SpecAugment, LayerDrop
nor its dropout can act.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from serfit.config.schema import ModelParams
from serfit.errors import UserError, counted
from serfit.labels import SAMPLE_RATE
from serfit.nn.dropout import DropoutSeeds
from serfit.nn.encoders.sizes import Activations, Sizes
from serfit.nn.frames import Layout

INPUT, CNN, EMBEDDING = 0, 1, 2
"""Numbers of the first stages; the state after k transformer layers is stage EMBEDDING + k."""


@dataclass(frozen=True, slots=True)
class States:
    """The output of a stage for a whole batch.

    Attributes:
        tensors: one tensor [B, S] or [B, T, C] for the first stages, then hidden states [B, T, H] from the lowest to
            the newest, only the newest where the encoder doesn't keep all.
        layout: which entries on axis 1 are valid.
    """

    tensors: tuple[Tensor, ...]
    layout: Layout

    @property
    def newest(self) -> Tensor:
        """The input of the next stage."""
        return self.tensors[-1]


class Encoder(nn.Module, ABC):
    """A pretrained speech encoder: waveform, CNN, transformer.

    The input is always the waveform, so that augmentation, crops and stored audio are the same for every family; one
    that wants spectra computes them as the first step of its CNN.

    Attributes:
        hf: transformers' model, the owner of all parameters.
        sizes: how wide its parts are.
        depth: L, the number of transformer layers.
        keep_all: whether hidden states of all layers are kept, for a weighted sum, or only the newest.
        normalise: whether waveforms are brought to zero mean and unit variance.
        p: dropout of the transformer's input, and after attention and feed-forward blocks, of trainable stages only.
        attention_p: dropout of attention weights in the same stages.
        gradient_checkpointing: recompute activations of trainable stages in the backward pass.
    """

    front_name = "output of the CNN"
    window_samples: int | None = None
    """Most samples that are encoded together: longer speech is encoded in windows, and their frames pooled together."""

    def __init__(
        self,
        hf: nn.Module,
        sizes: Sizes,
        depth: int,
        *,
        keep_all: bool,
        normalise: bool,
        p: float = 0.0,
        attention_p: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Wrap a transformers model; arguments as the attributes."""
        super().__init__()
        self.hf: Any = hf
        self.config: Any = hf.config
        self.sizes, self.depth = sizes, depth
        self.keep_all, self.normalise = keep_all, normalise
        self.p, self.attention_p = p, attention_p
        self.gradient_checkpointing = gradient_checkpointing

    # What each family says of itself.

    @property
    @abstractmethod
    def shortest_input(self) -> int:
        """Fewest samples that give one frame."""

    @abstractmethod
    def frame_count(self, samples: Any) -> Any:
        """Frames T of a waveform with so many samples, for ints and integer tensors."""

    @property
    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """The configuration of the stages as JSON: part of a stored feature's identity."""

    @abstractmethod
    def stage_modules(self, stage: int) -> dict[str, nn.Module]:
        """The modules, by name below `hf`, whose parameters turn stage - 1 into stage."""

    @abstractmethod
    def front_bytes(self, stage: int, seconds: float, word: int, *, checkpointing: bool) -> float:
        """Bytes that an utterance of so many seconds keeps for the backward pass from a stage to the transformer.

        Args:
            stage: where training starts, INPUT or CNN.
            seconds: length of the utterance.
            word: bytes of a number in the precision of the pass.
            checkpointing: whether activations are computed again in the backward pass.
        """

    @abstractmethod
    def traced(self, waveforms: Tensor, lengths: Tensor) -> States:
        """The last stage as one graph of tensors, which ONNX can hold: lengths are a tensor, every mask is applied.

        Args:
            waveforms: [B, S] as read; what lies beyond a waveform's length is never looked at.
            lengths: [B] int64, samples of each, at least `shortest_input` and at most S.
        """

    @abstractmethod
    def _front(self, inputs: Tensor, layout: Layout, call: Any) -> tuple[Tensor, Layout]:
        """The CNN: waveforms [B, S] to [B, T, C], whose valid frames depend on valid samples alone."""

    @abstractmethod
    def _embed(self, frames: Tensor, layout: Layout, noise: DropoutSeeds | None, time_mask: Tensor | None) -> Tensor:
        """The CNN's output [B, T, C] to the transformer's input [B, T, H], with positions and dropout."""

    @abstractmethod
    def _layer(self, stage: int, hidden: Tensor, layout: Layout, shared: Any, noise: DropoutSeeds | None) -> Tensor:
        """One transformer layer [B, T, H] -> [B, T, H], with the final norm after the last one where there is one."""

    def entry(self, stage: int) -> int:
        """The last stage, up to a given one, at which a stored feature can enter."""
        return stage

    def computed_samples(self, samples: int) -> int:
        """Samples that an utterance of so many is worth when passes are planned: more where silence is added to it."""
        return samples

    def computed_frames(self, seconds: float) -> float:
        """About how many frames are computed of an utterance of so many seconds."""
        return self.computed_samples(round(seconds * SAMPLE_RATE)) / self.sizes.hop

    @property
    def preparation(self) -> str:
        """How waveforms are prepared, in words."""
        return f"waveforms {'are' if self.normalise else 'are not'} normalised"

    def prepare(self, waveform: Tensor) -> Tensor:
        """The input [S] of one utterance, before any padding, from its waveform [S] as read."""
        return normalised(waveform) if self.normalise else waveform

    def _shared(self, layout: Layout) -> Any:
        """What all layers of a pass use, made once for them; None where there is nothing."""
        return None

    @property
    def keeps_pairs(self) -> bool:
        """Whether trained layers keep a number for each head and pair of frames: a weight, or one of a learned mask."""
        return self.attention_p > 0.0

    def shared_bytes(self, stage: int, frames: float, *, half: bool) -> float:
        """Bytes that a pass from a stage keeps once, whatever its batch, with so many frames in its longest row."""
        return 0.0

    def stage_parameters(self, stage: int) -> Iterator[nn.Parameter]:
        """The parameters that turn stage - 1 into stage and may be trained."""
        for module in self.stage_modules(stage).values():
            yield from module.parameters()

    # What follows from it.

    @property
    def last_stage(self) -> int:
        """The stage after all layers and the final norm."""
        return EMBEDDING + self.depth

    @property
    def width(self) -> int:
        """H, the width of hidden states."""
        return self.sizes.width

    @property
    def kept(self) -> int:
        """K after all layers: how many hidden states come out."""
        return self.depth + 1 if self.keep_all else 1

    def stage_name(self, stage: int) -> str:
        """Describe a feature at a stage in words; part of a stored feature's identity."""
        assert 0 <= stage <= self.last_stage, f"no stage {stage} in an encoder of {self.last_stage}"
        if stage == self.last_stage:
            return "output of the encoder"
        names = ("waveform", self.front_name, "input of the transformer")
        return names[stage] if stage < 3 else f"output of transformer layer {stage - EMBEDDING} of {self.depth}"

    def entries_per_second(self, stage: int) -> float:
        """Entries on the time axis of a feature, per second of speech: samples or frames."""
        return SAMPLE_RATE / (self.sizes.hop if stage else 1)

    def feature_shape(self, samples: int, stage: int) -> tuple[int, ...]:
        """Shape of the feature that a waveform of so many samples has at a stage, time first."""
        return (int(self.frame_count(samples)) if stage else samples, *self.entry_shape(stage))

    def entry_shape(self, stage: int) -> tuple[int, ...]:
        """Shape of one entry on the time axis of a feature."""
        if stage == INPUT:
            return ()
        if stage == CNN:
            return (self.sizes.channels,)
        return (stage - EMBEDDING + 1, self.width) if self.keep_all else (self.width,)

    def description(self) -> dict[str, Any]:
        """The configuration from which `serfit.nn.encoders.build` makes it again, without weights, as JSON."""
        left_out = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
        return {key: value for key, value in self.config.to_dict().items() if key not in left_out}

    def stage_tensors(self, stage: int) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers that turn stage - 1 into stage, named as in this module's state dict."""
        for name, module in self.stage_modules(stage).items():
            for key, tensor in module.state_dict(keep_vars=True).items():
                yield f"hf.{name}.{key}", tensor

    def freeze(self, params: ModelParams) -> None:
        """Let the stages be trained that the configuration doesn't freeze, and nothing else.

        Frozen layers take everything below them along.

        Raises:
            UserError: more layers frozen than there are.
        """
        if params.freeze_layers > self.depth:
            raise UserError(
                f"model.params.freeze_layers is {params.freeze_layers}, but {params.speech_encoder} has "
                f"{counted(self.depth, 'layer')}; use 0 to {self.depth}, or freeze_speech_encoder: true"
            )
        last = EMBEDDING + params.freeze_layers if params.freeze_layers else int(params.freeze_cnn)
        self.requires_grad_(False)
        for stage in range(self.last_stage if params.freeze_speech_encoder else last, self.last_stage):
            for parameter in self.stage_parameters(stage + 1):
                parameter.requires_grad_(True)

    @property
    def frozen_stages(self) -> int:
        """The last stage below the first trainable parameter: found from the parameters, whatever froze them."""
        for stage in range(1, self.last_stage + 1):
            if any(parameter.requires_grad for parameter in self.stage_parameters(stage)):
                return stage - 1
        return self.last_stage

    def train(self, mode: bool = True) -> Self:
        """As for any module, except that frozen stages stay in evaluation mode."""
        super().train(mode)
        for stage in range(1, self.frozen_stages + 1):
            for module in self.stage_modules(stage).values():
                module.eval()
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        found: torch.dtype = next(self.hf.parameters()).dtype
        return found

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        found: torch.device = next(self.hf.parameters()).device
        return found

    def run(
        self,
        states: States,
        start: int,
        stop: int,
        noise: DropoutSeeds | None = None,
        time_mask: Tensor | None = None,
        shared: Any = None,
    ) -> States:
        """Bring a batch from one stage to a later one.

        Args:
            states: the batch at stage start.
            start: the stage it is at.
            stop: where to take it, at most `last_stage`.
            noise: dropout seeds; frozen stages never drop anything.
            time_mask: bool [B, T], frames that the transformer mustn't see (SpecAugment); needs start < EMBEDDING.
            shared: what all layers use, where it is made already.
        """
        assert start <= stop <= self.last_stage, f"can't run from stage {start} to {stop} of {self.last_stage}"
        assert time_mask is None or start < EMBEDDING <= stop, "a time mask acts between the CNN and the transformer"
        frozen = self.frozen_stages
        tensors, layout = states.tensors, states.layout
        for stage in range(start + 1, stop + 1):
            trained = stage > frozen
            seeds = noise if trained else None
            call = _recomputed if self.gradient_checkpointing and trained else _called
            if stage == CNN:
                hidden, layout = self._front(tensors[0], layout, call)
                tensors = (hidden,)
            elif stage == EMBEDDING:
                tensors = (self._embed(tensors[0], layout, seeds, time_mask),)
            else:
                shared = self._shared(layout) if shared is None else shared
                newest = call(self._layer, stage, tensors[-1], layout, shared, seeds)
                tensors = (*tensors, newest) if self.keep_all else (newest,)
        return States(tensors, layout)

    def activations(self, stage: int, seconds: float, *, half: bool, checkpointing: bool, gpu: bool) -> Activations:
        """About how many bytes an utterance in a batch takes from a stage to the encoder's output.

        Checkpointing keeps a layer's input, and one layer while it is computed again. A layer's backward pass holds up
        to 2 F + 1.5 H numbers more, or two masks less what it has freed, with H the width and F the feed-forward width.

        Args:
            stage: where training starts.
            seconds: length of the utterance.
            half: whether activations are kept in 16 bits.
            checkpointing: whether activations are computed again in the backward pass.
            gpu: whether it runs on a GPU, with its fused kernels.
        """
        word = 2 if half else 4
        frames = self.computed_frames(seconds)
        width, inner, heads = self.sizes.width, self.sizes.inner, self.sizes.heads
        row = (-(-frames // 16) * 16 if gpu else frames) if self.keeps_pairs else 0.0
        layer = self.layer_bytes(row, word, gpu=gpu)
        layers = self.layers_above(stage)
        numbers = torch.Size(self.entry_shape(stage)).numel()
        kept = 4.0 * numbers * self.entries_per_second(stage) * seconds
        kept += frames * (4 * width if checkpointing else layer) * layers
        passing = 0.0
        if layers:
            passing = frames * word * max(2 * inner + 1.5 * width, 2 * heads * row - 2 * inner - width)
            passing += frames * layer if checkpointing else 0.0
        if stage <= CNN:
            kept += self.front_bytes(stage, seconds, word, checkpointing=checkpointing)
        return Activations(kept, passing)

    def layer_bytes(self, row: float, word: int, *, gpu: bool) -> float:
        """About how many bytes per frame a trained layer keeps, counted from what autograd saves.

        8 H bytes of its residual stream in float32, 6 H + 2 F numbers in the precision of the pass, and where pairs are
        kept, one row of the learnt bias per head (on CPUs of the attention weights); on CPUs also 2 H bytes of dropout
        masks. tests/training/test_memory.py counts, with what the kernels on a GPU save.

        Args:
            row: entries in a row of pairs, 0 where they aren't kept.
            word: bytes of a number in the precision of the pass.
            gpu: whether it runs on a GPU.
        """
        width, inner, heads = self.sizes.width, self.sizes.inner, self.sizes.heads
        layer: float = 8 * width + word * (6 * width + 2 * inner)
        return layer + (heads * (word * row + 20) if gpu else heads * (2 + word / 2) * row + 2 * width)

    def layers_above(self, stage: int) -> int:
        """Transformer layers above a stage that are trained, or lie above one that is."""
        return max(0, self.last_stage - max(stage, EMBEDDING, self.frozen_stages))


def normalised(waveform: Tensor) -> Tensor:
    """A waveform [S] at zero mean and unit variance, as transformers' feature extractor does it.

    NaN where samples are so large that their variance isn't finite: dividing by it would turn them into silence.
    """
    centred = waveform - waveform.mean()
    variance = centred.square().mean()
    return torch.where(variance.isfinite(), centred / (variance + 1e-7).sqrt(), torch.nan)


def _called(function: Any, *arguments: Any) -> Any:
    """Call a function and let autograd keep what it needs."""
    return function(*arguments)


def _recomputed(function: Any, *arguments: Any) -> Any:
    """Call a function and compute it again in the backward pass; dropout draws the same masks by itself."""
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
