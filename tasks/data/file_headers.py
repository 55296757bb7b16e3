"""An image file's headers, parsed by the plugin of Pillow's that its first bytes call for, within limits.

What Pillow would pass over or take for something else without a word is refused or mended here, before a pixel is
decoded.
"""

import functools
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, ImagePalette
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from storage.errors import BadImage
from tasks.data.colours import coded_profile
from tasks.data.file_kinds import container_format, other_kind, picture_format, unsupported
from tasks.data.file_parts import (
    MAX_HEADER_BYTES,
    MAX_HEADER_PIECES,
    MAX_READS,
    PNG_SIGNATURE,
    Parts,
    container_parts,
    jpeg_parts,
    png_parts,
    webp_parts,
)

MAX_PIXELS = 100_000_000
MAX_BYTES = 400_000_000  # a picture of MAX_PIXELS as PNG stays below

MAX_TIFF_VALUES = 200_000  # as many strips as rows are fewer

BITS_PER_SAMPLE, _PHOTOMETRIC, _FILL_ORDER, _PLANAR, _COLOUR_MAP, _SAMPLE_FORMAT = 258, 262, 266, 284, 320, 339
_SEPARATE, _SIGNED = 2, 2
_BITFIELDS = 3  # of a BMP
# Coefficients of luma, subsampling, black and white of each component: what Pillow takes them for, and their defaults.
_YCBCR_READ = {529: (0.299, 0.587, 0.114), 530: (1, 1), 532: (0, 255, 128, 255, 128, 255)}
_YCBCR_DEFAULT = _YCBCR_READ | {530: (2, 2)}


@dataclass(frozen=True)
class OpenedFile:
    """`image`: its headers, parsed. `data`: what decoders get of it. The others as in `Parts`."""

    image: ImageFile.ImageFile
    data: bytes
    profiles: tuple[bytes, ...]
    filled: bytes
    spoilt: bytes
    clear: bytes


def open_picture(data: bytes) -> OpenedFile:
    """Parse the headers with the plugin that the first bytes call for.

    `Image.open` is avoided: it tries every plugin that Pillow has (PostScript among them, which starts a program), and
    checks the size against a limit that is global to the process, with a warning.
    """
    if not data:
        raise BadImage("empty", "no bytes")
    if len(data) > MAX_BYTES:
        raise BadImage("too-large", f"{len(data)} bytes, more than {MAX_BYTES}")
    plugin, parts_of = reader_for(data)
    if plugin is TiffImageFile:
        _refuse_large_directories(data)
    parts = parts_of(data)
    stream = LimitedStream(parts.data)
    try:
        image = plugin(stream)
        stream.expect_pixels()
        if isinstance(image, TiffImageFile):
            _mend_tiff(image)
        elif isinstance(image, BmpImageFile):
            _mend_bmp(image, data)
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage("too-large", str(error)) from error
    # Parsers of hostile bytes fail in every way there is: SyntaxError, OSError, struct.error, OverflowError ...
    except Exception as error:
        if str(error) == "unknown pixel mode":
            raise BadImage("unsupported", unsupported("TIFF (a rare kind of samples)")) from error
        if str(error).startswith("Unsupported BMP"):
            raise BadImage("unsupported", unsupported(f"BMP ({error})")) from error
        # A parser that failed at the very end had wanted to read on.
        ran_out = not stream.closed and stream.tell() >= len(parts.data)
        reason = "truncated" if ran_out or speaks_of_truncation(error) else "unreadable"
        raise BadImage(reason, str(error)) from error
    if parts.exif:
        image.info["exif"] = parts.exif
    profiles = parts.profiles or _declared_profiles(image, data)
    return OpenedFile(image, parts.data, profiles, parts.filled, parts.spoilt, parts.clear)


