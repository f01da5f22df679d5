"""MPEG audio (MP3) frame by frame: whether a stream is whole and one, and how long it is.

The layout is that of ISO/IEC 11172-3 and 13818-3; the headers in a first frame are those of Xing, LAME and Fraunhofer.
"""

import struct
from dataclasses import dataclass

from serfit.errors import counted

_LAYERS = {1: 3, 2: 2, 3: 1}
_KILOBITS = {  # (MPEG-1 or not, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}

DECODER_DELAY = 529
"""Samples that libmpg123 leaves out at the beginning of streams with a header."""

_LAME = 120
"""Where LAME's part of a Xing header begins, counted from the word Xing or Info."""


@dataclass(frozen=True, slots=True)
class Framing:
    """What an inspection of the bytes of an audio file found.

    Attributes:
        fault: what is wrong, to go behind the file's name; None where nothing is.
        samples: samples per channel of an MPEG stream without a header that counts them; None elsewhere.
    """

    fault: str | None = None
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    """The header of a frame.

    Attributes:
        kind: version, layer and rate, which a stream keeps.
        length: of the whole frame in bytes; 0 where the header doesn't say ("free format").
        samples: that it decodes to.
        layer: 1, 2 or 3.
        mpeg1: whether it is MPEG-1 and not 2 or 2.5.
        mono: whether it has one channel.
        side: where the side information begins within it.
    """

    kind: tuple[int, int, int]
    length: int
    samples: int
    layer: int
    mpeg1: bool
    mono: bool
    side: int

    @property
    def main(self) -> int:
        """Offset of the main data within a layer III frame."""
        return self.side + ((17 if self.mono else 32) if self.mpeg1 else (9 if self.mono else 17))


@dataclass(frozen=True, slots=True)
class _Announced:
    """The contents of the header in the first frame of a stream.

    Attributes:
        frames: how many there are; 0 where it doesn't say.
        size: bytes of the stream with this frame; 0 where it doesn't say.
        checksum: of the frames behind it; 0 where it doesn't say.
    """

    frames: int
    size: int = 0
    checksum: int = 0


def mpeg_framing(data: bytes, *, decode: bool = False) -> Framing:
    """Look through an MPEG audio stream, with or without tags around it.

    Every frame must begin where the one before it ends, be of the same kind and whole; there must be as many as the
    header in the first frame counts; and the bits of layer III, which may begin in frames before their own, must not
    overlap. Other changes within frames show only where LAME's header has a checksum.

    Args:
        data: the whole stream.
        decode: also compute LAME's checksum, which takes a tenth of a second per megabyte.
    """
    offset, count, begin = 0, 0, 0
    first: _Frame | None = None
    announced: _Announced | None = None
    bits = _Reservoir()
    while offset < len(data):
        frame = _frame(data, offset)
        if frame is None:
            tag = _tag_length(data, offset)
            if tag == 0:
                break
            offset += tag
            continue
        if frame.length == 0:
            return Framing()
        seconds = f"{count * (first or frame).samples / (first or frame).kind[2]:.2f} s"
        if offset + frame.length > len(data):
            return Framing(f"is cut short: its last MPEG frame, at {seconds}, isn't whole")
        if first is None:
            first, begin = frame, offset
            announced = _announced(data[offset : offset + frame.length], frame)
        elif frame.kind != first.kind:
            return Framing(f"changes its sampling rate or kind at {seconds}, as if two recordings were joined there")
        if begin < offset or announced is None:
            count += 1
            if frame.layer == 3 and not bits.fit(data, offset, frame):
                return Framing(f"is damaged: the bits of its MPEG frame at {seconds} aren't where it says")
        offset += frame.length
        end = offset
    if offset < len(data) and data[offset:].strip(b"\0"):
        return Framing(f"is damaged at byte {offset}: no MPEG frame begins there")
    if first is None:
        return Framing(samples=0)
    if announced is None:
        return Framing(samples=count * first.samples)
    behind = memoryview(data)[begin + first.length : end] if decode else None
    return Framing(_broken_promise(announced, count, end - begin, behind))


def _broken_promise(announced: _Announced, count: int, size: int, behind: memoryview | None) -> str | None:
    """Compare a stream of `count` frames with its header and describe the first contradiction."""
    if 0 < announced.frames != count:
        announces = f"its header counts {counted(announced.frames, 'MPEG frame')}"
        if count < announced.frames:
            return f"is cut short: {announces}, and {count} are there"
        if count > announced.frames + 1:  # some encoders count the header's own frame, some don't
            return f"holds several recordings one after another: {announces}, and it has {count}"
    if behind is None or announced.size != size or announced.checksum in (0, _crc16(behind)):
        return None
    return "is damaged: its MPEG frames don't fit the checksum in its header"


class _Reservoir:
    """The main data of layer III frames as one stretch of bytes, in which each frame says where its own lie."""

    def __init__(self) -> None:
        self._given = self._taken = 0  # bytes of all frames so far, and where the data of the last one end

    def fit(self, data: bytes, offset: int, frame: _Frame) -> bool:
        """Whether the data of the next frame lie behind those of the one before, and in bytes that are there."""
        back, length = _main_data(data, offset, frame)
        begin = self._given - back  # below 0: in frames before the recording was cut out of a longer one
        overlaps = 0 <= begin < self._taken
        self._given, self._taken = self._given + frame.length - frame.main, begin + length
        return not overlaps and self._taken <= self._given


def with_count(data: bytes, samples: int) -> bytes:
    """A stream without a header that counts frames, with one; tags before its first frame are left out."""
    offset = next(offset for offset in range(len(data)) if (frame := _frame(data, offset)) and frame.length)
    head = bytes(
        [0xFF, data[offset + 1] | 1, data[offset + 2] & 0x0C | 0x80, data[offset + 3]]
    )  # no checksum, more room
    frame = _frame(head, 0)
    assert frame is not None, "made of a frame"
    info = head.ljust(frame.main, b"\0") + b"Info" + struct.pack(">II", 1, samples // frame.samples)
    return info.ljust(frame.length, b"\0") + data[offset:]


def _frame(data: bytes, offset: int) -> _Frame | None:
    """The header that stands there, or None where none does."""
    head = data[offset : offset + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, _LAYERS.get(head[1] >> 1 & 3)
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer is None or bitrate == 15 or rate == 3:
        return None
    mpeg1, hertz = version == 3, _RATES[version][rate]
    samples = 384 if layer == 1 else 1152 if layer == 2 or mpeg1 else 576
    slot = 4 if layer == 1 else 1
    slots = samples // 8 // slot * 1000 * _KILOBITS[mpeg1, layer][bitrate] // hertz + (head[2] >> 1 & 1)
    return _Frame(
        kind=(version, layer, hertz),
        length=slots * slot if bitrate else 0,
        samples=samples,
        layer=layer,
        mpeg1=mpeg1,
        mono=head[3] >> 6 == 3,
        side=4 if head[1] & 1 else 6,  # behind two bytes of checksum
    )


def _main_data(data: bytes, offset: int, frame: _Frame) -> tuple[int, int]:
    """How many bytes of main data before a layer III frame its own begin, and how many bytes these are."""
    size = 8 * (frame.main - frame.side)
    bits = int.from_bytes(data[offset + frame.side : offset + frame.main], "big")

    def field(offset: int, width: int) -> int:
        return bits >> (size - offset - width) & ((1 << width) - 1)

    channels = 1 if frame.mono else 2
    if frame.mpeg1:
        back, offset, granules, width = 9, (18 if frame.mono else 20), 2, 59
    else:
        back, offset, granules, width = 8, (9 if frame.mono else 10), 1, 63
    used = sum(field(offset + width * granule, 12) for granule in range(granules * channels))
    return field(0, back), -(-used // 8)


def _announced(content: bytes, frame: _Frame) -> _Announced | None:
    """Parse a Xing, Info or VBRI header in the first frame; None if there is none."""
    inside = content[frame.main :]
    if inside[:4] in (b"Xing", b"Info"):
        flags, frames = struct.unpack(">II", inside[4:12].ljust(8, b"\0"))
        size, checksum = 0, 0
        if flags & 15 == 15 and len(inside) >= _LAME + 36:  # all of its own fields, then LAME's
            size, checksum = struct.unpack_from(">IH", inside, _LAME + 28)
        return _Announced(frames if flags & 1 else 0, size, checksum)
    if content[36:40] == b"VBRI":
        return _Announced(int.from_bytes(content[50:54], "big"))
    return None


def _tag_length(data: bytes, offset: int) -> int:
    """Bytes of the ID3 or APE tag that begins there; 0 where none does."""
    head = data[offset : offset + 16]
    if head[:3] == b"ID3" and len(head) >= 10:
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 127
        return 10 + size + (10 if head[5] & 16 else 0)
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX" and len(head) == 16:
        return 32 + int.from_bytes(head[12:16], "little")
    return 0


def _crc16(data: memoryview) -> int:
    """LAME's checksum: polynomial 0x8005, least significant bit first, beginning with 0."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0xA001 if byte & 1 else 0)
        table.append(byte)
    found = 0
    for byte in data:
        found = found >> 8 ^ table[(found ^ byte) & 255]
    return found
