"""Nothing loads by luck: every tensor of an encoder comes from its file, or the file is refused by its name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nn.small import FAMILIES, LAYOUTS, build_hf, encoder_of, load_encoder
from serfit.config.schema import ModelParams
from serfit.errors import UserError
from serfit.nn.encoders.weights import fitting
from serfit.nn.model import build_model
from serfit.nn.saved import weights_digest

PREFIXES = ("", "wavlm.", "model.encoder.", "module.model.wav2vec2.", "encoder.hf.")
UNREAD = ("masked_spec_embed", "num_batches_tracked")


@pytest.fixture(scope="module", params=[f"{family} {layout}" for family in FAMILIES for layout in LAYOUTS])
def state(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    found: dict[str, Tensor] = build_hf(*request.param.split()).state_dict()
    return found


@pytest.mark.parametrize("prefix", ["", "model.encoder."])
def test_every_tensor_that_is_missing_left_over_or_of_another_shape_is_named(
    state: dict[str, Tensor], prefix: str
) -> None:
    file = {f"{prefix}{key}": tensor for key, tensor in state.items()}
    assert fitting(file, state, "it").keys() == state.keys()
    for key, tensor in state.items():
        if ".layers.0." in key or ".layers.2." in key:  # as in layer 1
            continue
        others = {name: one for name, one in file.items() if name != prefix + key}
        if not key.endswith(UNREAD):
            with pytest.raises(UserError, match=rf"it lacks weights that its configuration promises \({key}\)"):
                fitting(others, state, "it")
        with pytest.raises(
            UserError, match=rf"holds {prefix}{key} of shape .*asks for \[{str(list(tensor.shape))[1:-1]}"
        ):
            fitting(others | {prefix + key: torch.ones(2, *tensor.shape)}, state, "it")
        with pytest.raises(UserError, match=rf"leaves out \({prefix}{key}er\)"):
            fitting(file | {f"{prefix}{key}er": tensor}, state, "it")
        if tensor.is_floating_point():
            with pytest.raises(UserError, match=rf"holds {prefix}{key} as int8: it is quantised.*float16 or bfloat16"):
                fitting(others | {prefix + key: tensor.to(torch.int8)}, state, "it")


def test_heads_beside_the_encoder_are_left_out(state: dict[str, Tensor]) -> None:
    heads = {
        "lm_head.weight", "quantizer.codevectors", "project_hid.bias", "project_q.bias", "projector.weight",
        "classifier.layers.0.weight", "decoder.layers.0.fc1.weight", "label_embs_concat", "tdnn.0.kernel.weight",
    }  # fmt: skip
    for prefix in PREFIXES:
        file = {f"{prefix}{key}": tensor for key, tensor in state.items()} | dict.fromkeys(heads, torch.ones(3))
        assert fitting(file, state, "it").keys() == state.keys()
    with pytest.raises(
        UserError, match=r"leaves out \(adapter\.layers\.0\.conv\.weight\).*fetch config.json and weights"
    ):
        fitting(state | {"adapter.layers.0.conv.weight": torch.ones(3)}, state, "it")


def test_what_could_be_taken_in_two_ways_is_refused(state: dict[str, Tensor]) -> None:
    two = {f"{prefix}.{key}": tensor for prefix in ("student", "teacher") for key, tensor in state.items()}
    with pytest.raises(UserError, match=r"holds the encoder more than once, below student\., teacher\.,"):
        fitting(two, state, "it")
    assert fitting(
        {key: one for key, one in two.items() if key != "teacher.feature_projection.layer_norm.bias"}, state, "it"
    )
    norm = "encoder.pos_conv_embed.conv.parametrizations.weight.original0"
    if norm in state:
        with pytest.raises(UserError, match=f"holds {norm} twice, by its old and its new name"):
            fitting(state | {"encoder.pos_conv_embed.conv.weight_g": state[norm]}, state, "it")


def test_a_file_without_anything_of_the_encoder_names_what_it_lacks(state: dict[str, Tensor]) -> None:
    for file in ({}, {"lm_head.weight": torch.ones(3)}):
        with pytest.raises(UserError, match="it lacks weights that its configuration promises"):
            fitting(file, state, "it")


def old_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): one
        for key, one in tensors.items()
    }


def safetensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder: Path, tensors: dict[str, Tensor]) -> None:
    torch.save(tensors, folder / "pytorch_model.bin")


def sharded(suffix: str, single: str, write: Callable[[dict[str, Tensor], Path], Any]) -> Any:
    """A writer of two shards, each with a tensor of the other that its list doesn't name."""

    def shards(folder: Path, tensors: dict[str, Tensor]) -> None:
        names = sorted(tensors)
        parts = {f"one.{suffix}": names[::2], f"two.{suffix}": names[1::2]}
        for file, held in parts.items():
            stale = {name: tensors[name] + 1 for name in names if name not in held}
            write({name: tensors[name] for name in held} | dict(list(stale.items())[:1]), folder / file)
        listed = {"weight_map": {name: file for file, held in parts.items() for name in held}}
        (folder / f"{single}.index.json").write_text(json.dumps(listed))

    return shards