class LimitedStream(io.BytesIO):
    """A picture's bytes, which may be asked for pieces only so many times.

    Pillow's parsers are Python loops over what a file says, and ask for each piece of it: chunks of no length, padding
    byte by byte, runs of one pixel. Some join what they find piece by piece, which takes time in proportion to the
    square of the pieces of a header.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._pieces, self._bytes = MAX_HEADER_PIECES, MAX_HEADER_BYTES

    def expect_pixels(self) -> None:
        """The header has been read: what follows may come in many pieces."""
        self._pieces = self._bytes = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        if size == 1:
            self._bytes -= 1
        else:
            self._pieces -= 1
        if min(self._pieces, self._bytes) < 0:
            raise BadImage("too-complex", "more pieces than any honest file has")
        return super().read(size)


# Bytes of one value, by type, as far as it becomes an object of its own; texts and opaque bytes stay what they are.
_TIFF_VALUE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_OFFSETS = frozenset({273, 324})  # of strips and tiles, each of which becomes an object
_TIFF_TILE_SIDES = frozenset({322, 323})
_DNG_VERSION, _SUBFILE_TYPE, _TIFF_SUBDIRECTORIES = 50706, 254, 330
_TIFF_DIRECTORIES = frozenset({34665, 34853, 40965})  # EXIF, GPS and interoperability, which Pillow reads as well


def _refuse_large_directories(data: bytes) -> None:
    """Refuse a TIFF whose first picture makes many objects of few bytes, or declares tiles beyond all sizes.

    A directory is a count of entries, then for each its tag, type, count, and value or place (TIFF 6.0, section 2;
    BigTIFF has them in 64 bits). What is not as it should be, such as more values than the file has bytes for, is left
    to the parser to refuse or pass over.
    """
    order = "<" if data[:1] == b"I" else ">"
    is_big = data[2] == ord("+")
    head, number = (f"{order}Q", f"{order}Q") if is_big else (f"{order}H", f"{order}L")
    entry = f"{order}HH{number[1] * 2}"
    area = 1
    first: dict[int, int] = {}
    if data[8:10] == b"CR":
        raise BadImage("unsupported", unsupported("camera raw (Canon)"))
    try:
        directories = list(struct.unpack_from(number, data, 8 if is_big else 4))
        for start in directories:
            (entries,) = struct.unpack_from(head, data, start)
            fits = start + entries * struct.calcsize(entry) <= len(data)
            if fits and entries * len(directories) > MAX_HEADER_PIECES:
                raise BadImage("too-complex", f"a TIFF with {entries} tags in one of {len(directories)} directories")
            for index in range(entries):
                place = start + struct.calcsize(head) + index * struct.calcsize(entry)
                tag, kind, count, value = struct.unpack_from(entry, data, place)
                one = _TIFF_VALUE_BYTES.get(kind, 1 if tag in _TIFF_OFFSETS else 0)
                if one and count > MAX_TIFF_VALUES and count * one <= len(data):
                    raise BadImage("too-complex", f"a TIFF with {count} values of tag {tag}")
                if start == directories[0]:
                    first.setdefault(tag, value)
                if tag in _TIFF_TILE_SIDES:
                    # A short value stands in the first bytes of its field.
                    short = struct.unpack_from(
                        f"{order}H", data, place + struct.calcsize(entry) - struct.calcsize(number)
                    )
                    area *= max(1, short[0] if kind == 3 else value)
                if tag in _TIFF_DIRECTORIES and value not in directories:
                    directories.append(value)
    except (struct.error, OverflowError):
        return
    # What is called a picture there is a preview of the sensor's samples, or these themselves.
    if _DNG_VERSION in first or (first.get(_SUBFILE_TYPE, 0) & 1 and _TIFF_SUBDIRECTORIES in first):
        raise BadImage("unsupported", unsupported("camera raw"))
    if area > MAX_PIXELS:
        raise BadImage("too-large", f"a TIFF with tiles of {area} pixels, more than {MAX_PIXELS}")


def _mend_tiff(image: TiffImageFile) -> None:
    """Refuse a TIFF whose samples Pillow takes for others without a word, and read its palette as libtiff does."""
    tags = image.tag_v2
    has_planes, by_libtiff = tags.get(_PLANAR) == _SEPARATE, image.tile[0].codec_name == "libtiff"
    is_plain = set(tags.get(BITS_PER_SAMPLE, (1,))) == {8} and tags.get(_FILL_ORDER, 1) == 1
    if image.mode == "L" and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        kind = "signed samples"
    elif has_planes and by_libtiff and image.mode in ("LA", "La", "PA"):
        kind = "separate planes of grey or a palette, and alpha"
    # Of what a plane's samples are only the first letter is heeded.
    elif has_planes and not by_libtiff and (not is_plain or is_white_zero(image)):
        kind = "separate planes that are not of eight plain bits"
    elif image.mode == "YCbCr" and not all(
        np.allclose(np.array(tags.get(tag, _YCBCR_DEFAULT[tag]), dtype=float), read, atol=0.001)
        for tag, read in _YCBCR_READ.items()
    ):
        kind = "subsampled or scaled YCbCr without compression"
    else:
        kind = ""
    if kind:
        raise BadImage("unsupported", unsupported(f"TIFF ({kind})"))
    if image.mode in ("P", "PA") and max(tags[_COLOUR_MAP]) < 256:
        # Levels of 8 bits where those of 16 belong.
        image.palette = ImagePalette.raw("RGB;L", bytes(tags[_COLOUR_MAP]))


def _mend_bmp(image: BmpImageFile, data: bytes) -> None:
    """Refuse a BMP whose alpha Pillow passes over, and read bits that it takes for others where a palette is grey."""
    (header,) = struct.unpack_from("<I", data, 14)
    (bits,) = struct.unpack_from("<H", data, 24 if header == 12 else 28)
    if bits == 16 and header >= 56 and struct.unpack_from("<I", data, 30) == (_BITFIELDS,) and any(data[66:70]):
        raise BadImage("unsupported", unsupported("BMP (16 bits with alpha)"))
    if (image.mode == "1" and bits != 1) or (image.mode == "L" and bits != 8):
        greys = (0, 255) if image.mode == "1" else range(2**bits)
        image.palette = ImagePalette.raw("RGB", bytes(level for grey in greys for level in (grey, grey, grey)))
        image._mode = "P"
        image.tile = [
            tile._replace(args=("P;4" if bits == 4 and tile.codec_name == "raw" else "P", *(tile.args or ())[1:]))
            for tile in image.tile
        ]


Plugin = Callable[[io.BytesIO], ImageFile.ImageFile]


def reader_for(data: bytes) -> tuple[Plugin, Callable[[bytes], Parts]]:
    """Pillow's plugin for these first bytes, and what takes a file apart for it."""
    if data.startswith(b"\xff\xd8\xff"):
        # Not Pillow's factory: that one splits multi-picture JPEGs (MPO), of which the first picture is the one meant.
        return JpegImageFile, jpeg_parts
    if data.startswith(PNG_SIGNATURE):
        return PngImageFile, png_parts
    if data.startswith((b"GIF87a", b"GIF89a")):
        return GifImageFile, Parts
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImageFile, webp_parts
    # Not a BigTIFF of big-endian numbers: Pillow takes its directory to be where none is.
    if data.startswith((b"II*\x00", b"MM\x00*", b"II+\x00")):
        return TiffImageFile, Parts
    if data.startswith(b"BM"):
        return BmpImageFile, Parts
    name = picture_format(data)
    if name == "AVIF":
        return AvifImageFile, container_parts
    heif = _heif_plugin() if name == "HEIC" else None
    if heif is not None:
        return heif, container_parts
    if name is not None:
        raise BadImage("unsupported", unsupported(name))
    raise BadImage("unreadable", other_kind(data))


