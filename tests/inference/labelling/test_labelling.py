"""Labelling: every recording has its rows, in order, whatever is beside it; from any point on the same bits again."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from inference.heard import Ear, features, listener
from serfit.corpus.audio import read_audio
from serfit.corpus.level import SILENT, TOO_LOUD
from serfit.inference import windows
from serfit.inference.labelling import labelling
from serfit.inference.labelling.inputs import Item
from serfit.inference.labelling.labelling import Cutting, Piece, Point, Row, Voiced, Whole, Windows, label
from serfit.inference.labelling.table import Columns

CUTTINGS: list[Cutting] = [Whole(), Windows(0.5, 0.2), Voiced()]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Twelve recordings of many lengths; some can't be used."""
    folder = tmp_path_factory.mktemp("recordings")
    random = np.random.default_rng(1)
    items = []
    for number in range(12):
        path = folder / f"{number:02d}.wav"
        rate = (8_000, 16_000, 44_100)[number % 3]
        seconds = (3.0, 0.7, 1.9, 0.3)[number % 4]
        sound = random.uniform(-0.5, 0.5, round(rate * seconds))
        soundfile.write(path, sound, rate, subtype="FLOAT")
        items.append(Item(path.name, path, 0.1 if number == 6 else 0.0))
    items[3].path.write_bytes(b"RIFF nonsense")
    items[8].path.unlink()
    soundfile.write(items[10].path, np.zeros(100), 16_000)
    return items


def rows(pieces: list[Piece]) -> list[Row]:
    return [row for piece in pieces for row in piece.rows]


def plain(row: Row) -> tuple[object, ...]:
    heard = row.emotion
    found = () if heard is None else (heard.values, heard.unit, heard.spread, heard.embedding.tobytes())
    return (row.item, row.start, row.end, row.error, *found)


def unit(row: Row) -> list[float]:
    assert row.emotion is not None
    return list(row.emotion.unit.values())


def test_each_recording_is_what_it_is_alone(recordings: list[Item]) -> None:
    model = listener(0.0, 0.1)
    found = rows(list(label(model, recordings, Whole())))
    assert [row.item for row in found] == list(range(12))
    for item, row in zip(recordings, found, strict=True):
        if row.item in (3, 8, 10):
            assert row.emotion is None
            assert item.file in row.error
            continue
        assert row.error == ""
        assert row.emotion is not None
        waveform = read_audio(item.path, item.start)
        assert (row.start, row.end) == (item.start, item.start + len(waveform) / 16_000)
        loudness, _, mean = features(waveform)
        np.testing.assert_allclose(unit(row), [loudness + 0.05, mean + 0.05], atol=1e-12)
        values, spread = list(row.emotion.values.values()), list(row.emotion.spread.values())
        np.testing.assert_allclose(values, 1 + 4 * np.array(unit(row)), atol=1e-12)
        np.testing.assert_allclose(spread, 4 * 0.1 / np.sqrt(2), atol=1e-12)
    assert "not audio that can be read" in found[3].error
    assert "there is no audio file" in found[8].error
    assert "lasts 6.2 ms" in found[10].error


def test_batches_are_of_like_length(recordings: list[Item]) -> None:
    model = listener()
    list(label(model, recordings * 6, Whole()))
    (ear,) = model.networks
    assert isinstance(ear, Ear)
    assert len(ear.asked) == 1
    assert sum(map(len, ear.asked)) == 6 * 9
    assert ear.asked[0] == sorted(ear.asked[0], reverse=True)


@pytest.mark.parametrize("cutting", CUTTINGS, ids=lambda cutting: type(cutting).__name__)
def test_from_every_point_on_the_rows_are_the_same_again(
    recordings: list[Item], monkeypatch: pytest.MonkeyPatch, cutting: Cutting
) -> None:
    monkeypatch.setattr(labelling, "POOL_ITEMS", 4)
    monkeypatch.setattr(labelling, "BATCH_SECONDS", 2.5)
    monkeypatch.setattr(windows, "AT_ONCE", 1.5)
    pieces = list(label(listener(), recordings, cutting))
    assert [piece.done for piece in pieces] == sorted(piece.done for piece in pieces)
    assert pieces[-1].done == pieces[-1].heard == 12
    point = Point()
    for index, piece in enumerate(pieces):
        assert piece.heard >= piece.done
        assert all(row.item >= point.done for row in piece.rows)
        within = 0 if piece.done > point.done else point.rows + len(piece.rows)
        if (piece.done, within) != (point.done, point.rows):
            point = Point(piece.done, within, (piece.rows[-1].end if within else None) or 0.0)
            again = list(label(listener(), recordings, cutting, point))
            assert list(map(plain, rows(again))) == list(map(plain, rows(pieces[index + 1 :])))
    assert list(label(listener(), recordings, cutting, Point(12))) == []


