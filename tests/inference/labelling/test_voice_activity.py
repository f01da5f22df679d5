"""Voice by energy: what is loud is found where it is, whatever the level, the offset and the blocks."""

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serfit.corpus.audio import read_audio
from serfit.inference.labelling.voice_activity import ADDED, LONGEST, levels, stretches, voiced
from serfit.labels import SAMPLE_RATE

EMODB = Path(__file__).resolve().parents[4] / "shared/corpora/emodb"


def bursts(spans: list[tuple[float, float]], seconds: float, floor: float = 0.001, level: float = 0.1) -> np.ndarray:
    random = np.random.default_rng(3)
    sound = floor * random.standard_normal(int(seconds * SAMPLE_RATE))
    for start, end in spans:
        index = slice(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE))
        sound[index] += level * random.standard_normal(len(sound[index]))
    return sound.astype(np.float32)


SPANS = [(1.0, 2.2), (3.5, 3.9), (6.0, 9.0)]


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.05, 0.0), (5.0, 0.0), (1.0, 0.3)])
def test_bursts_are_found_where_they_are(gain: float, offset: float) -> None:
    sound = gain * bursts(SPANS, 10.0) + np.float32(offset)
    found = voiced(levels([sound.astype(np.float32)]))
    assert len(found) == len(SPANS)
    for (start, end), (begun, ended) in zip(SPANS, found, strict=True):
        assert begun == pytest.approx(start - ADDED, abs=0.041)
        assert ended == pytest.approx(end + ADDED, abs=0.041)


def test_pauses_are_bridged_and_clicks_dropped() -> None:
    found = voiced(levels([bursts([(1.0, 2.0), (2.2, 3.0), (5.0, 5.04)], 6.0)]))
    assert [(round(start, 1), round(end, 1)) for start, end in found] == [(0.9, 3.1)]


def test_silence_has_no_voice_and_steady_noise_is_voice_throughout() -> None:
    assert voiced(levels([np.zeros(5 * SAMPLE_RATE, dtype=np.float32)])) == []
    assert voiced(levels([np.full(SAMPLE_RATE, 0.5, dtype=np.float32)])) == []
    assert voiced(levels([bursts([], 5.0, floor=1e-4)])) == []
    assert voiced(levels([])) == []
    (whole,) = voiced(levels([bursts([(0.0, 5.0)], 5.0)]))
    assert whole == (0.0, 5.0)


def test_long_stretches_are_cut_where_they_are_quietest() -> None:
    sound = bursts([(0.0, 47.0)], 47.0)
    sound[14 * SAMPLE_RATE : int(14.1 * SAMPLE_RATE)] *= 0.02
    found = voiced(levels([sound]))
    assert found[0][1] == pytest.approx(14.0, abs=0.1)
    assert all(end - start <= LONGEST for start, end in found)
    assert found[0][0] == 0.0
    assert found[-1][1] == 47.0
    assert all(one[1] == other[0] for one, other in pairwise(found))


@given(borders=st.lists(st.integers(0, 40_000), max_size=5), seed=st.integers(0, 5))
@settings(max_examples=30)
def test_blocks_leave_no_trace(borders: list[int], seed: int) -> None:
    sound = np.random.default_rng(seed).standard_normal(40_000).astype(np.float32)
    blocks = np.split(sound, sorted(borders))
    np.testing.assert_array_equal(levels(blocks), levels([sound]))
    by_hand = [10 * np.log10(sound[n : n + 320].astype(np.float64).var()) for n in range(0, 40_000, 320)]
    np.testing.assert_allclose(levels(blocks), by_hand, rtol=1e-5)
    spans = [(0.1, 0.5), (0.5, 0.75), (1.0, 2.4), (2.45, 9.9)]
    found = list(stretches(blocks, spans))
    assert len(found) == len(spans)
    for (start, end), part in zip(spans, found, strict=True):
        np.testing.assert_array_equal(part, sound[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)])


@pytest.mark.skipif(not EMODB.exists(), reason="EMO-DB isn't beside the repository (../shared/corpora/emodb)")
def test_sentences_are_found_between_silences() -> None:
    """EMO-DB is cut tightly: of real sentences set apart by two seconds of faint noise, each is found whole."""
    with (EMODB / "utterances.csv").open(encoding="utf-8") as file:
        paths = [EMODB / row["path"] for row in csv.DictReader(file)][::60]
    random = np.random.default_rng(1)
    parts, spans, at = [], [], 0.0
    for path in paths:
        for part in (3e-4 * random.standard_normal(2 * SAMPLE_RATE), read_audio(path)):
            parts.append(part.astype(np.float32))
        spans.append((at + 2.0, at + 2.0 + len(parts[-1]) / SAMPLE_RATE))
        at = spans[-1][1]
    found = voiced(levels(parts))
    covered = np.zeros(round(at * 100), dtype=bool)
    for start, end in found:
        covered[round(start * 100) : round(end * 100)] = True
    for start, end in spans:
        assert covered[round(start * 100) : round(end * 100)].mean() > 0.8
    assert covered.sum() / 100 < sum(end - start for start, end in spans) + 0.5 * len(spans)
