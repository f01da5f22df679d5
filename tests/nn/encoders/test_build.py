import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nn.small import FAMILIES, LAYOUTS, build_hf, encode, load_encoder, padded, theirs
from serfit.config.schema import ModelParams
from serfit.errors import UserError
from serfit.nn.encoders.base import Encoder
from serfit.nn.saved import weights_digest


def load(name: str | Path, **changes: Any) -> Encoder:
    return load_encoder(ModelParams(speech_encoder=str(name), **changes), seed=1)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_hf("wavlm", "large").save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def rewrite(folder: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_in_hub_layout_gives_the_same_output(
    family: str, layout: str, tmp_path: Path, waveforms: list[Tensor]
) -> None:
    hf = build_hf(family, layout)
    hf.save_pretrained(tmp_path)
    with torch.no_grad():
        encoder = load(tmp_path, layers="last")
        encoder.normalise = False
        found = encode(encoder, *padded(waveforms[:1]), 0, 5).newest
        expected = theirs(hf, encoder, waveforms[0]).last_hidden_state
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["wavlm-large", "./no/such wavlm", "/data/wavlm", "a/b/c", "../wavlm"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder /.*wavlm|there is no folder /.*a/b/c") as caught:
        load(name)
    assert f"speech_encoder is {name}, but" in str(caught.value)
    assert "hf download" not in str(caught.value)


def test_loaded_weights_lie_in_memory_of_their_own(folder: Path) -> None:
    encoder = load(folder)
    expected = weights_digest(encoder)
    file = folder / "model.safetensors"
    with file.open("r+b") as opened:
        opened.write(b"\0" * file.stat().st_size)
    assert weights_digest(encoder) == expected
    assert all(parameter.data_ptr() % 64 == 0 for parameter in encoder.parameters())


@pytest.mark.parametrize("half", [False, True])
def test_pytorch_files_load_in_float32_without_pickle(folder: Path, half: bool) -> None:
    expected = weights_digest(load(folder))
    state = build_hf("wavlm", "large").state_dict()
    (folder / "model.safetensors").unlink()
    torch.save({key: value.half() if half else value for key, value in state.items()}, folder / "pytorch_model.bin")
    if half:
        edit(folder, dtype="float16")
    encoder = load(folder)
    assert all(p.dtype == torch.float32 for p in encoder.parameters())
    assert (weights_digest(encoder) == expected) != half


def test_old_names_of_the_positional_convolution_load(folder: Path) -> None:
    expected = weights_digest(load(folder))
    state = build_hf("wavlm", "large").state_dict()
    (folder / "model.safetensors").unlink()
    old = {"original0": "weight_g", "original1": "weight_v"}
    renamed = {
        key.replace(f"parametrizations.weight.{key[-9:]}", old.get(key[-9:], "")): value for key, value in state.items()
    }
    assert any(key.endswith("conv.weight_g") for key in renamed)
    torch.save(renamed, folder / "pytorch_model.bin")
    assert weights_digest(load(folder)) == expected


def test_provenance_names_and_hashes(folder: Path) -> None:
    encoder, provenance = load_encoder(ModelParams(speech_encoder=str(folder)), seed=1)
    assert (provenance.name, provenance.revision) == (str(folder), None)
    assert provenance.sha256 == weights_digest(build_hf("wavlm", "large")) == weights_digest(encoder.hf)


def test_a_model_with_a_task_head_loads_as_its_encoder(tmp_path: Path) -> None:
    from transformers import WavLMForSequenceClassification

    hf = build_hf("wavlm", "base")
    model = WavLMForSequenceClassification(hf.config)
    model.wavlm.load_state_dict(hf.state_dict())
    model.save_pretrained(tmp_path)
    assert weights_digest(load(tmp_path).hf) == weights_digest(hf)


@pytest.mark.parametrize(("stated", "expected"), [(True, True), (False, False), (None, True)])
def test_the_preprocessor_decides_on_normalisation(folder: Path, stated: bool | None, expected: bool) -> None:
    if stated is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": stated}))
    assert load(folder).normalise is expected


def test_missing_weights_are_never_replaced_by_random_ones(folder: Path) -> None:
    state = build_hf("wavlm", "large").state_dict()
    rewrite(folder, {k: v for k, v in state.items() if k != "masked_spec_embed"})
    load(folder)
    rewrite(folder, {k: v for k, v in state.items() if "pos_conv_embed.conv.parametrizations" not in k})
    with pytest.raises(
        UserError, match=r"lacks weights that its configuration promises \(encoder.pos_conv_embed.*fetch"
    ):
        load(folder)
    rewrite(folder, state)
    edit(folder, intermediate_size=40)
    with pytest.raises(UserError, match=r"encoder|can't be read"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: edit(f, model_type="sew"), "is of type sew.*use a wavlm, hubert, wav2vec2, .* or whisper encoder"),
        (lambda f: edit(f, conv_pos_batch_norm=True, model_type="hubert"), "batch norm in the positional convolution"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing or no JSON object.*must hold config.json"),
        (lambda f: (f / "config.json").write_text("[1]"), "config.json is missing or no JSON object"),
        (
            lambda f: (f / "preprocessor_config.json").write_text("{"),
            "decides whether waveforms are normalised.*remove",
        ),
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights.*hf download"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "can't be read"),
        (
            lambda f: edit(f, num_attention_heads=5),
            r"hidden_size is 32, which num_attention_heads \(5\) doesn't divide",
        ),
    ],
)
def test_a_broken_folder_gives_one_sentence(folder: Path, change: Any, message: str) -> None:
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "nobody/no-such-encoder"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"can't be had .*hf download .* --local-dir DIR.*HF_ENDPOINT") as caught:
        load(name, encoder_revision="abc")
    assert name in str(caught.value)
    assert "abc" in str(caught.value)


