"""Image bytes that nobody vouches for: what they declare, their pixels, their fingerprints, and encoding them again.

What a picture may cost is limited here, for everybody who decodes one:

* pixels and bytes: `MAX_PIXELS` declared, `MAX_BYTES` of file, checked before anything is decoded;
* frames: the first one only, later ones are not even parsed;
* work: requests to the file by Pillow's parsers (`MAX_HEADER_PIECES`, `MAX_HEADER_BYTES`, `MAX_READS`), `MAX_SCANS` of
  a progressive JPEG, `MAX_TIFF_VALUES` and tiles of at most `MAX_PIXELS` in a TIFF, `MAX_EXIF_BYTES`,
  `MAX_PROFILE_BYTES`. Everything else takes time and memory in proportion to the pixels and the bytes.

Together they bound the time, see `decode_rgb`. No clock is asked: which pictures are set aside must not depend on how
busy a machine is.
"""

import functools
import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageFile, ImagePalette
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from storage.errors import BadImage
from tasks.data.colours import coded_profile, srgb_conversion
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

Pixels = npt.NDArray[np.uint8]
Thumbnail = npt.NDArray[np.float32]

MAX_PIXELS = 100_000_000
MAX_BYTES = 400_000_000  # a picture of MAX_PIXELS as PNG stays below
MIN_SIDE = 8

MAX_TIFF_VALUES = 200_000  # as many strips as rows are fewer
MAX_EXIF_BYTES = 1_000_000  # a JPEG's have at most 65,533

DUPLICATE_MAX_DISTANCE = 4
DUPLICATE_MIN_CORRELATION = 0.98

# Annex K.1 of ITU-T T.81 (the table that the Independent JPEG Group scales), in row-major order.
_STANDARD_LUMA_TABLE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61),
        *(12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56),
        *(14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77),
        *(24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101),
        *(72, 92, 95, 98, 112, 100, 103, 99),
    ],
    dtype=np.int64,
)

# How stored pixels become upright ones, by EXIF orientation (tag 0x0112, CIPA DC-008); 1 is upright already.
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.transpose(1, 0, 2),
    6: lambda rgb: rgb.transpose(1, 0, 2)[:, ::-1],
    7: lambda rgb: rgb.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda rgb: rgb.transpose(1, 0, 2)[::-1],
}
_ORIENTATION_TAG = 0x0112

_BITS_PER_SAMPLE, _PHOTOMETRIC, _FILL_ORDER, _PLANAR, _COLOUR_MAP, _SAMPLE_FORMAT = 258, 262, 266, 284, 320, 339
_SEPARATE, _SIGNED = 2, 2
_BITFIELDS = 3  # of a BMP
# Coefficients of luma, subsampling, black and white of each component: what Pillow takes them for, and their defaults.
_YCBCR_READ = {529: (0.299, 0.587, 0.114), 530: (1, 1), 532: (0, 255, 128, 255, 128, 255)}
_YCBCR_DEFAULT = _YCBCR_READ | {530: (2, 2)}


@dataclass(frozen=True)
class PictureFacts:
    """What an image file declares about itself, read from its headers.

    `width` and `height` are in pixels as stored, before the EXIF `orientation` (1..8) is applied. `format` is the real
    one (JPEG, PNG, GIF, WEBP, BMP, TIFF, AVIF, HEIF), whatever the file was called. `mode` is Pillow's.
    `quantization_tables` are a JPEG's tables of 64 steps each in row-major order, luminance first, and empty for other
    formats; `jpeg_quality` (1..100) is what the luminance table comes closest to, None for other formats.
    """

    width: int
    height: int
    format: str
    mode: str
    jpeg_quality: int | None
    orientation: int
    quantization_tables: tuple[tuple[int, ...], ...]


