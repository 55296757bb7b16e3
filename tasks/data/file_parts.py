"""What of a JPEG, PNG or WebP file makes its pixels, apart from everything else that files carry.

Comments, thumbnails, workflows, XMP, damaged profiles and what is appended: decoders differ in what of it they refuse,
and none of it changes a pixel. So they get the file without it; orientation and colour profiles are read here.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from storage.errors import BadImage
from tasks.data.colours import MAX_PROFILE_BYTES, SRGB_PRIMARIES, coded_profile, gamma_profile

MAX_HEADER_PIECES = 2_000  # some hundred segments, chunks or tags are many
MAX_HEADER_BYTES = 100_000  # such as are read singly: padding, and what a damaged JPEG has between its segments
MAX_READS = 2_000_000  # two for each run of a BMP
RESERVED_BYTES = 256  # of one value at the end of pixels: not written, where coded pixels do not come out so
MAX_SCANS = 100  # encoders write about ten; each costs a pass over all pixels, however few bytes it has


@dataclass(frozen=True)
class Parts:
    """`data`: the file with its pixels alone. `exif`: its EXIF data or none. `profiles`: its ICC profiles, best first.

    `filled`: none, or where pixels may lack their rest (a JPEG without the end marker that `data` has in any case) the
    same with other bytes in its place, which must make no other pixels.
    `spoilt`: none, or where the end of the pixels may never have been written the same with other bytes at this end,
    which must make other pixels.
    `clear`: the samples of the one grey (2 bytes) or colour (6 bytes) that is transparent in a PNG, which `data` lacks.
    """

    data: bytes
    exif: bytes = b""
    profiles: tuple[bytes, ...] = ()
    filled: bytes = b""
    spoilt: bytes = b""
    clear: bytes = b""


# Without the byte of a marker, and unlike the zeros that decoders take for pixels that are missing.
_FILLER = bytes((index * 73 + 41) % 251 for index in range(64))

# Not stuffed zeros, fill bytes or restarts, which stand inside a scan, nor the marker of no use without a length.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])", re.DOTALL)
_END, _SCAN = 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_CODING = frozenset(range(0xC0, 0xD0)) | frozenset(range(0xDA, 0xE0))
_APPLICATION = frozenset({*range(0xE0, 0xF0), 0xFE})
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_COLOUR_CODING = frozenset({(_APP0, b"JFIF\0"), (_APP14, b"Adobe")})
_LONGEST = 2 + 65_535  # a marker and what a length can say
_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"


def jpeg_parts(data: bytes) -> Parts:
    """A JPEG without application segments (but JFIF's and Adobe's, which say how colours are coded) and what follows.

    Raises:
        BadImage: `truncated` where its headers break off, or its scans before all coefficients were named;
            `too-complex` for more segments, stray bytes or scans than any honest file has.
    """
    kept, exif, scans, ends = [b"\xff\xd8"], b"", 0, False
    profile: dict[int, tuple[int, bytes]] = {}
    coefficients = _Coefficients()
    for marker, start, end in _jpeg_segments(data):
        body = data[start + 4 : min(end, start + _LONGEST)]
        if marker == _END:
            ends = True
        elif marker == _SCAN:
            scans += 1
            coefficients.sent(body)
            kept.append(data[start:end] if end < len(data) else _written(data[start:end]))
        elif marker not in _APPLICATION or (marker, body[:5]) in _COLOUR_CODING:
            kept.append(data[start:end])
            if marker in _FRAMES:
                coefficients.declared(body, progressive=marker in _PROGRESSIVE)
        elif marker == _APP1 and body.startswith(_EXIF) and not scans:
            exif += body[len(_EXIF) :] if exif else body
        elif marker == _APP2 and body.startswith(_ICC) and len(body) > 14 and not scans:
            profile.setdefault(body[12], (body[13], body[14:]))
    if not ends and not (scans and coefficients.complete()):
        raise BadImage("truncated", f"the {'scans' if scans else 'headers'} of the JPEG break off")
    whole = b"".join(kept)
    filled = b"" if ends else whole + _FILLER + b"\xff\xd9"
    return Parts(whole + b"\xff\xd9", exif, _joined(profile), filled)


def _written(scan: bytes) -> bytes:
    """A scan that no marker follows, without what was only reserved for it.

    Programs that reserve the space of a download leave it filled with one byte where they stop. Without this fill the
    pixels are seen to break off, or to be all there. A flat picture that is coded as such a run is taken to break off.
    """
    missing, fill = _last_run(scan), scan[-1:]
    written = scan[: len(scan) - missing] if missing >= RESERVED_BYTES else scan
    if written is not scan and fill == b"\0" and written.endswith(b"\xff"):
        return written + fill  # which is stuffed behind it
    # Half a marker at the end of the file would be one with whatever comes behind it.
    return written.rstrip(b"\xff")


def _last_run(data: bytes) -> int:
    """The number of equal bytes in which `data` end."""
    return len(data) - len(data.rstrip(data[-1:]))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end (a scan's with its pixels) of every segment, up to the end marker or the end of the file.

    They are found as libjpeg finds them: by their lengths, and over stray bytes on to the next marker. A marker of no
    known kind, and a second start, are segments without a length: decoders refuse them, and say so.
    """
    place, scans, segments, stray = 2, 0, 0, 0
    while (found := _MARKER.search(data, place)) is not None:
        marker, start, end = found[1][0], found.start(), found.end()
        segments += 1
        stray += 0 if scans else start - place
        scans += marker == _SCAN
        if stray > MAX_HEADER_BYTES or segments > (MAX_READS if scans else MAX_HEADER_PIECES) or scans > MAX_SCANS:
            raise BadImage("too-complex", "a JPEG of more segments, stray bytes or scans than any honest file has")
        if marker in _CODING or marker in _APPLICATION:
            end += max(2, int.from_bytes(data[end : end + 2], "big"))
        if end > len(data):
            return
        if marker == _SCAN:
            behind = _MARKER.search(data, end)
            end = behind.start() if behind else len(data)
        yield marker, start, end
        if marker == _END:
            return
        place = end


