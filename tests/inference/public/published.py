"""Small random models in exactly the form in which public ones are published, and what each of them computes.

The computations are written down here from the descriptions of those models, in plain torch and transformers, in
float64 and one utterance at a time. Nothing of serfit takes part in them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nn.small import build_hf

Computed = Callable[[np.ndarray], dict[str, float]]
"""A waveform to the value of each dimension, about 0 to 1."""

WIDTH, INNER = 32, 12

MEAN, DEVIATION = 0.03, 0.085

WAVEFORMS = [
    (scale * np.random.default_rng(seed).standard_normal(size) + offset).astype(np.float32)
    for seed, (size, scale, offset) in enumerate([(3_000, 0.1, 0.0), (12_345, 0.02, 0.1), (16_000, 0.5, -0.05)])
]


@dataclass(frozen=True)
class Published:
    """A model on disk.

    Attributes:
        folder: in hub layout.
        computed: what it computes.
    """

    folder: Path
    computed: Computed


def linear(seed: int, inputs: int, outputs: int, scale: float = 1.0) -> dict[str, Tensor]:
    """Weight and bias of a layer, drawn from a seed."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator) * scale / inputs**0.5
    return {"weight": weight, "bias": 0.3 * torch.randn(outputs, generator=generator)}


def named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def applied(layer: dict[str, Tensor], x: Tensor) -> Tensor:
    return x @ layer["weight"].double().T + layer["bias"].double()


def old_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the names that torch gave a weight norm before 2.1."""
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        tensors = {name.replace(f"parametrizations.weight.{new}", old): one for name, one in tensors.items()}
    return tensors


def normalised(waveform: np.ndarray) -> Tensor:
    """As the feature extractor of transformers does it."""
    from transformers import Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    found = extractor(waveform, sampling_rate=16_000, return_tensors="pt")["input_values"]
    return torch.as_tensor(found).double()


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], *, pickled: bool = False) -> Path:
    """A folder as on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if pickled:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def audeering(folder: Path) -> Published:
    """Pickled tensors with torch's old names, a configuration with the names of the outputs, a card, a preprocessor."""
    hf = build_hf("wav2vec2", "large")
    dense, out = linear(1, WIDTH, WIDTH), linear(2, WIDTH, 3)
    tensors = {f"wav2vec2.{name}": tensor for name, tensor in old_names(hf.state_dict()).items()}
    tensors |= named("classifier.dense", dense) | named("classifier.out_proj", out)
    labels = {"0": "arousal", "1": "dominance", "2": "valence"}
    config = hf.config.to_dict() | {
        "architectures": ["Wav2Vec2ForSpeechClassification"],
        "id2label": labels,
        "label2id": {label: int(index) for index, label in labels.items()},
        "pooling_mode": "mean",
        "problem_type": "regression",
    }
    write(folder, config, tensors, pickled=True)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True, "sampling_rate": 16_000}))
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: cc-by-nc-sa-4.0\n---\n# Model\n")
    hf = hf.double()

    @torch.no_grad()
    def computed(waveform: np.ndarray) -> dict[str, float]:
        pooled = hf(normalised(waveform)).last_hidden_state.mean(dim=1)
        values = applied(out, torch.tanh(applied(dense, pooled)))[0].tolist()
        return dict(zip(("arousal", "dominance", "valence"), values, strict=True))

    return Published(folder, computed)