def inspect_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> PictureFacts:
    """What `data` declares about itself, without decoding a pixel.

    A picture whose pixel data breaks off is only found by `decode_rgb`.

    Raises:
        BadImage: `empty`, `truncated` (the headers break off), `unreadable` (no picture, or a damaged one),
            `unsupported` (a picture of a format, or samples of a kind, that is not read), `too-large` (more than
            `max_pixels` declared, or than `MAX_BYTES`), `too-small` (a side under 8 pixels) or `too-complex` (more work
            than any honest file of its kind). The detail names what the file is, where that is known.
    """
    return _facts_of(_open(data).image, max_pixels)


def decode_rgb(data: bytes, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None) -> Pixels:
    """The picture as it should be looked at: uint8 (H, W, 3), sRGB, upright, writable and contiguous.

    The EXIF orientation is applied. Of an animation this is the first frame; grey is repeated in three channels;
    samples of more than 8 bits keep their highest 8 (scaled, not clipped); alpha is composited on white, the background
    on which a browser would show it. Colours are sRGB where the file says nothing, else converted by its profile
    (`srgb_conversion`); CMYK without a profile is taken for its complement.

    What damages no pixel is passed over: odd metadata, missing end markers, what is appended. A JPEG without its end
    marker is read where its pixels are all there: a run of `RESERVED_BYTES` equal bytes at its end is none of them.

    With `at_least` a JPEG comes at a half, a quarter or an eighth of its size (rounded up), the smallest of them whose
    shorter side has so many pixels: the decoder then computes fewer. CMYK and other formats come as they are.

    The worst files of 100 megapixels took 22 s of one core (run lengths of a BMP) and 18 s (a progressive JPEG of 100
    scans, 1.2 MB), others 1 to 7 s, and a profile 6 s more (13 s for inks); and 2.8 GB of memory beside the file (WebP
    that is decoded twice because of its end), 1.9 GB (PNG of 16 bits with a transparent colour), 1.6 GB (other PNG,
    TIFF), 1.2 GB (AVIF) and 0.6 GB (JPEG). A picture of one megapixel takes a hundredth. An AVIF
    may hold more pixels than it declares, up to libavif's own limit of 268 megapixels: 9 s.

    Raises:
        BadImage: as `inspect_picture`; `truncated` also where the pixel data break off, `unreadable` also where they
            are damaged or of a kind without a defined range (32-bit integers, floating point); `too-complex` also for
            a JPEG of more than `MAX_SCANS`.
    """
    file = _open(data)
    facts = _facts_of(file.image, max_pixels)
    rgb = _decode_plain_jpeg(file, facts, at_least) if facts.format == "JPEG" else None
    if rgb is None:
        rgb = _load_as_rgb(file)
        # Pillow says nothing of what decoders warn of. Bytes after the last pixel are none of a picture's.
        if (file.filled and not _are_pixels_of(file, file.filled, rgb)) or (
            file.spoilt and _are_pixels_of(file, file.spoilt, rgb)
        ):
            raise BadImage("truncated", "the pixels break off")
    # Pillow turns a TIFF upright while loading it.
    if facts.format != "TIFF" and facts.orientation in _UPRIGHT:
        rgb = _UPRIGHT[facts.orientation](rgb)
    return np.ascontiguousarray(rgb)


def estimate_jpeg_quality(luma_table: Sequence[int]) -> int:
    """The quality 1..100 at which the IJG's standard luminance table comes closest (least absolute difference).

    `luma_table`: 64 quantisation steps in row-major order. Exact for the tables that libjpeg makes; of equally near
    qualities the higher one.
    """
    distances = np.abs(_standard_luma_tables() - np.asarray(luma_table, dtype=np.int64)).sum(axis=1)
    return 100 - int(np.argmin(distances[::-1]))


def encode_jpeg(rgb: Pixels, quality: int, subsampling: str = "420") -> bytes:
    """`rgb`, uint8 (H, W, 3), as baseline JPEG at the IJG `quality` 1..100, chroma subsampled "420", "422" or "444"."""
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must lie in 1..100, got {quality}")
    pixels = np.ascontiguousarray(rgb)
    encoded: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling=subsampling)
    return encoded


