import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serfit.config.schema import Augmentation
from serfit.system import counters
from serfit.training.augment import change_waveform, changes_waveform, crop, mixup, time_mask
from serfit.training.batches import Example


def draws(*address: int | str) -> np.random.Generator:
    return counters.generator(*address)


@settings(max_examples=50)
@given(length=st.integers(1, 50), longest=st.integers(1, 60), seed=st.integers(0, 99))
def test_a_crop_is_a_stretch_of_what_was_there(length: int, longest: int, seed: int) -> None:
    inputs = torch.arange(length)
    cropped = crop(inputs, longest, draws(seed))
    assert len(cropped) == min(length, longest)
    assert (cropped.diff() == 1).all()


def test_every_crop_position_occurs() -> None:
    firsts = {int(crop(torch.arange(10), 7, draws(seed))[0]) for seed in range(200)}
    assert firsts == {0, 1, 2, 3}


@pytest.mark.parametrize("ratio", [0.0, 10.0, 30.0])
def test_noise_has_the_ratio_it_was_asked_for(ratio: float) -> None:
    clean = torch.sin(torch.arange(64_000) / 7)
    noisy = change_waveform(clean, Augmentation(noise_snr_db=(ratio, ratio)), draws(1))
    measured = 10 * torch.log10(clean.square().mean() / (noisy - clean).square().mean())
    assert float(measured) == pytest.approx(ratio, abs=0.1)


def test_gain_stays_within_its_bounds_and_silence_stays_silent() -> None:
    gains = [float(change_waveform(torch.ones(4), Augmentation(gain_db=6), draws(seed))[0]) for seed in range(200)]
    decibels = 20 * np.log10(gains)
    assert -6 <= decibels.min() < -5
    assert 5 < decibels.max() <= 6
    silent = change_waveform(torch.zeros(100), Augmentation(noise_snr_db=(0, 10)), draws(1))
    assert not silent.any()


@settings(max_examples=60)
@given(frames=st.integers(1, 400), share=st.floats(0.01, 0.9), span=st.integers(1, 30), seed=st.integers(0, 99))
def test_a_time_mask_never_hides_everything(frames: int, share: float, span: int, seed: int) -> None:
    mask = time_mask(frames, share, span, draws(seed))
    assert mask.shape == (frames,)
    assert not mask.all()


def test_a_time_mask_hides_about_its_share() -> None:
    shares = [time_mask(500, 0.2, 10, draws(seed)).mean() for seed in range(300)]
    assert 0.16 < np.mean(shares) <= 0.2


def test_mixup_mixes_inputs_and_targets_alike() -> None:
    examples = [Example(str(n), torch.full((4 + n,), float(n)), torch.tensor([float(n)]), n) for n in range(5)]
    mixed = mixup(examples, 0.4, 1, 1, 0)
    assert [example.length for example in mixed] == [4, 5, 6, 7, 8]
    for before, after in zip(examples, mixed, strict=True):
        assert after.id == before.id
        torch.testing.assert_close(after.inputs, after.target.expand_as(after.inputs))
    assert any(float(after.target) != float(before.target) for before, after in zip(examples, mixed, strict=True))
    repeated = mixup(examples, 0.4, 1, 1, 0)
    assert all(torch.equal(left.inputs, right.inputs) for left, right in zip(mixed, repeated, strict=True))


def test_what_changes_the_waveform() -> None:
    assert not changes_waveform(Augmentation())
    assert not changes_waveform(Augmentation(time_mask_share=0.1))
    assert changes_waveform(Augmentation(gain_db=3))
    assert changes_waveform(Augmentation(noise_snr_db=(5, 20)))
    assert changes_waveform(Augmentation(mixup_alpha=0.2))