WRITERS = {
    "safetensors": safetensors,
    "bin": pickled,
    "shards": sharded("safetensors", "model.safetensors", save_file),
    "bin shards": sharded("bin", "pytorch_model.bin", torch.save),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("written", WRITERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_any_file_and_precision_are_masters_in_float32(
    family: str, written: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    hf = build_hf(family, "base")
    hf.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = {key: one.to(dtype) if one.is_floating_point() else one for key, one in hf.state_dict().items()}
    WRITERS[written](tmp_path, old_names(state) if written.startswith("bin") else state)
    encoder, provenance = load_encoder(ModelParams(speech_encoder=str(tmp_path)), seed=1)
    found = encoder.hf.state_dict()
    assert all(key.startswith("encoder.pos_conv_embed.") for key in state.keys() - found.keys())  # nothing reads it
    for key, tensor in state.items():
        assert key not in found or torch.equal(found[key], tensor.to(found[key].dtype)), key
    assert {one.dtype for one in found.values()} <= {torch.float32, torch.int64}
    assert provenance.sha256 == weights_digest(encoder.hf)


TASKS = ("CTC", "AudioClassification", "PreTraining", "AudioXVector", "AudioFrameClassification")


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_for_another_task_loads_as_its_encoder(family: str, task: str, tmp_path: Path) -> None:
    import transformers

    hf = build_hf(family, "large")
    try:
        model = getattr(transformers, f"AutoModelFor{task}").from_config(hf.config)
    except ValueError:
        pytest.skip(f"{family} has no model for {task}")
    getattr(model, model.base_model_prefix).load_state_dict(hf.state_dict())
    model.save_pretrained(tmp_path)
    assert any(not key.startswith(model.base_model_prefix) for key in load_file(tmp_path / "model.safetensors"))
    _, provenance = load_encoder(ModelParams(speech_encoder=str(tmp_path)), seed=1)
    assert provenance.sha256 == weights_digest(encoder_of(hf, keep_all=False).hf)


def test_a_whole_network_of_serfit_loads_as_its_encoder(tmp_path: Path) -> None:
    model = build_model(ModelParams(speech_encoder="random:tiny"), 2, seed=1)
    (tmp_path / "config.json").write_text(json.dumps(model.encoder.description()))
    safetensors(tmp_path, model.state_dict())
    _, provenance = load_encoder(ModelParams(speech_encoder=str(tmp_path)), seed=1)
    assert provenance.sha256 == model.provenance.sha256
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}  # as best.safetensors is
    safetensors(tmp_path, {name: one.detach() for name, one in trained.items()})
    with pytest.raises(UserError, match=r"lacks weights that its configuration promises \(feature_extractor\."):
        load_encoder(ModelParams(speech_encoder=str(tmp_path)), seed=1)
