"""Encoders' folders that are damaged or lie: each loads, or gives one sentence, in bounded time and memory."""

import json
import math
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nn.small import FAMILIES, build_hf, encode, load_encoder, padded
from serfit.config.schema import ModelParams
from serfit.errors import UserError
from serfit.nn.encoders.base import Encoder
from serfit.nn.encoders.build import Provenance
from serfit.nn.encoders.wav2vec2_config import Settings


def load(path: Path) -> tuple[Encoder, Provenance]:
    return load_encoder(ModelParams(speech_encoder=str(path)), seed=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_hf("wavlm", "large").save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    indices = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, index in indices.items():
        build_hf(family, "large").save_pretrained(index)
    return indices


def nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


VALUES = (
    None, True, 0, -1, 3, 10**12, 10**25, 1.5, math.nan, "64", "\x1b]0;x\x07", [], [0] * 7, [2] * 7, ["5"] * 7,
    [1] * 100_000, [2, 2], {"a": 1}, nested(50),
)  # fmt: skip
KEYS = {
    "wavlm": sorted(set(Settings.model_fields) | {"quantization_config", "add_adapter"}),
    "hubert": ["num_attention_heads", "feat_proj_layer_norm", "conv_pos_batch_norm"],
    "wav2vec2": ["num_attention_heads", "adapter_attn_dim"],
    "data2vec-audio": ["num_conv_pos_embeddings", "conv_pos_kernel_size", "conv_dim"],
    "wav2vec2-conformer": ["position_embeddings_type", "rotary_embedding_base", "conv_depthwise_kernel_size"],
    "wav2vec2-bert": [
        "hidden_size",
        "num_attention_heads",
        "feature_projection_input_dim",
        "position_embeddings_type",
        "left_max_position_embeddings",
        "right_max_position_embeddings",
        "conv_depthwise_kernel_size",
    ],
}
WITHOUT_EFFECT = (
    "dtype",
    "auto_map",
    "architectures",
    "num_feat_extract_layers",
    "hidden_dropout",
    "id2label",
    "vocab_size",
)


@pytest.mark.parametrize(("family", "key"), [(family, key) for family, keys in KEYS.items() for key in keys])
def test_any_value_of_any_setting_loads_or_gives_one_sentence(
    family: str, key: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stated = json.loads((saved[family] / "config.json").read_text())
    os.link(saved[family] / "model.safetensors", tmp_path / "model.safetensors")
    for value in VALUES:
        (tmp_path / "config.json").write_text(json.dumps(stated | {key: value}))
        refusal = None
        try:
            encoder, _ = load(tmp_path)
        except UserError as error:
            refusal = str(error)
        if refusal is None:
            assert encoder.shortest_input <= 560, (key, value)
            assert encode(encoder, *padded([torch.randn(800)]), 0, 1).newest.isfinite().all(), (key, value)
        else:
            assert refusal.isprintable(), (key, value)
            assert len(refusal) < 600, (key, value)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1_000_000, f"{grown} kB for an encoder of 100 kB"


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_settings_without_effect_in_serfit_can_do_no_harm(value: Any, folder: Path) -> None:
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | dict.fromkeys(WITHOUT_EFFECT, value)))
    load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "config.json is missing or no JSON object"),
        ('{"a":' * 100_000, "config.json is missing or no JSON object"),
        ('{"a": ' + "9" * 10_000 + "}", "config.json is missing or no JSON object"),
        (" " * 5_000_000, "more than 4,194,304 bytes"),
        ("\x00\xff", "config.json is missing or no JSON object"),
        ("null", "config.json is missing or no JSON object"),
    ],
)
def test_json_that_is_no_configuration(folder: Path, text: str, message: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        load(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors.index.json"]
)
def test_a_git_lfs_pointer_in_place_of_json_is_named(folder: Path, name: str) -> None:
    if name.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    (folder / name).write_text(POINTER)
    with pytest.raises(UserError, match=f"{name} is a Git LFS pointer.*`git lfs pull`"):
        load(folder)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "wav2vec2-bert"])
