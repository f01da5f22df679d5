from pathlib import Path

import numpy as np
import pytest
import soundfile

from serfit.config import schema
from serfit.config.schema import ModelParams
from serfit.corpus.audio import content_digest, read_audio
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError
from serfit.nn.model import build_model
from serfit.system.precision import Precision
from serfit.training.features import build_features
from serfit.training.store import store_contents
from serfit.training.waveforms import Waveforms, is_plain, open_waveforms

RANDOM = np.random.default_rng(4)
SOUND = (0.3 * RANDOM.standard_normal(16_000)).clip(-1, 1).astype(np.float32)


def entries(waveforms: Waveforms) -> tuple[int, int]:
    count = [len(list(store.folder.glob("??/*.safetensors"))) for store in (waveforms.integers, waveforms.floats)]
    return count[0], count[1]


@pytest.mark.parametrize(
    ("name", "how", "kept"),
    [
        ("a.flac", {"subtype": "PCM_16"}, (1, 0)),
        ("b.wav", {"subtype": "PCM_U8"}, (1, 0)),
        ("c.wav", {"subtype": "PCM_24"}, (0, 1)),
        ("d.wav", {"subtype": "FLOAT"}, (0, 1)),
        ("e.aiff", {"subtype": "PCM_16"}, (1, 0)),
        ("f.ogg", {}, (0, 1)),
        ("g.wav", {"samplerate": 44_100}, (0, 1)),
    ],
)
def test_what_comes_back_is_what_was_decoded(
    name: str, how: dict[str, object], kept: tuple[int, int], tmp_path: Path
) -> None:
    """To the bit, whatever the source; 16 bits where they suffice."""
    path = tmp_path / name
    soundfile.write(path, SOUND, **{"samplerate": 16_000, **how})
    waveforms = open_waveforms(tmp_path / "store", None)
    decoded = read_audio(path)
    for _ in range(2):
        found = waveforms.read(content_digest(path), lambda: read_audio(path))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, decoded)
        assert entries(waveforms) == kept
    again = waveforms.read(content_digest(path), lambda: pytest.fail("was decoded again"))
    np.testing.assert_array_equal(again, decoded)


@pytest.mark.parametrize("extreme", [[1.0, 0.0], [-1.0, 0.0], [-1.0 - 2**-15, 0.0], [0.5, 2.0**-16]])
def test_samples_at_the_edge_of_sixteen_bits(extreme: list[float], tmp_path: Path) -> None:
    waveforms = open_waveforms(tmp_path, None)
    samples = np.array(extreme, dtype=np.float32)
    waveforms.read("k" * 64, lambda: samples)
    np.testing.assert_array_equal(waveforms.read("k" * 64, lambda: samples[:0]), samples)
    assert entries(waveforms) == ((1, 0) if extreme == [-1.0, 0.0] else (0, 1))


@pytest.mark.parametrize(
    ("how", "plain"),
    [
        ({"samplerate": 16_000, "subtype": "PCM_16"}, True),
        ({"samplerate": 16_000, "subtype": "PCM_24"}, False),
        ({"samplerate": 8_000, "subtype": "PCM_16"}, False),
        ({"samplerate": 16_000, "subtype": "PCM_16", "format": "FLAC"}, False),
    ],
)
def test_plain_files_are_told_by_their_header(how: dict[str, object], plain: bool, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", SOUND, **how)
    assert is_plain(tmp_path / "x.wav") == plain
    soundfile.write(tmp_path / "y.wav", np.stack([SOUND, SOUND], 1), **how)
    assert not is_plain(tmp_path / "y.wav")
    assert not is_plain(tmp_path / "none.wav")


def test_training_from_waveforms_decodes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.flac", SOUND, 16_000)
    soundfile.write(tmp_path / "b.wav", SOUND, 16_000)
    model = build_model(ModelParams(speech_encoder="random:tiny", freeze_cnn=False), dimensions=1, seed=1)
    utterances = [Utterance(id=name, path=tmp_path / name, speaker="s", ratings={}) for name in ("a.flac", "b.wav")]
    plain = build_features(model, schema.FeatureSettings(store=None), schema.Augmentation(), Precision(), crop=False)
    kept = build_features(
        model, schema.FeatureSettings(store=tmp_path / "store"), schema.Augmentation(), Precision(), crop=False
    )
    for _ in range(2):
        for utterance in utterances:
            np.testing.assert_array_equal(kept(utterance), plain(utterance))
    assert plain.waveforms is None
    assert sum(content.entries for content in store_contents(tmp_path / "store")) == 1
    read: list[Path] = []
    monkeypatch.setattr(
        "serfit.training.features.read_audio", lambda path, *segment: read.append(path) or read_audio(path)
    )
    for utterance in utterances:
        kept(utterance)
    assert read == [tmp_path / "b.wav"]
    (tmp_path / "c.flac").write_bytes(b"no audio")
    with pytest.raises(UserError, match=r"^utterance c: .*c\.flac is not audio"):
        kept(Utterance(id="c", path=tmp_path / "c.flac", speaker="s", ratings={}))
    with pytest.raises(UserError, match=r"^utterance d: there is no audio file"):
        kept(Utterance(id="d", path=tmp_path / "d.flac", speaker="s", ratings={}))