def odyssey(
    folder: Path, order: tuple[str, ...] = ("arousal", "dominance", "valence"), layout: str = "large"
) -> Published:
    """Code that mustn't be run, weights with torch's old names, and the waveforms' mean and standard deviation."""
    hf = build_hf("wavlm", layout, conv_bias=False)
    attend, fc, out = linear(1, WIDTH, WIDTH), linear(2, 2 * WIDTH, WIDTH), linear(3, WIDTH, len(order))
    attention = torch.randn(WIDTH, 1, generator=torch.Generator().manual_seed(4))
    norm = {"weight": 1 + 0.2 * fc["bias"], "bias": 0.5 * attend["bias"]}
    tensors = {f"ssl_model.{name}": tensor for name, tensor in old_names(hf.state_dict()).items()}
    tensors |= named("pool_model.sap_linear", attend) | {"pool_model.attention": attention}
    tensors |= named("ser_model.fc.0.0", fc) | named("ser_model.fc.0.1", norm) | named("ser_model.out.0", out)
    config = {
        "architectures": ["SERModel"],
        "auto_map": {"AutoConfig": "pipeline_utils.SERConfig", "AutoModel": "pipeline_utils.SERModel"},
        "classifier_dropout_prob": 0.5, "classifier_hidden_layers": 1, "hidden_size": WIDTH, "mean": MEAN,
        "model_type": "ser", "num_attention_heads": 4, "num_classes": len(order), "num_hidden_layers": 3,
        "sampling_rate": 16_000, "ssl_type": "microsoft/wavlm-large", "std": DEVIATION, "torch_dtype": "float32",
    }  # fmt: skip
    write(folder, config, tensors)
    (folder / "pipeline_utils.py").write_text("raise AssertionError('code from the hub was run')\n")
    hf = hf.double()

    @torch.no_grad()
    def computed(waveform: np.ndarray) -> dict[str, float]:
        inputs = (torch.from_numpy(waveform).double() - MEAN) / (DEVIATION + 0.000001)
        (frames,) = hf(inputs[None], attention_mask=torch.ones(1, len(inputs), dtype=torch.bool)).last_hidden_state
        shares = (torch.tanh(applied(attend, frames)) @ attention.double()).softmax(0)
        mean = (frames * shares).sum(0)
        deviation = ((frames**2 * shares).sum(0) - mean**2).clamp(min=1e-5).sqrt()
        hidden = applied(fc, torch.cat([mean, deviation]))
        hidden = nn.functional.layer_norm(hidden, (WIDTH,), norm["weight"].double(), norm["bias"].double())
        return dict(zip(order, applied(out, hidden.relu()).tolist(), strict=True))

    return Published(folder, computed)


@dataclass(frozen=True)
class Wrapper:
    """The part of Vox-Profile's wrappers that both encoders share.

    Attributes:
        convolutions: on each frame.
        heads: two layers for each dimension.
    """

    convolutions: list[dict[str, Tensor]]
    heads: dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]]

    @classmethod
    def drawn(cls, width: int) -> "Wrapper":
        convolutions = [linear(seed, inputs, INNER, 0.7) for seed, inputs in ((1, width), (2, INNER), (3, INNER))]
        names = ("arousal", "valence", "dominance")
        heads = {name: (linear(seed, INNER, INNER), linear(seed + 9, INNER, 1)) for seed, name in enumerate(names, 4)}
        return cls(convolutions, heads)

    def tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for index, layer in enumerate(self.convolutions):
            found |= named(f"model_seq.{3 * index}", {**layer, "weight": layer["weight"][..., None]})
        for name, (first, second) in self.heads.items():
            found |= named(f"{name}_layer.0", first) | named(f"{name}_layer.2", second)
        for name, size in (("emotion_layer", 9), ("detailed_out_layer", 17), ("gender_layer", 2)):
            found |= named(f"{name}.0", linear(40, INNER, INNER)) | named(f"{name}.2", linear(41, INNER, size))
        return found

    def values(self, frames: Tensor) -> dict[str, float]:
        first, second, third = self.convolutions
        pooled = applied(third, applied(second, applied(first, frames).relu()).relu()).mean(0)
        return {
            name: float(applied(two, applied(one, pooled).relu()).sigmoid()) for name, (one, two) in self.heads.items()
        }