def decode_own_jpeg(encoded: bytes) -> Pixels:
    """`decode_rgb` of what `encode_jpeg` made: the same pixels, without asking what a stranger's file needs asking."""
    rgb: Pixels = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
    return rgb


def encode_png(rgb: Pixels) -> bytes:
    """`rgb`, uint8 (H, W, 3), as PNG without loss.

    At zlib's fastest level: a third of the time of Pillow's default for 4 % more bytes (photographs of 320x320).
    """
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def thumbnail32(rgb: Pixels) -> Thumbnail:
    """The picture's luma (ITU-R BT.601), antialiased down to float32 (32, 32) in 0..255, aspect ratio not kept."""
    luma = Image.fromarray(rgb).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    return np.array(luma, dtype=np.float32)


def perceptual_hash(rgb: Pixels) -> int:
    """The 64-bit DCT hash of uint8 (H, W, 3): near-duplicates differ in few bits (Zauner 2010, section 3.2.1).

    Bit (u, v) of the 8x8 lowest frequencies of the 32x32 luma thumbnail says whether that coefficient lies above their
    median; row-major, most significant bit first. `f"{hash:016x}"` is its text form, `int(text, 16)` the way back.
    """
    return perceptual_hash_of_thumbnail(thumbnail32(rgb))


def perceptual_hash_of_thumbnail(thumbnail: Thumbnail) -> int:
    """`perceptual_hash` of a picture whose `thumbnail32` is at hand."""
    low = _LOW_COSINES @ thumbnail.astype(np.float64) @ _LOW_COSINES.T  # (8, 8)
    # Rounded, so that in a flat picture, where all but one coefficient are zero, no bit hangs on float noise.
    low = np.round(low, 3)
    bits = np.packbits(low > np.median(low))
    return int.from_bytes(bits.tobytes(), "big")


def hash_text(phash: int) -> str:
    """A 64-bit hash as 16 hexadecimal digits, the form in which shards keep it."""
    return f"{phash:016x}"


def hamming(a: int, b: int) -> int:
    """The number of bits, 0..64, in which two hashes differ."""
    return (a ^ b).bit_count()


def thumbnail_correlation(a: Thumbnail, b: Thumbnail) -> float:
    """Pearson's correlation, -1..1, of two thumbnails.

    A flat thumbnail has no correlation; two of them count as 1 where they are of the same grey within one level, and
    all other pairs with a flat one as 0.
    """
    x = a.astype(np.float64).ravel()
    y = b.astype(np.float64).ravel()
    x_centred, y_centred = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x_centred @ x_centred) * (y_centred @ y_centred)))
    if norm == 0.0:
        return 1.0 if np.abs(x - y).max() <= 1.0 else 0.0
    return float(np.clip((x_centred @ y_centred) / norm, -1.0, 1.0))


def are_duplicates(hash_a: int, thumbnail_a: Thumbnail, hash_b: int, thumbnail_b: Thumbnail) -> bool:
    """Whether two pictures are one: hashes at most 4 bits apart, and thumbnails that correlate at 0.98 or more."""
    if hamming(hash_a, hash_b) > DUPLICATE_MAX_DISTANCE:
        return False
    return thumbnail_correlation(thumbnail_a, thumbnail_b) >= DUPLICATE_MIN_CORRELATION


@dataclass(frozen=True)
class _File:
    """`image`: its headers, parsed. `data`: what decoders get of it. The others as in `Parts`."""

    image: ImageFile.ImageFile
    data: bytes
    profiles: tuple[bytes, ...]
    filled: bytes
    spoilt: bytes
    clear: bytes