def test_a_snapshot_in_the_hub_cache_loads_offline_with_its_commit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--lab--encoder"
    (repository / "snapshots").mkdir(parents=True)
    folder.rename(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    _, provenance = load_encoder(ModelParams(speech_encoder="lab/encoder"), seed=1)
    assert provenance.revision == commit


def test_every_file_that_says_how_waveforms_are_treated_is_fetched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": {"do_normalize": False}}))
    fetched = folder.with_name("fetched")

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        fetched.mkdir()
        for path in folder.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, fetched)
        return str(fetched)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    (folder / "README.md").touch()
    assert not load("lab/encoder").normalise
    assert {path.name for path in fetched.iterdir()} == {"config.json", "model.safetensors", "processor_config.json"}


def test_random_weights_follow_the_seed_and_leave_no_trace() -> None:
    before = torch.random.get_rng_state()
    a, b = (weights_digest(load("random:tiny")) for _ in range(2))
    other = load_encoder(ModelParams(speech_encoder="random:tiny"), seed=2)[1].sha256
    assert a == b
    assert other != weights_digest(load("random:tiny").hf)
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(UserError, match=r"random:small, but random weights come as random:tiny"):
        load("random:small")


def test_freezing_follows_the_configuration() -> None:
    def trainable(**changes: Any) -> set[str]:
        encoder = load("random:tiny", **changes)
        return {name.split(".layers.")[-1].split(".")[0] for name, p in encoder.named_parameters() if p.requires_grad}

    assert trainable(freeze_speech_encoder=True) == set()
    assert trainable(freeze_cnn=True, freeze_layers=1) == {"1", "hf"}
    everything, without_cnn = (load("random:tiny", freeze_cnn=frozen) for frozen in (False, True))
    frozen = {name for name, p in everything.named_parameters() if not p.requires_grad}
    assert frozen == {"hf.masked_spec_embed"}
    frozen = {name for name, p in without_cnn.named_parameters() if not p.requires_grad} - frozen
    assert frozen == {f"hf.feature_extractor.{n}" for n, _ in everything.hf.feature_extractor.named_parameters()}
    with pytest.raises(UserError, match=r"freeze_layers is 3, but random:tiny has 2 layers; use 0 to 2"):
        load("random:tiny", freeze_layers=3)


def test_digest_sees_names_types_shapes_and_bytes_but_no_order() -> None:
    x = torch.arange(6, dtype=torch.float32)
    base = weights_digest({"a": x, "b": x + 1})
    assert weights_digest([("b", x + 1), ("a", x)]) == base
    assert weights_digest({"a": x.view(2, 3), "b": x + 1}) != base
    assert weights_digest({"a": x.view(torch.int32), "b": x + 1}) != base
    assert weights_digest({"a": x, "c": x + 1}) != base
    assert weights_digest({"a": -x, "b": x + 1}) != base
    assert weights_digest({"a": x.bfloat16(), "s": torch.tensor(1.0)}) != base
    assert weights_digest({"a": torch.stack([x, x], 1)[:, 0], "b": x + 1}) == base