def test_one_bad_waveform_doesnt_take_its_batch_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = []
    for number in range(5):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.full(8_000, 0.1 + 0.1 * number), 16_000, subtype="FLOAT")
        items.append(Item(path.name, path))
    usual = Ear.__call__

    def deaf(self: Ear, waveforms: list[np.ndarray]) -> object:
        outputs = usual(self, waveforms)
        for index, waveform in enumerate(waveforms):
            if abs(waveform[0] - 0.3) < 1e-3:
                outputs.unit[index] = np.nan
        return outputs

    monkeypatch.setattr(Ear, "__call__", deaf)
    found = rows(list(label(listener(), items, Whole())))
    assert ["isn't finite" in row.error for row in found] == [False, False, True, False, False]
    assert unit(found[3])[0] == pytest.approx(0.4)


def test_too_much_for_one_utterance_isnt_even_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(121 * 4_000), 4_000)
    monkeypatch.setattr(labelling, "read_audio", None)
    (row,) = rows(list(label(listener(), [Item("long.wav", path)], Whole())))
    assert "long.wav lasts 121 s" in row.error
    assert "--window" in row.error


def test_windows_and_stretches_of_one_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    sound = 1e-4 * np.random.default_rng(1).standard_normal(8 * 16_000)
    for start, end in ((1, 2), (4, 7)):
        sound[start * 16_000 : end * 16_000] += 0.3 * np.sin(np.arange((end - start) * 16_000))
    soundfile.write(path, sound, 16_000, subtype="FLOAT")
    found = rows(list(label(listener(), [Item("a.wav", path, 0.5)], Voiced())))
    assert [(row.start, row.end) for row in found] == [
        (pytest.approx(0.9, abs=0.03), pytest.approx(2.1, abs=0.03)),
        (pytest.approx(3.9, abs=0.03), pytest.approx(7.1, abs=0.03)),
    ]
    for row in found + rows(list(label(listener(), [Item("a.wav", path, 0.5)], Windows(1.0, 0.7)))):
        part = read_audio(path, row.start, row.end)
        np.testing.assert_allclose(unit(row), np.array(features(part))[[0, 2]], atol=1e-6)
    soundfile.write(path, np.zeros(8_000), 16_000)
    (row,) = rows(list(label(listener(), [Item("a.wav", path)], Voiced())))
    assert "no voice was found in a.wav" in row.error


def test_damage_found_late_leaves_the_rows_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serfit.corpus.audio._BLOCK", 16_000)
    path = tmp_path / "a.wav"
    sound = np.full(400 * 16_000, 0.1)
    sound[-1] = np.nan
    soundfile.write(path, sound, 16_000, subtype="FLOAT")
    found = rows(list(label(listener(), [Item("a.wav", path), Item("a.wav", path, 0.0, 2.0)], Windows(3.0, 3.0))))
    assert [row.error == "" for row in found] == [True] * 80 + [False, True]
    assert found[80].start == 240.0
    assert found[80].end is None
    assert "aren't finite" in found[80].error


def test_silence_and_samples_far_beyond_one_get_a_note_beside_their_values(tmp_path: Path) -> None:
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, 8_000)
    kinds = {
        "fine": (sound, ""),
        "silent": (0 * sound, SILENT[0]),
        "cancelled": (np.stack([sound, -sound], axis=1), SILENT[1]),
        "loud": (24_000 * sound, TOO_LOUD),
    }
    for name, (samples, _) in kinds.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    items = [Item(name, tmp_path / f"{name}.wav") for name in kinds]
    found = rows(list(label(listener(), items, Whole())))
    assert [(row.note, row.error) for row in found] == [(note, "") for _, note in kinds.values()]
    assert all(row.emotion is not None for row in found)
    columns = Columns(("valence", "arousal"), ids=False, spreads=False)
    assert dict(zip(columns.names, columns.cells(found[1], items[1]), strict=True))["note"] == SILENT[0]