def _open(data: bytes) -> _File:
    """Parse the headers with the plugin that the first bytes call for.

    `Image.open` is avoided: it tries every plugin that Pillow has (PostScript among them, which starts a program), and
    checks the size against a limit that is global to the process, with a warning.
    """
    if not data:
        raise BadImage("empty", "no bytes")
    if len(data) > MAX_BYTES:
        raise BadImage("too-large", f"{len(data)} bytes, more than {MAX_BYTES}")
    plugin, parts_of = _reader_for(data)
    if plugin is TiffImageFile:
        _refuse_large_directories(data)
    parts = parts_of(data)
    stream = _Stream(parts.data)
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
        reason = "truncated" if ran_out or _speaks_of_truncation(error) else "unreadable"
        raise BadImage(reason, str(error)) from error
    if parts.exif:
        image.info["exif"] = parts.exif
    profiles = parts.profiles or _declared_profiles(image, data)
    return _File(image, parts.data, profiles, parts.filled, parts.spoilt, parts.clear)


class _Stream(io.BytesIO):
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
    is_plain = set(tags.get(_BITS_PER_SAMPLE, (1,))) == {8} and tags.get(_FILL_ORDER, 1) == 1
    if image.mode == "L" and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        kind = "signed samples"
    elif has_planes and by_libtiff and image.mode in ("LA", "La", "PA"):
        kind = "separate planes of grey or a palette, and alpha"
    # Of what a plane's samples are only the first letter is heeded.
    elif has_planes and not by_libtiff and (not is_plain or _is_white_zero(image)):
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


_Plugin = Callable[[io.BytesIO], ImageFile.ImageFile]


def _reader_for(data: bytes) -> tuple[_Plugin, Callable[[bytes], Parts]]:
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
def _heif_plugin() -> _Plugin | None:
    """The plugin of the extra `heic`, None where that is not installed."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        return None
    plugin: _Plugin = HeifImageFile
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


def _facts_of(image: ImageFile.ImageFile, max_pixels: int) -> PictureFacts:
    try:
        width, height = _stored_size(image)
        orientation = _orientation(image)
    except Exception as error:  # as in _open: tags of hostile bytes
        raise BadImage("unreadable", str(error)) from error
    if width * height > max_pixels:
        raise BadImage("too-large", f"{width}x{height} declared, more than {max_pixels} pixels")
    if min(width, height) < MIN_SIDE:
        raise BadImage("too-small", f"{width}x{height}, a side under {MIN_SIDE} pixels")
    tables = _quantization_tables(image)
    return PictureFacts(
        width=width,
        height=height,
        format=str(image.format),
        mode=image.mode,
        jpeg_quality=estimate_jpeg_quality(tables[0]) if tables else None,
        orientation=orientation,
        quantization_tables=tables,
    )


def _stored_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    if isinstance(image, TiffImageFile):  # whose `size` is that of the upright picture
        return int(image.tag_v2[256]), int(image.tag_v2[257])
    return image.size


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 where there is none or none that is defined."""
    if isinstance(image, TiffImageFile):
        value = image.tag_v2.get(_ORIENTATION_TAG, 1)
    else:
        # Not `getexif()`: for a PNG it decodes the whole picture in search of a late chunk.
        exif, data = Image.Exif(), image.info.get("exif", b"")
        try:
            exif.load(data if len(data) <= MAX_EXIF_BYTES else b"")
            value = exif.get(_ORIENTATION_TAG, 1)
        # Broken EXIF data say nothing; the picture itself may be sound, and every viewer shows it unrotated.
        except (SyntaxError, OSError, ValueError, LookupError, TypeError, OverflowError, struct.error):
            value = 1
    return int(value) if value in _UPRIGHT else 1


def _quantization_tables(image: ImageFile.ImageFile) -> tuple[tuple[int, ...], ...]:
    """A JPEG's tables in the order in which its components (luma first) name them, each once."""
    if not isinstance(image, JpegImageFile):
        return ()
    table_ids = dict.fromkeys(component[3] for component in image.layer)
    missing = [table_id for table_id in table_ids if table_id not in image.quantization]
    if missing or not table_ids:
        raise BadImage("unreadable", f"JPEG without its quantisation tables {missing}")
    return tuple(tuple(image.quantization[table_id]) for table_id in table_ids)