@functools.cache
def _heif_plugin() -> Plugin | None:
    """The plugin of the extra `heic`, None where that is not installed."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        return None
    plugin: Plugin = HeifImageFile
    return plugin


def _declared_profiles(image: ImageFile.ImageFile, data: bytes) -> tuple[bytes, ...]:
    """The profile that Pillow found in a file, or that stands for the code points of an AVIF or HEIC."""
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return (profile,)
    if container_format(data) is None:
        return ()
    # Colour information of the kind `nclx` (ISO/IEC 14496-12, 12.1.5): primaries and transfer, 16 bits each.
    place = data.find(b"colrnclx")
    codes = data[place + 8 : place + 12]
    coded = coded_profile(*struct.unpack(">HH", codes)) if place >= 0 and len(codes) == 4 else None
    return () if coded is None else (coded,)


def is_white_zero(image: TiffImageFile) -> bool:
    return bool(image.tag_v2.get(_PHOTOMETRIC, 0) == 0)  # as Pillow has it where the tag is missing


def speaks_of_truncation(error: BaseException) -> bool:
    if isinstance(error, EOFError | struct.error) or isinstance(error.__cause__, EOFError | struct.error):
        return True
    return any(word in str(error).lower() for word in ("truncated", "incomplete", "unexpected end", "premature end"))