@pytest.mark.parametrize("key", ["conv_dim", "conv_stride", "conv_kernel"])
def test_lists_of_different_lengths_are_named(family: str, key: str, saved: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(saved[family], tmp_path / "encoder")
    stated = json.loads((saved[family] / "config.json").read_text())
    (tmp_path / "encoder/config.json").write_text(json.dumps(stated | {key: stated[key][:-1]}))
    with pytest.raises(UserError, match=rf"can't be built: .*{key} has 6.* entries, and each must have one for every"):
        load(tmp_path / "encoder")


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_the_configuration_leaves_out_are_named_and_heads_are_not(
    family: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(saved[family], folder)
    tensors = load_file(folder / "model.safetensors")
    whole = load(folder)[1].sha256
    heads = {
        "lm_head.weight": torch.ones(3, 3),
        "classifier.layers.0.weight": torch.ones(3),
        "quantizer.codevectors": torch.ones(3),
    }
    save_file(tensors | heads, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder)[1].sha256 == whole
    stated = json.loads((folder / "config.json").read_text())
    changes: list[tuple[dict[str, Any], str]] = [({"num_hidden_layers": 1}, r"encoder\.layers\.1\.")]
    if "conv_dim" in stated:
        shorter = {key: stated[key][:-1] for key in ("conv_dim", "conv_stride", "conv_kernel")}
        changes.append((shorter, r"conv_layers\.6\."))
    for change, left in changes:
        (folder / "config.json").write_text(json.dumps(stated | change))
        with pytest.raises(UserError, match=rf"leaves out \(\S*{left}.*fetch config.json and weights again, together"):
            load(folder)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    with pytest.raises(UserError, match="no such file"):
        load(folder)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname", "sub/x.safetensors", "x.bin", ""])
def test_a_list_of_shards_reads_nothing_outside_its_folder(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    shutil.move(folder / "model.safetensors", folder.parent / "outside.safetensors")
    listed = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(tensors, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))
    with pytest.raises(UserError, match="in the same folder; fetch the encoder again"):
        load(folder)


def test_shards_in_the_folder_load(folder: Path) -> None:
    expected = load(folder)[1].sha256
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {"a.safetensors": sorted(tensors)[::2], "b.safetensors": sorted(tensors)[1::2]}
    for file, names in parts.items():
        save_file({name: tensors[name] for name in names}, folder / file)
    listed = {"weight_map": {name: file for file, names in parts.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))
    assert load(folder)[1].sha256 == expected


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_link_out_of_the_folder_is_not_followed(folder: Path, name: str) -> None:
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true}')
    shutil.move(folder / name, folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(UserError, match=r"is a link to .*outside its folder; copy the file into the folder, or name"):
        load(folder)


def test_links_of_the_hubs_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    expected = load(folder)[1].sha256
    cache = tmp_path / "models--lab--encoder"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.move(file, cache / "blobs" / str(number))
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / str(number))
    assert load(snapshot)[1].sha256 == expected
    (tmp_path / "by another name").symlink_to(snapshot)
    assert load(tmp_path / "by another name")[1].sha256 == expected


def test_a_quantised_encoder_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for stated in ({"quant_method": "bitsandbytes", "load_in_8bit": True}, {"quant_method": "gptq"}, "int8"):
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": stated}))
        with pytest.raises(UserError, match=r"is quantised \(quantization_config in its config.json\).*use an encoder"):
            load(folder)


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a2146' * 8}\nsize 1261965425\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "WavLM-Large.pt"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "is a Git LFS pointer.*`git lfs pull`"),
        ("", "can't be read.*(it is empty|[Hh]eader|file)"),
        ("no weights", "can't be read"),
        ("\x80\x04cos\nsystem\n(S'true'\ntR.", "can't be read"),
        ("PK\x03\x04 and nothing else", "can't be read"),
    ],
    ids=["pointer", "empty", "text", "pickle of code", "torn archive"],
)
def test_what_is_not_weights_is_told_without_advice_to_run_it(
    folder: Path, name: str, content: str, message: str
) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message) as caught:
        load(folder / name if name.endswith(".pt") else folder)
    assert str(caught.value).isprintable()
    assert "weights_only" not in str(caught.value)
    assert "trust" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_named_when_they_are_loaded(folder: Path, value: float) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layers.1.feed_forward.output_dense.weight"][3, 5] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    words = (
        r"aren't finite: 1 of 1536 values of encoder\.layers\.1\.feed_forward\.output_dense\.weight are NaN or infinite"
    )
    with pytest.raises(UserError, match=words):
        load(folder)


PRE, PROCESSOR = "preprocessor_config.json", "processor_config.json"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({PRE: {"do_normalize": False}}, (False, PRE)),
        ({PROCESSOR: {"feature_extractor": {"do_normalize": False}}}, (False, PROCESSOR)),
        ({PROCESSOR: {"feature_extractor": {"do_normalize": True, "sampling_rate": 16000}}}, (True, PROCESSOR)),
        ({PRE: {"do_normalize": False}, PROCESSOR: {"feature_extractor": {"do_normalize": False}}}, (False, PRE)),
        ({PRE: {"do_normalize": None}, PROCESSOR: {"tokenizer": {}}}, (True, "layout")),
        ({}, (True, "layout")),
    ],
)
def test_both_files_of_transformers_decide_on_normalisation_and_which_is_recorded(
    folder: Path, files: dict[str, Any], expected: tuple[bool, str]
) -> None:
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    encoder, provenance = load(folder)
    assert (encoder.normalise, provenance.normalise_from) == expected
    assert (provenance.normalise, provenance.sampling_rate) == (expected[0], 16_000)
    assert provenance.architecture["hidden_act"] == "gelu"


def test_what_transformers_writes_itself_is_read(folder: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    encoder, provenance = load(folder)
    assert (encoder.normalise, provenance.normalise_from) == (False, PRE)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({PRE: {"do_normalize": "false"}}, r'do_normalize: "false".*write true or false, without quotation marks'),
        ({PROCESSOR: {"feature_extractor": {"do_normalize": 1}}}, "do_normalize: 1"),
        ({PRE: {"do_normalize": [True]}}, "do_normalize"),
        ({PRE: {"sampling_rate": 8000}}, "sampling_rate of 8000.*16000 Hz"),
        ({PROCESSOR: {"feature_extractor": {"sampling_rate": "16k"}}}, "sampling_rate of"),
        (
            {PRE: {"do_normalize": True}, PROCESSOR: {"feature_extractor": {"do_normalize": False}}},
            f"{PRE} and {PROCESSOR} in .* contradict each other",
        ),
    ],
)
def test_statements_about_the_audio_that_serfit_cannot_follow(
    folder: Path, files: dict[str, Any], message: str
) -> None:
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        load(folder)
