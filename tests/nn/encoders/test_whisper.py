"""Whisper's encoder against transformers' own, each utterance alone, and its two ways of using 30 s."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nn.small import build_whisper, encode, load_encoder, padded
from serfit.config.schema import ModelParams
from serfit.errors import UserError
from serfit.labels import SAMPLE_RATE
from serfit.nn.dropout import DropoutSeeds
from serfit.nn.encoders.base import CNN, EMBEDDING, INPUT
from serfit.nn.encoders.build import Provenance
from serfit.nn.encoders.log_mel import SHORTEST, log_mel
from serfit.nn.encoders.whisper import WhisperEncoder
from serfit.nn.frames import valid_mask
from serfit.nn.model import EmotionModel

LAST = EMBEDDING + 3
REAL = Path(__file__).resolve().parents[4] / "shared/encoders"

MODES = pytest.mark.parametrize("windows", [False, True], ids=["utterance", "window"])


@pytest.fixture
def sounds() -> list[Tensor]:
    """Waveforms with odd and even numbers of spectra and frames, one as short as can be, some longer than a window."""
    random = torch.Generator().manual_seed(4)
    lengths = (16_000, 9_000, 4_321, 4_480, SHORTEST, 16_100, 40_000)
    return [0.1 * torch.randn(length, generator=random) for length in lengths]


def build(*, windows: bool = False, **options: Any) -> WhisperEncoder:
    return WhisperEncoder(build_whisper(), windows=windows, **{"keep_all": True, "normalise": False, **options})


def by_modules(hf: Any, spectra: Tensor) -> list[Tensor]:
    """Hidden states by transformers' own modules, of spectra [M, bands] so few that its forward refuses them."""
    hidden = F.gelu(hf.conv2(F.gelu(hf.conv1(spectra.T[None])))).transpose(1, 2)
    states = [hidden + hf.embed_positions.weight[: hidden.shape[1]]]
    for layer in hf.layers:
        states.append(layer(states[-1], None))
    return [*states[:-1], hf.layer_norm(states[-1])]