def arguments(pretrained: str, method: str, first_state: bool) -> dict[str, Any]:
    """All that config.json holds: the arguments of a wrapper."""
    return {
        "detailed_class_num": 17, "finetune_method": method, "freeze_params": False, "hidden_dim": INNER,
        "lora_rank": 4, "output_class_num": 9, "predict_gender": False, "pretrain_model": pretrained,
        "use_conv_output": first_state,
    }  # fmt: skip


def vox_profile(folder: Path, *, lora: bool = False, first_state: bool = True, layout: str = "large") -> Published:
    """A wrapper's arguments for a configuration, and all tensors of the wrapper, some of which nothing here needs."""
    hf = build_hf("wavlm", layout, conv_bias=False)
    weights = torch.linspace(-1.0, 1.5, hf.config.num_hidden_layers + first_state)
    wrapper = Wrapper.drawn(WIDTH)
    tensors = {f"backbone_model.{name}": tensor.clone() for name, tensor in hf.state_dict().items()}
    tensors |= {"weights": weights, **wrapper.tensors()}
    if lora:
        block = hf.encoder.layers[2].feed_forward
        for part in ("intermediate_dense", "output_dense"):
            layer = getattr(block, part)
            generator = torch.Generator().manual_seed(50)
            a = torch.randn(4, layer.in_features, generator=generator)
            b = 0.3 * torch.randn(layer.out_features, 4, generator=generator)
            tensors |= named(f"backbone_model.encoder.layers.2.feed_forward.{part}", {"lora_A": a, "lora_B": b})
            with torch.no_grad():
                layer.weight += b @ a / 4  # loralib's scaling: alpha 1 over the rank
    pretrained = "wavlm_large" if layout == "large" else "wavlm"
    write(folder, arguments(pretrained, "lora" if lora else "finetune", first_state), tensors)
    hf = hf.double()

    @torch.no_grad()
    def computed(waveform: np.ndarray) -> dict[str, float]:
        plain = torch.from_numpy(waveform).double()[None]
        found = hf(normalised(waveform) if layout == "large" else plain, output_hidden_states=True)
        # transformers 4, in which these models were made, gave the last state after the final norm; 5 gives it before
        hidden = (*found.hidden_states[:-1], found.last_hidden_state)
        stacked = torch.stack(hidden if first_state else hidden[1:])[:, 0]
        return wrapper.values((weights.double().softmax(0)[:, None, None] * stacked).sum(0))

    return Published(folder, computed)


def vox_profile_whisper(folder: Path, *, bands: int = 128) -> Published:
    """Whisper with its decoder, positions of 15 s, those once more, and layer weights that nothing reads."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    width, positions = 128, 750
    config = WhisperConfig(
        num_mel_bins=bands, d_model=width, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=48,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=48, max_source_positions=positions, vocab_size=60,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3, init_std=0.1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        hf = WhisperModel(config).eval()
    wrapper = Wrapper.drawn(width)
    tensors = {f"backbone_model.{name}": tensor.clone() for name, tensor in hf.state_dict().items()}
    tensors |= {"weights": torch.linspace(-1.0, 1.0, 3), **wrapper.tensors()}
    tensors["embed_positions"] = hf.encoder.embed_positions.weight.detach().clone()
    tensors["backbone_model.encoder.embed_positions.weight"].zero_()  # the wrapper replaces them before every pass
    write(folder, arguments("whisper_large", "finetune", True), tensors)
    extractor, encoder = WhisperFeatureExtractor(feature_size=bands, chunk_length=15), hf.encoder.double()

    @torch.no_grad()
    def computed(waveform: np.ndarray) -> dict[str, float]:
        spectra = extractor(waveform, sampling_rate=16_000, return_tensors="pt")["input_features"]
        (frames,) = encoder(torch.as_tensor(spectra).double()).last_hidden_state
        assert len(frames) == positions
        return wrapper.values(frames[: (len(waveform) // 160 - 1) // 2 + 1])

    return Published(folder, computed)