def _decode_plain_jpeg(file: _File, facts: PictureFacts, at_least: int | None) -> Pixels | None:
    """A grey or YCbCr JPEG by simplejpeg (three times as fast as Pillow); None for those that Pillow has to read."""
    data = file.data
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        # The limits were checked on what Pillow's parser found, which damaged segments lead elsewhere than this one.
        if (width, height) != (facts.width, facts.height):
            raise BadImage("unreadable", f"declares both {facts.width}x{facts.height} and {width}x{height}")
        if colorspace not in ("YCbCr", "Gray") or facts.mode not in ("L", "RGB"):
            return None
        least_height, least_width = _reduced(height, width, at_least)
        rgb: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=least_height, min_width=least_width)
    except ValueError as error:
        # Of the file, or of the data between two markers, where the end marker comes before the last pixel.
        if "premature end of" in str(error).lower():
            raise BadImage("truncated", str(error)) from error
        if "corrupt jpeg data" in str(error).lower() and "extraneous bytes" not in str(error).lower():
            raise BadImage("truncated" if file.filled else "unreadable", str(error)) from error
        # Stray bytes between segments, odd subsampling: harmless, and Pillow reads it, or says why not.
        return None
    convert = srgb_conversion(file.profiles, facts.mode)
    if convert is None:
        return rgb
    return np.array(_as_rgb(convert(Image.fromarray(rgb if facts.mode == "RGB" else rgb[:, :, 0]))))


def _are_pixels_of(file: _File, data: bytes, rgb: Pixels) -> bool:
    """Whether `data` in place of the file's has these pixels; the image of the file is given up for it."""
    file.image.close()
    plugin, _ = _reader_for(data)
    try:
        return np.array_equal(rgb, _load_as_rgb(replace(file, image=plugin(_Stream(data)), data=data)))
    except Exception:  # as in _open: decoders of bytes that nobody wrote
        return False


# libjpeg can decode at any eighth of the size, but only these are faster than decoding in full.
_REDUCTIONS = (8, 4, 2)


def _reduced(height: int, width: int, at_least: int | None) -> tuple[int, int]:
    """Height and width of the smallest reduction whose shorter side has `at_least` pixels; the picture's own if none.

    libjpeg rounds up.
    """
    for factor in _REDUCTIONS if at_least is not None else ():
        reduced = -(-height // factor), -(-width // factor)
        if at_least is not None and min(reduced) >= at_least:
            return reduced
    return height, width


def _load_as_rgb(file: _File) -> Pixels:
    """The pixels as stored (a TIFF's upright), without what `decode_rgb` does of its own."""
    covered = file.image.tile[0].extents if file.image.tile else None
    try:
        file.image.load()
        is_clear = _is_clear(file) if file.clear else None
        rgb = np.array(_to_rgb(file.image, file.profiles))
    except BadImage:
        raise
    except Exception as error:  # as in _open: decoders of hostile bytes
        raise BadImage("truncated" if _speaks_of_truncation(error) else "unreadable", str(error)) from error
    if is_clear is not None:
        np.copyto(rgb, 255, where=is_clear[:, :, None])
    if isinstance(file.image, GifImageFile) and covered is not None:
        left, top, right, bottom = covered  # by the first frame, of a canvas that is clear around it
        rgb[:top] = rgb[bottom:] = 255
        rgb[:, :left] = rgb[:, right:] = 255
    return rgb


def _is_clear(file: _File) -> npt.NDArray[np.bool_]:
    """Where a PNG has the one grey or colour that is transparent (PNG, third edition, 11.3.1.1): bool (H, W).

    Pillow compares that of 2 and 4 bits with samples that it has scaled, and that of 16 bits with high bytes.
    """
    bits = file.data[24]
    samples = np.asarray(file.image)
    # Of the two bytes that a sample always has here, those beyond its bits mean nothing.
    clear = np.frombuffer(file.clear, dtype=">u2") & (2**bits - 1)
    if file.image.mode == "RGB":
        is_clear = _is_colour(samples, clear >> 8 if bits == 16 else clear)
        if bits == 16:
            low = PngImageFile(_Stream(file.data))
            low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]  # of two bytes the other one
            is_clear &= _is_colour(np.asarray(low), clear & 255)
        return is_clear
    scale = 255 // (2**bits - 1) if bits < 8 and file.image.mode == "L" else 1
    return samples == clear[0] * scale


