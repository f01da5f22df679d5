"""Whether an audio file is whole and one, from its pages, frames and chunks: what decoders pass over without a word.

libsndfile resynchronises after damage, stops at the first of several joined files, and takes the last whole page for
the end. The functions here walk through the bytes and return what is wrong, to go behind the file's name, or None.
"""

import math
import re
import struct
import zlib
from io import BytesIO
from typing import BinaryIO

import soundfile

from serfit.corpus.mpeg import Framing, mpeg_framing, with_count
from serfit.system.files import read_start

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits in reverse order."""

_MARKS = {"FLAC": 8, "AU": 8, "CAF": 12, "NIST": 16, "RF64": 16, "W64": 16}
"""First bytes of a file that nothing but another such file repeats, for formats that libsndfile reads to the join or
beyond, the second header as if it were sound; it refuses joined WAV and AIFF files itself."""

SAMPLE_BY_SAMPLE = frozenset(
    {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "DPCM_8", "DPCM_16"}
)
"""Encodings that write each sample by itself, and no blocks of them."""

_UNKNOWN_SIZE = 0x7FFF_F000
"""Chunk sizes from here on stand for "unknown" in files written to pipes."""

_PIECE = 1 << 20
_JOINED = "holds several recordings one after another, of which the second begins at byte {}"


def framing(file: BinaryIO, container: str, encoding: str, *, decode: bool) -> Framing:
    """Look through an audio file for damage that its decoder passes over.

    Args:
        file: open, at any position; it is left at another one.
        container: libsndfile's name of its format.
        encoding: libsndfile's name of what is in it.
        decode: also read those to their end whose headers say how long they are (FLAC and uncompressed formats).
    """
    file.seek(0)
    if container == "OGG":
        return Framing(ogg_fault(file.read()))
    if container in _MARKS:
        return Framing(_joined(file, file.read(_MARKS[container])) if decode else None)
    if encoding.startswith("MPEG"):
        return mpeg_framing(_mpeg_stream(file, container), decode=decode)
    return Framing()


def ogg_fault(data: bytes) -> str | None:
    """Check the pages of an Ogg file (RFC 3533, section 6) and describe the first fault.

    Every page must be whole, fit its checksum and follow the one before it, and the last of each stream be marked as
    such. Streams beside each other are allowed, one after another (chained) not: only the first would be read.
    """
    expected: dict[bytes, int] = {}  # number of the next page of each stream that hasn't ended
    offset, begun = 0, False
    while data[offset : offset + 4] == b"OggS":
        length = _page_length(data, offset)
        if length is None:
            return "is cut short inside its last Ogg page"
        page = data[offset : offset + length]
        if _ogg_checksum(page) != int.from_bytes(page[22:26], "little"):
            return f"is damaged: the Ogg page at byte {offset} doesn't fit its checksum"
        flags, stream, number = page[5], page[14:18], int.from_bytes(page[18:22], "little")
        if flags & 2:  # the first page of a stream
            if begun:
                return _JOINED.format(offset)
        elif expected.get(stream) != number:
            return f"is damaged: an Ogg page is missing before byte {offset}"
        else:
            begun = True
        expected[stream] = number + 1 & 0xFFFF_FFFF
        if flags & 4:
            del expected[stream]
        offset += length
    if offset == len(data):
        return "is cut short: no Ogg page is marked as the last of its stream" if expected else None
    if expected or data.find(b"OggS", offset) >= 0:
        return f"is damaged: no Ogg page begins at byte {offset}"
    return None


def _page_length(data: bytes, offset: int) -> int | None:
    """Bytes of the page that begins there; None where the file ends before it."""
    if offset + 27 > len(data):
        return None
    header = 27 + data[offset + 26]
    length = header + sum(data[offset + 27 : offset + header])
    return length if offset + length <= len(data) else None


def _ogg_checksum(page: bytes) -> int:
    """CRC of RFC 3533: polynomial 0x04C11DB7, most significant bit first, beginning with 0, its own field as zeros.

    zlib's is the same with all bits reversed, beginning with ones and inverted at the end.
    """
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    found = zlib.crc32(mirrored, 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int.from_bytes(found.to_bytes(4, "little").translate(_REVERSED), "big")


def _joined(file: BinaryIO, mark: bytes) -> str | None:
    """Whether a second file follows one that begins with `mark`."""
    marks = {mark, mark.replace(b"fLaC\0", b"fLaC\x80"), mark.replace(b"fLaC\x80", b"fLaC\0")}  # more blocks or none
    file.seek(1)
    offset, piece = 1, file.read(_PIECE)
    while piece:
        found = [piece.find(one) for one in marks if one in piece]
        if found:
            return _JOINED.format(offset + min(found))
        kept = piece[1 - len(mark) :]
        more = file.read(_PIECE)
        offset, piece = offset + len(piece) - len(kept), kept + more if more else b""
    return None


def _riff_data(file: BinaryIO) -> tuple[int, int]:
    """Return start and size of the data chunk of a WAV file; the size may reach beyond the end."""
    offset = 12
    while True:
        file.seek(offset)
        name, size = struct.unpack("<4sI", file.read(8).ljust(8, b"\0"))
        if name in (b"data", b"\0\0\0\0"):
            return offset + 8, size
        offset += 8 + size + size % 2


def with_stated_length(file: BinaryIO, container: str, samples: int) -> BytesIO:
    """An MPEG audio stream with a header that counts its samples, for a decoder that guesses its length without."""
    return BytesIO(with_count(_mpeg_stream(file, container), samples))


def _mpeg_stream(file: BinaryIO, container: str) -> bytes:
    """The frames of MPEG audio, with any tags around them."""
    begin, size = (0, -1) if container == "MP3" else _riff_data(file)
    file.seek(begin)
    return file.read(size)


def promised_frames(descriptor: int, sound: soundfile.SoundFile) -> float | None:
    """Frames that the header counts where libsndfile trusts the file's size instead, else None.

    libsndfile notes such repairs in its log: "data : 96000 (should be 57582)", sizes in bytes; a wrong RIFF size alone
    harms nothing.
    """
    log = sound.extra_info
    if sound.format == "NIST":
        header = read_start(descriptor, 1024).decode("latin-1")
        count = re.search(r"^sample_count -i (\d+)", header, re.MULTILINE)
        return float(count[1]) if count else None
    counted = re.search(r"frame count \d+ does not match value from 'ds64' chunk of (\d+)|Valid frames +: (\d+)", log)
    if counted:
        return float(counted[1] or counted[2])
    sizes = re.search(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if sizes is None or int(sizes[1]) >= _UNKNOWN_SIZE:
        return None
    size, present = int(sizes[1]), int(sizes[2])
    if present == 0:
        return None if sound.subtype in SAMPLE_BY_SAMPLE else math.inf
    return float(sound.frames * size / present)
