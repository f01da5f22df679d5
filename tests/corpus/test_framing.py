"""Files that their decoders read in part without a word: pages, frames and joins, cut and damaged in every place."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from serfit.corpus.audio import TOLERANCE, audio_duration, read_audio
from serfit.corpus.framing import _ogg_checksum, ogg_fault
from serfit.corpus.mpeg import DECODER_DELAY, _crc16, mpeg_framing
from serfit.errors import UserError
from serfit.labels import SAMPLE_RATE
from sounds import FORMATS, bytes_of, voice, written

COUNTED = TOLERANCE * SAMPLE_RATE
"""Samples that a file with one sample after another may lack: its header may be rounded."""

IN_BLOCKS = {"ALAC_16", "MS_ADPCM", "GSM610", "VORBIS", "OPUS", "MPEG_LAYER_III"}


def mp3(folder: Path, seconds: float = 1.0) -> bytes:
    return written(folder / "whole.mp3", voice(seconds=seconds), SAMPLE_RATE, "MP3", "MPEG_LAYER_III").read_bytes()


def without_header(content: bytes) -> bytes:
    """An MP3 without its first frame, which says how many follow."""
    return content[content.index(content[:2], 4) :]


@pytest.mark.parametrize(("container", "encoding"), FORMATS)
def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path: Path, container: str, encoding: str) -> None:
    samples = voice(seconds=3.0 if container == "OGG" else 0.3)  # several pages
    content = written(tmp_path / "whole", samples, SAMPLE_RATE, container, encoding).read_bytes()
    with soundfile.SoundFile(tmp_path / "whole") as file:
        whole = file.read(file.frames, dtype="float32")[: len(samples)]  # codecs may fill up their last block
    least = len(whole) - (0 if encoding in IN_BLOCKS or container == "FLAC" else COUNTED)
    for cut in sorted({*range(1, 100), *range(100, len(content), max(1, len(content) // 150))}):
        path = bytes_of(tmp_path / f"{cut}", content[:-cut])
        for read in (read_audio, audio_duration):
            if read is audio_duration and container == "FLAC":
                continue  # its header is whole
            try:
                found = read(path)
            except UserError:
                continue
            if isinstance(found, float):
                assert found * SAMPLE_RATE >= least, f"{cut} bytes cut off"
            else:
                assert len(found) >= least, f"{cut} bytes cut off"
                shared = min(len(found), len(whole))
                np.testing.assert_array_equal(found[:shared], whole[:shared])


@pytest.mark.parametrize(("container", "encoding"), FORMATS)
def test_joined_files_are_refused(tmp_path: Path, container: str, encoding: str) -> None:
    content = written(tmp_path / "one", voice(seconds=0.3), SAMPLE_RATE, container, encoding).read_bytes()
    with pytest.raises(UserError, match=r"several recordings one after another|is not audio that can be read"):
        read_audio(bytes_of(tmp_path / "two", content + content))


def test_joined_mp3s_that_count_nothing_are_read_to_the_end(tmp_path: Path) -> None:
    bare = without_header(mp3(tmp_path))
    lengths = []
    for times in (1, 2, 3):
        read = read_audio(bytes_of(tmp_path / "a", bare * times))
        assert audio_duration(tmp_path / "a") == len(read) / SAMPLE_RATE
        lengths.append(len(read))
        late = int(np.correlate(read[:16_000], voice()[:12_000], "valid").argmax())
        assert late in (1105, 1105 - DECODER_DELAY)  # the encoder's delay and the decoder's, or the encoder's alone
        assert np.corrcoef(read[late:][:12_000], voice()[:12_000])[0, 1] > 0.9
    assert lengths[1] - lengths[0] == lengths[2] - lengths[1] >= SAMPLE_RATE
    slower = written(tmp_path / "b", voice(8_000), 8_000, "MP3", "MPEG_LAYER_III").read_bytes()
    with pytest.raises(UserError, match=r"changes its sampling rate .* at 1\.\d\d s, as if two recordings were joined"):
        read_audio(bytes_of(tmp_path / "c", bare + slower))


# ---------------------------------------------------------------- Ogg


def bit_by_bit(page: bytes) -> int:
    """The checksum of RFC 3533 as its definition says it."""
    register = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
    return register


@given(page=st.binary(min_size=27, max_size=600))
def test_the_checksum_is_that_of_the_definition(page: bytes) -> None:
    assert _ogg_checksum(page) == bit_by_bit(page)


def pages(content: bytes) -> list[bytes]:
    found, offset = [], 0
    while offset < len(content):
        header = 27 + content[offset + 26]
        length = header + sum(content[offset + 27 : offset + header])
        found.append(content[offset : offset + length])
        offset += length
    return found


@pytest.fixture(scope="module", params=["VORBIS", "OPUS"])
def ogg(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("ogg") / "a.ogg"
    return written(path, voice(seconds=3.0), SAMPLE_RATE, "OGG", request.param).read_bytes()


@given(data=st.data())
@settings(max_examples=60)
def test_ogg_with_a_changed_bit_or_a_missing_or_moved_page_is_refused(ogg: bytes, data: st.DataObject) -> None:
    assert ogg_fault(ogg) is None
    assert ogg_fault(ogg + b"behind the end") is None
    offset = data.draw(st.integers(0, len(ogg) - 1))
    changed = bytearray(ogg)
    changed[offset] ^= 1 << data.draw(st.integers(0, 7))
    assert ogg_fault(bytes(changed)) is not None
    whole = pages(ogg)
    assert b"".join(whole) == ogg
    gone = data.draw(st.integers(0, len(whole) - 1))
    assert ogg_fault(b"".join(whole[:gone] + whole[gone + 1 :])) is not None
    other = data.draw(st.integers(0, len(whole) - 1).filter(lambda offset: offset != gone))
    whole[gone], whole[other] = whole[other], whole[gone]
    assert ogg_fault(b"".join(whole)) is not None


def test_ogg_streams_beside_each_other_are_none_behind_each_other(ogg: bytes) -> None:
    def renamed(page: bytes) -> bytes:
        page = page[:14] + b"two!" + page[18:]
        return page[:22] + bit_by_bit(page).to_bytes(4, "little") + page[26:]

    first, second = pages(ogg), [renamed(page) for page in pages(ogg)]
    beside = b"".join(page for pair in zip(first, second, strict=True) for page in pair)
    assert ogg_fault(beside) is None
    assert "several recordings" in str(ogg_fault(b"".join(first + second)))


# ---------------------------------------------------------------- MPEG


def test_mp3_in_wav_is_the_mp3(tmp_path: Path) -> None:
    bare = without_header(mp3(tmp_path))
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, SAMPLE_RATE, 4000, 1, 0, 12, 1, 2, 144, 1, 0)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(bare)) + bare
    path = bytes_of(tmp_path / "a.wav", b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    np.testing.assert_array_equal(read_audio(path), read_audio(bytes_of(tmp_path / "a.mp3", bare)))
    assert audio_duration(path) * SAMPLE_RATE == len(read_audio(path))


def test_tags_around_mp3_are_no_damage(tmp_path: Path) -> None:
    content = mp3(tmp_path)
    before = b"ID3\4\0\0\0\0\1\0" + bytes(128)
    behind = b"APETAGEX" + struct.pack("<II", 2000, 32) + bytes(16) + bytes(32) + b"TAG" + bytes(125)
    assert mpeg_framing(before + content + behind) == mpeg_framing(content)
    tagged = bytes_of(tmp_path / "a", before + content + behind)
    np.testing.assert_array_equal(read_audio(tagged), read_audio(bytes_of(tmp_path / "b", content)))


@given(content=st.binary(max_size=300))
def test_the_checksum_of_lame_is_that_of_its_definition(content: bytes) -> None:
    register = 0
    for byte in content:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xA001 if register & 1 else 0)
    assert _crc16(memoryview(content)) == register


def test_any_changed_bit_of_an_mp3_with_a_checksum_is_refused(tmp_path: Path) -> None:
    content, random = mp3(tmp_path), np.random.default_rng(3)
    behind = len(content) - len(without_header(content))
    for _ in range(60):
        changed = bytearray(content)
        changed[random.integers(behind, len(content))] ^= 1 << random.integers(8)
        with pytest.raises(UserError, match=r"is (damaged|cut short)|changes its|not audio"):
            read_audio(bytes_of(tmp_path / "a.mp3", bytes(changed)))


@pytest.mark.parametrize("header", [True, False])
def test_an_mp3_with_a_hole_is_refused_by_name_and_quietly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], header: bool
) -> None:
    content = mp3(tmp_path)
    content = content if header else without_header(content)
    for begin, end in [(0.3, 0.31), (0.3, 0.5), (0.6, 0.9)]:
        first, last = (int(share * len(content)) for share in (begin, end))
        for hole in (b"", bytes(last - first)) if header else (b"",):
            path = bytes_of(tmp_path / "hole.mp3", content[:first] + hole + content[last:])
            with pytest.raises(UserError, match=r"hole.mp3 is (damaged|cut short)"):
                read_audio(path)
    assert capfd.readouterr().err == ""


def test_what_the_mp3_decoder_complains_of_is_said_with_the_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content, random = without_header(mp3(tmp_path, 5.0)), np.random.default_rng(1)
    told = set()
    for _ in range(250):
        changed = bytearray(content)
        changed[random.integers(500, len(content))] ^= 1 << random.integers(8)
        try:
            read_audio(bytes_of(tmp_path / "a.mp3", bytes(changed)))
        except UserError as error:
            told.add(str(error))
    assert any("dequantization failed" in one for one in told)
    assert all(str(tmp_path / "a.mp3") in one for one in told)
    assert capfd.readouterr().err == ""


# ---------------------------------------------------------------- formats that don't say what they are


def test_instruments_without_a_sampling_rate_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="doesn't state its sampling rate"):
        read_audio(written(tmp_path / "a.xi", voice(), SAMPLE_RATE, "XI", "DPCM_16"))


def test_git_lfs_pointers_are_named(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
    for read in (read_audio, audio_duration):
        with pytest.raises(UserError, match=r"a\.wav is a Git LFS pointer"):
            read(bytes_of(tmp_path / "a.wav", pointer))