def _joined(pieces: dict[int, tuple[int, bytes]]) -> tuple[bytes, ...]:
    """The profile of numbered pieces, each with their count (ICC.1:2010, B.4): none unless all of them are there."""
    counts = {count for count, _ in pieces.values()}
    if len(counts) != 1 or sorted(pieces) != list(range(1, counts.pop() + 1)):
        return ()
    return (b"".join(pieces[number][1] for number in sorted(pieces)),)


@dataclass
class _Coefficients:
    """Which coefficients of which component the scans of a JPEG have named, and to which bit (T.81, B.2.3)."""

    _missing: dict[int, set[int]] = field(default_factory=dict)
    _progressive: bool = False

    def declared(self, frame: bytes, *, progressive: bool) -> None:
        self._progressive = progressive
        self._missing = {frame[6 + 3 * index]: set(range(64)) for index in range(max(0, len(frame) - 6) // 3)}

    def sent(self, scan: bytes) -> None:
        count = scan[0] if scan else 0
        if len(scan) < 4 + 2 * count:
            return
        first, last, bits = scan[1 + 2 * count : 4 + 2 * count]
        for index in range(count):
            missing = self._missing.get(scan[1 + 2 * index], set())
            if not self._progressive:
                missing.clear()
            elif bits & 15 == 0:
                missing.difference_update(range(first, last + 1))

    def complete(self) -> bool:
        return not any(self._missing.values())


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BESIDE_PIXELS = frozenset({b"tRNS", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf"})
_PALETTE = b"\3"
_CLEAR_BYTES = {b"\0": 2, b"\2": 6}  # by colour type: grey, and red, green and blue
_NEARLY_SRGB = 45_455  # the gamma that the PNG specification gives to decoders that know no sRGB


def png_parts(data: bytes) -> Parts:
    """A PNG of its header, palette, transparency and pixels alone; a chunk beside the pixels counts if it is sound.

    Raises:
        BadImage: `truncated` or `unreadable` where no pixels are reached; `too-complex` for more chunks than any honest
            file has.
    """
    kept, chunks, has_pixels, colour_type = [PNG_SIGNATURE], 0, False, b""
    beside: dict[bytes, bytes] = {}
    for name, start, end in _png_chunks(data):
        chunks += 1
        if chunks > (MAX_READS if has_pixels else MAX_HEADER_PIECES):
            raise BadImage("too-complex", "a PNG of more chunks than any honest file has")
        if name == b"IDAT":
            has_pixels = True
            if end - start == 12 + int.from_bytes(data[start : start + 4], "big") and not _is_sound(data, start, end):
                is_reserved = _last_run(data[start : end - 4]) >= RESERVED_BYTES
                raise BadImage("truncated" if is_reserved else "unreadable", "pixels of a PNG with a wrong checksum")
            kept.append(data[start:end])
        elif name == b"IEND":
            break
        elif name in beside or has_pixels:
            continue
        elif name in (b"IHDR", b"PLTE"):
            if name == b"IHDR" and len(kept) > 1:
                raise BadImage("unreadable", "a PNG with a second header")
            kept.append(data[start:end])
            colour_type = colour_type or data[start + 17 : start + 18]
        elif name in _BESIDE_PIXELS and _is_sound(data, start, end):
            beside[name] = data[start + 8 : end - 4]
            if name == b"tRNS" and colour_type == _PALETTE:
                kept.append(data[start:end])
    if not has_pixels:
        raise BadImage("unreadable", "a PNG without pixels")
    exif = _EXIF + beside[b"eXIf"] if b"eXIf" in beside else b""
    samples = _CLEAR_BYTES.get(colour_type, 0)
    clear = beside.get(b"tRNS", b"")[:samples]
    return Parts(b"".join(kept), exif, tuple(_png_profiles(beside)), clear=clear if len(clear) == samples else b"")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk; the last one may break off, within the pixels alone."""
    place, has_pixels = len(PNG_SIGNATURE), False
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if not name.isalpha():
            if has_pixels:
                return  # what is appended to a picture
            raise BadImage("unreadable", f"a PNG with a chunk of the name {name!r}")
        if end > len(data) and name != b"IDAT":
            break
        has_pixels = has_pixels or name == b"IDAT"
        yield name, place, min(end, len(data))
        place = end
    if not has_pixels:
        raise BadImage("truncated", "the headers of the PNG break off")


def _is_sound(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def _png_profiles(chunks: dict[bytes, bytes]) -> Iterator[bytes]:
    """Profiles in the order of precedence (PNG, third edition, 4.3), which is browsers' too."""
    coded = chunks.get(b"cICP", b"")
    if len(coded) == 4 and coded[2:] == b"\0\1":  # RGB, and of the full range
        profile = coded_profile(coded[0], coded[1])
        if profile is not None:
            yield profile
    _, _, compressed = chunks.get(b"iCCP", b"").partition(b"\0")
    if compressed[:1] == b"\0":
        unpacked = _unpacked(compressed[1:])
        if unpacked is not None:
            yield unpacked
    if b"sRGB" in chunks or len(chunks.get(b"gAMA", b"")) != 4:
        return
    gamma = int.from_bytes(chunks[b"gAMA"], "big")
    chromaticities = chunks.get(b"cHRM", b"")
    if len(chromaticities) == 32:
        numbers = [number / 100_000 for number in struct.unpack(">8I", chromaticities)]
        primaries = list(zip(numbers[::2], numbers[1::2], strict=True))
    elif gamma == _NEARLY_SRGB:
        return
    else:
        primaries = list(SRGB_PRIMARIES)
    profile = gamma_profile(100_000 / gamma, primaries) if gamma else None
    if profile is not None:
        yield profile


def _unpacked(compressed: bytes) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(compressed, MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return None
    return profile if len(profile) <= MAX_PROFILE_BYTES else None


_WEBP_PROFILE, _WEBP_ALPHA, _WEBP_ANIMATION = 0x20, 0x10, 0x02


def webp_parts(data: bytes) -> Parts:
    """A WebP of its pixels, or of the first frame of an animation, alone.

    Raises:
        BadImage: `truncated` where the pixels break off, or are not reached.
    """
    kept: list[tuple[bytes, bytes]] = []
    beside: dict[bytes, bytes] = {}
    flags, has_pixels = 0, False
    place = 12
    for _ in range(MAX_HEADER_PIECES):
        if place + 8 > len(data):
            break
        name, length = struct.unpack_from("<4sI", data, place)
        end = place + 8 + length
        body = data[place + 8 : end]
        makes_pixels = name in (b"VP8 ", b"VP8L", b"ANMF")
        if end > len(data):
            if not has_pixels:
                raise BadImage("truncated", "the WebP breaks off")
            break
        if name == b"VP8X" and length >= 10 and not kept:
            flags = body[0]
            # Frames may leave a part of the canvas uncovered, which is clear whatever the file says of alpha.
            alpha = _WEBP_ALPHA if flags & _WEBP_ANIMATION else flags & _WEBP_ALPHA
            body = bytes([alpha | flags & _WEBP_ANIMATION]) + body[1:]
            kept.append((name, body))
        elif not has_pixels and (makes_pixels or name in (b"ANIM", b"ALPH")):
            kept.append((name, body))
            has_pixels = makes_pixels
        elif name in (b"ICCP", b"EXIF"):
            beside.setdefault(name, body)
        place = end + (length & 1)
    if not has_pixels:
        raise BadImage("truncated", "a WebP without pixels")
    profiles = (beside[b"ICCP"],) if flags & _WEBP_PROFILE and b"ICCP" in beside else ()
    # A flat picture may be coded as such a run, and then to its last byte.
    name, body = kept[-1]
    spoilt = [*kept[:-1], (name, body[: -len(_FILLER)] + _FILLER)] if _last_run(body) >= RESERVED_BYTES else []
    return Parts(_webp(kept), beside.get(b"EXIF", b""), profiles, spoilt=_webp(spoilt) if spoilt else b"")


def _webp(kept: list[tuple[bytes, bytes]]) -> bytes:
    chunks = b"".join(struct.pack("<4sI", name, len(body)) + body + bytes(len(body) & 1) for name, body in kept)
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WEBP") + chunks


def container_parts(data: bytes) -> Parts:
    """An AVIF or HEIC file as it is, and filled where its media data (ISO/IEC 14496-12, 8.1.1) end in one byte's run.

    The arithmetic coders of both write none, but metadata may stand there too.
    """
    place = 0
    for _ in range(MAX_HEADER_PIECES):
        if place + 16 > len(data):
            break
        length, name, longer = struct.unpack_from(">I4sQ", data, place)
        end = len(data) if length == 0 else place + (longer if length == 1 else max(length, 8))
        end = min(max(end, place + 8), len(data))
        if name == b"mdat":
            missing = _last_run(data[place:end])
            if missing >= RESERVED_BYTES:
                written = end - place - missing
                fill = _FILLER * (missing // len(_FILLER) + 1)
                return Parts(data, filled=data[: place + written] + fill[:missing] + data[end:])
        place = end
    return Parts(data)