def test_windows_are_those_of_transformers(sounds: list[Tensor]) -> None:
    from transformers import WhisperFeatureExtractor

    encoder, extractor = build(windows=True), WhisperFeatureExtractor(chunk_length=1)
    with torch.no_grad():
        for sound in sounds:
            found = encode(encoder, *padded([sound]), INPUT, LAST)
            (frames,) = found.layout.counts
            assert frames == (len(sound) // 160 + 1) // 2
            for index, piece in enumerate(sound.split(16_000)):
                features = extractor(piece.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
                states = encoder.hf(features, output_hidden_states=True).hidden_states
                first, last = 50 * index, min(50 * (index + 1), frames)
                for mine, expected in zip(found.tensors, states, strict=True):
                    torch.testing.assert_close(mine[:, first:last], expected[:, : last - first], rtol=1e-5, atol=2e-5)


def test_an_utterance_is_what_the_modules_of_transformers_make_of_it(sounds: list[Tensor]) -> None:
    encoder = build()
    for sound in sounds:
        frames = (len(sound) // 160 + 1) // 2
        spectra = log_mel(sound[None], torch.tensor([len(sound)]), 80)[0]
        with torch.no_grad():
            found = encode(encoder, *padded([sound]), INPUT, LAST)
            assert found.layout.counts == (frames,) == (found.newest.shape[1],)
            for index, piece in enumerate(spectra.split(100)):
                rows = slice(50 * index, min(50 * (index + 1), frames))
                for mine, expected in zip(found.tensors, by_modules(encoder.hf, piece), strict=True):
                    torch.testing.assert_close(mine[:, rows], expected, rtol=1e-5, atol=2e-5)


@MODES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_its_utterances(windows: bool, dtype: torch.dtype, sounds: list[Tensor]) -> None:
    encoder = build(windows=windows).to(dtype)
    sounds = [sound.to(dtype) for sound in sounds]
    tolerance = 2e-5 if dtype == torch.float32 else 1e-11
    batch, lengths = padded(sounds)
    rubbish = torch.where(valid_mask(lengths, batch.shape[1]), batch, 100.0)
    with torch.no_grad():
        whole, dirty = (encode(encoder, inputs, lengths, INPUT, LAST) for inputs in (batch, rubbish))
        for row, sound in enumerate(sounds):
            alone = encode(encoder, *padded([sound]), INPUT, LAST)
            (count,) = alone.layout.counts
            assert whole.layout.counts[row] == count
            for both, one in zip(whole.tensors, alone.tensors, strict=True):
                torch.testing.assert_close(both[row, :count], one[0, :count], rtol=tolerance, atol=tolerance)
            assert torch.equal(whole.newest[row, :count], dirty.newest[row, :count])
    assert whole.newest.dtype == dtype
    assert whole.newest.isfinite().all()


@MODES
def test_every_trainable_tensor_gets_a_gradient_that_ignores_micro_batches(windows: bool, sounds: list[Tensor]) -> None:
    encoder = build(windows=windows, p=0.3, attention_p=0.2).double()
    encoder.freeze(ModelParams(freeze_cnn=False))
    sounds, noise = [sound.double() for sound in sounds], DropoutSeeds(tuple(range(7)))

    def gradients(rows: list[slice]) -> dict[str, Tensor]:
        encoder.zero_grad()
        for where in rows:
            states = encode(encoder, *padded(sounds[where]), INPUT, LAST, noise=noise[where])
            pairs = [(x, row, n) for x in states.tensors for row, n in enumerate(states.layout.counts)]
            torch.stack([x[row, :n].square().mean() for x, row, n in pairs]).sum().backward()
        return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}

    whole, single = gradients([slice(0, 7)]), gradients([slice(k, k + 1) for k in range(7)])
    assert set(whole) == {name for name, _ in encoder.named_parameters()} - {"hf.embed_positions.weight"}
    for name, grad in whole.items():
        torch.testing.assert_close(grad, single[name], rtol=1e-9, atol=1e-9 * float(grad.abs().max() + 1e-3))


@MODES
@pytest.mark.parametrize("pooling", ["mean", "attentive_statistics"])
@pytest.mark.parametrize("frozen", [{}, {"freeze_layers": 2}, {"freeze_speech_encoder": True}, {"freeze_cnn": False}])
def test_a_stored_feature_gives_what_the_waveform_gives(
    windows: bool, pooling: str, frozen: dict[str, Any], sounds: list[Tensor]
) -> None:
    params = ModelParams.model_validate({"pooling": pooling, **frozen})
    encoder = build(windows=windows)
    encoder.freeze(params)
    model = EmotionModel(encoder, params, 2, Provenance("small", None, "")).eval()
    stage = model.frozen_stages
    whole = "freeze_speech_encoder" in frozen
    assert stage == (model.last_stage if whole else 0 if windows or not params.freeze_cnn else 4 if frozen else CNN)
    with torch.no_grad():
        features = [model.prefix(sound, stage) if stage else sound for sound in sounds]
        assert [tuple(one.shape) for one in features] == [model.feature_shape(len(one), stage) for one in sounds]
        torch.testing.assert_close(model(*padded(features), stage), model(*padded(sounds), INPUT), rtol=1e-4, atol=1e-5)


@MODES
def test_the_graph_computes_what_the_network_computes(windows: bool, sounds: list[Tensor]) -> None:
    encoder = build(windows=windows)
    batch, lengths = padded(sounds)
    rubbish = torch.where(valid_mask(lengths, batch.shape[1]), batch, torch.nan)
    with torch.no_grad():
        expected, found = encode(encoder, batch, lengths, INPUT, LAST), encoder.traced(rubbish, lengths)
    for row, count in enumerate(expected.layout.counts):
        assert found.layout.lengths[row] == count
        for mine, other in zip(found.tensors, expected.tensors, strict=True):
            torch.testing.assert_close(mine[row, :count], other[row, :count], rtol=1e-4, atol=1e-4)


def test_stages_partition_the_parameters_and_positions_stay_fixed() -> None:
    encoder = build()
    names = [name for stage in range(1, LAST + 1) for name, _ in encoder.stage_tensors(stage)]
    assert sorted(names) == sorted(encoder.state_dict())
    encoder.freeze(ModelParams(freeze_cnn=False))
    assert [name for name, one in encoder.named_parameters() if not one.requires_grad] == ["hf.embed_positions.weight"]
    assert encoder.frozen_stages == INPUT


def test_dropout_acts_in_trainable_stages_only(sounds: list[Tensor]) -> None:
    encoder = build(p=0.5, attention_p=0.5)
    encoder.freeze(ModelParams(freeze_layers=1))
    with torch.no_grad():
        calm = encode(encoder, *padded(sounds), INPUT, LAST)
        noisy = encode(encoder, *padded(sounds), INPUT, LAST, noise=DropoutSeeds(tuple(range(7))))
    assert [torch.equal(a, b) for a, b in zip(calm.tensors, noisy.tensors, strict=True)] == [True, True, False, False]


def test_hidden_frames_have_no_influence(sounds: list[Tensor]) -> None:
    encoder, mask = build(), torch.zeros(1, 50, dtype=torch.bool)
    mask[0, 10:30] = True
    with torch.no_grad():
        features = encode(encoder, *padded(sounds[:1]), INPUT, CNN).newest
        other = torch.where(mask[..., None], features.flip(-1), features)
        plain, changed, hidden, hidden_too = (
            encode(encoder, one, torch.tensor([50]), CNN, LAST, time_mask=which).newest
            for one, which in ((features, None), (other, None), (features, mask), (other, mask))
        )
    assert torch.equal(hidden, hidden_too)
    assert min((plain - one).abs().max() for one in (changed, hidden)) > 0.1


def test_the_residual_stream_keeps_its_precision_under_autocast(sounds: list[Tensor]) -> None:
    encoder = build()
    with torch.no_grad():
        exact = encode(encoder, *padded(sounds), INPUT, LAST)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = encode(encoder, *padded(sounds), INPUT, LAST)
    assert all(tensor.dtype == torch.float32 for tensor in mixed.tensors)
    error = (mixed.newest - exact.newest)[0].norm() / exact.newest[0].norm()
    assert 0 < error < 0.1


def test_the_decoder_is_left_out_of_a_folder_that_has_it(tmp_path: Path, sounds: list[Tensor]) -> None:
    from transformers import WhisperForConditionalGeneration

    expected = build_whisper()
    whole = WhisperForConditionalGeneration(expected.config)
    whole.model.encoder.load_state_dict(expected.state_dict())
    whole.half().save_pretrained(tmp_path)
    encoder, about = load_encoder(ModelParams(speech_encoder=str(tmp_path), freeze_cnn=False), seed=1)
    assert about.architecture["input"] == "utterance"
    assert {one.dtype for one in encoder.parameters()} == {torch.float32}
    for name, one in encoder.hf.state_dict().items():
        assert torch.equal(one, expected.state_dict()[name].half().float()), name


def test_a_normalisation_that_transformers_states_and_never_does_is_not_done(tmp_path: Path) -> None:
    """`WhisperFeatureExtractor` keeps do_normalize from its file, and asks only its caller."""
    from transformers import WhisperFeatureExtractor

    build_whisper().save_pretrained(tmp_path)
    WhisperFeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    assert "do_normalize" in (tmp_path / "preprocessor_config.json").read_text()
    encoder, about = load_encoder(ModelParams(speech_encoder=str(tmp_path)), seed=1)
    assert not encoder.normalise
    assert not about.normalise
    sound = torch.linspace(0.0, 0.1, 8_000)
    assert torch.equal(encoder.prepare(sound), sound)


def test_windows_are_for_whisper_alone() -> None:
    with pytest.raises(UserError, match=r"encoder_input is window, which is for Whisper alone.*set it to utterance"):
        load_encoder(ModelParams(speech_encoder="random:tiny", encoder_input="window"), seed=1)


@pytest.mark.skipif(not REAL.exists(), reason="no pretrained weights beside the repository (../shared/encoders)")
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_real_weights_give_what_transformers_gives(name: str) -> None:
    from safetensors.torch import load_file
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Theirs

    hf = Theirs(WhisperConfig.from_pretrained(REAL / name)).eval().double()
    tensors = load_file(REAL / name / "model.safetensors")
    hf.load_state_dict({key.removeprefix("model.encoder."): one.double() for key, one in tensors.items()})
    encoder, _ = load_encoder(ModelParams(speech_encoder=str(REAL / name), encoder_input="window"), seed=1)
    sound = 0.1 * torch.randn(50_000, generator=torch.Generator().manual_seed(1)).double()
    spectra = log_mel(F.pad(sound, (0, 430_000))[None], torch.tensor([480_000]), 80)
    with torch.no_grad():
        states = hf(spectra.transpose(1, 2), output_hidden_states=True).hidden_states
        for precision, near in ((torch.float64, 1e-12), (torch.float32, 1e-4)):  # base has values of 500 inside
            found = encode(encoder.to(precision), *padded([sound.to(precision)]), INPUT, encoder.last_stage)
            for mine, expected in zip(found.tensors, states, strict=True):
                assert (mine - expected).abs().max() <= near * expected.abs().max()