def _is_colour(rgb: Pixels, colour: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    # Channel by channel, which takes the least memory.
    red, green, blue = (rgb[:, :, channel] == level for channel, level in enumerate(colour))
    return red & green & blue


_GREY_MODES = frozenset({"1", "L", "LA"})


def _to_rgb(image: Image.Image, profiles: Sequence[bytes]) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _in_srgb(Image.fromarray(_high_bits(image)), profiles)
    if image.mode in ("I", "F"):
        raise BadImage("unreadable", f"pixels of mode {image.mode} have no declared range")
    if not image.has_transparency_data:
        return _in_srgb(image, profiles)
    # Multiplied by its alpha, which is undone on this way alone; and palettes, of which Pillow warns on the direct one.
    image = image.convert("LA") if image.mode == "La" else image
    image = image.convert("RGBA") if image.mode in ("P", "PA") else image
    if isinstance(image, BmpImageFile) and image.getextrema()[-1] == (0, 0):
        return _in_srgb(image.convert("RGB"), profiles)  # all clear: what browsers take for no alpha at all
    rgb = _in_srgb(image.convert("L" if image.mode in _GREY_MODES else "RGB"), profiles)
    rgba = rgb.convert("RGBA")
    rgba.putalpha(image.convert("RGBA").getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _high_bits(image: Image.Image) -> Pixels:
    """Grey of more than eight bits as its highest eight: Pillow's own conversion would clip at 255."""
    samples = np.array(image).astype(np.uint16)
    if not isinstance(image, TiffImageFile):
        return (samples >> 8).astype(np.uint8)
    grey = (samples >> (image.tag_v2[_BITS_PER_SAMPLE][0] - 8)).astype(np.uint8)
    # Of fewer bits Pillow turns such samples over itself.
    return ~grey if _is_white_zero(image) else grey


def _is_white_zero(image: TiffImageFile) -> bool:
    return image.tag_v2.get(_PHOTOMETRIC, 0) == 0  # as Pillow has it where the tag is missing


def _in_srgb(colours: Image.Image, profiles: Sequence[bytes]) -> Image.Image:
    """An opaque picture as RGB; its own pixels may be written to."""
    if colours.mode not in ("L", "CMYK"):
        colours = colours.convert("L") if colours.mode == "1" else _as_rgb(colours)
    convert = srgb_conversion(profiles, colours.mode)
    return _as_rgb(colours if convert is None else convert(colours))


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _speaks_of_truncation(error: BaseException) -> bool:
    if isinstance(error, EOFError | struct.error) or isinstance(error.__cause__, EOFError | struct.error):
        return True
    return any(word in str(error).lower() for word in ("truncated", "incomplete", "unexpected end", "premature end"))


@functools.cache
def _standard_luma_tables() -> npt.NDArray[np.int64]:
    """libjpeg's luminance tables at quality 1..100 (`jpeg_quality_scaling`): (100, 64), within baseline's 1..255."""
    qualities = np.arange(1, 101)
    scales = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    return np.clip((_STANDARD_LUMA_TABLE * scales[:, None] + 50) // 100, 1, 255)


def _low_cosines() -> npt.NDArray[np.float64]:
    """The eight lowest basis functions of the orthonormal DCT-II of length 32: (8, 32)."""
    frequency, position = np.arange(8)[:, None], np.arange(32)[None, :]
    basis = np.sqrt(2 / 32) * np.cos(np.pi * frequency * (2 * position + 1) / 64)
    basis[0] = np.sqrt(1 / 32)
    return basis


_LOW_COSINES = _low_cosines()
