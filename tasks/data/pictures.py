"""Image bytes that nobody vouches for: what they declare, and their pixels.

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
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from storage.errors import BadImage
from tasks.data.colours import srgb_conversion
from tasks.data.file_headers import (
    BITS_PER_SAMPLE,
    MAX_PIXELS,
    LimitedStream,
    OpenedFile,
    is_white_zero,
    open_picture,
    reader_for,
    speaks_of_truncation,
)

Pixels = npt.NDArray[np.uint8]
MIN_SIDE = 8
MAX_EXIF_BYTES = 1_000_000  # a JPEG's have at most 65,533

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

# Annex K.2, that of its chrominance: 99 but in its first corner.
_STANDARD_CHROMA_TABLE = np.full((8, 8), 99, dtype=np.int64)
_STANDARD_CHROMA_TABLE[:4, :4] = [(17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99)]

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


@dataclass(frozen=True)
class PictureFacts:
    """What an image file declares about itself, read from its headers.

    `width` and `height` are in pixels as stored, before the EXIF `orientation` (1..8) is applied. `format` is the real
    one (JPEG, PNG, GIF, WEBP, BMP, TIFF, AVIF, HEIF), whatever the file was called. `mode` is Pillow's.
    `quantization_tables` are a JPEG's tables of 64 steps each in row-major order, luminance first, and empty for other
    formats; `jpeg_quality` (1..100) is what the luminance table comes closest to, None for other formats.
    `has_own_tables` says of a JPEG whether it has others than libjpeg makes for that quality.
    """

    width: int
    height: int
    format: str
    mode: str
    jpeg_quality: int | None
    orientation: int
    quantization_tables: tuple[tuple[int, ...], ...]

    @property
    def has_own_tables(self) -> bool:
        if self.jpeg_quality is None:
            return False
        luma, *others = self.quantization_tables
        # In colour all components may share a table, where libjpeg takes two.
        chroma = others or ([] if self.mode == "L" else [luma])
        standard_luma, standard_chroma = (
            tuple(tables[self.jpeg_quality - 1].tolist())
            for tables in (_standard_luma_tables(), _standard_chroma_tables())
        )
        return luma != standard_luma or any(table != standard_chroma for table in chroma)


def inspect_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> PictureFacts:
    """What `data` declares about itself, without decoding a pixel.

    A picture whose pixel data breaks off is only found by `decode_rgb`.

    Raises:
        BadImage: `empty`, `truncated` (the headers break off), `unreadable` (no picture, or a damaged one),
            `unsupported` (a picture of a format, or samples of a kind, that is not read), `too-large` (more than
            `max_pixels` declared, or than `MAX_BYTES`), `too-small` (a side under 8 pixels) or `too-complex` (more work
            than any honest file of its kind). The detail names what the file is, where that is known.
    """
    return _facts_of(open_picture(data).image, max_pixels)


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
    file = open_picture(data)
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


def chroma_subsampling(data: bytes) -> str:
    """How a JPEG file samples its chroma: "444", "422" or "420", which also stands for grey and unusual ones."""
    from PIL.JpegImagePlugin import get_sampling

    return {0: "444", 1: "422"}.get(get_sampling(open_picture(data).image), "420")


def has_own_tables(data: bytes) -> bool:
    """Whether a JPEG file was quantised by other tables than libjpeg's, as cameras and platforms have them."""
    return inspect_picture(data).has_own_tables


def estimate_jpeg_quality(luma_table: Sequence[int]) -> int:
    """The quality 1..100 at which the IJG's standard luminance table comes closest (least absolute difference).

    `luma_table`: 64 quantisation steps in row-major order. Exact for the tables that libjpeg makes; of equally near
    qualities the higher one.
    """
    distances = np.abs(_standard_luma_tables() - np.asarray(luma_table, dtype=np.int64)).sum(axis=1)
    return 100 - int(np.argmin(distances[::-1]))


def _facts_of(image: ImageFile.ImageFile, max_pixels: int) -> PictureFacts:
    try:
        width, height = _stored_size(image)
        orientation = _orientation(image)
    except Exception as error:  # as in open_picture: tags of hostile bytes
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


def _decode_plain_jpeg(file: OpenedFile, facts: PictureFacts, at_least: int | None) -> Pixels | None:
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


def _are_pixels_of(file: OpenedFile, data: bytes, rgb: Pixels) -> bool:
    """Whether `data` in place of the file's has these pixels; the image of the file is given up for it."""
    file.image.close()
    plugin, _ = reader_for(data)
    try:
        return np.array_equal(rgb, _load_as_rgb(replace(file, image=plugin(LimitedStream(data)), data=data)))
    except Exception:  # as in open_picture: decoders of bytes that nobody wrote
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


def _load_as_rgb(file: OpenedFile) -> Pixels:
    """The pixels as stored (a TIFF's upright), without what `decode_rgb` does of its own."""
    covered = file.image.tile[0].extents if file.image.tile else None
    try:
        file.image.load()
        is_clear = _is_clear(file) if file.clear else None
        rgb = np.array(_to_rgb(file.image, file.profiles))
    except BadImage:
        raise
    except Exception as error:  # as in open_picture: decoders of hostile bytes
        raise BadImage("truncated" if speaks_of_truncation(error) else "unreadable", str(error)) from error
    if is_clear is not None:
        np.copyto(rgb, 255, where=is_clear[:, :, None])
    if isinstance(file.image, GifImageFile) and covered is not None:
        left, top, right, bottom = covered  # by the first frame, of a canvas that is clear around it
        rgb[:top] = rgb[bottom:] = 255
        rgb[:, :left] = rgb[:, right:] = 255
    return rgb


def _is_clear(file: OpenedFile) -> npt.NDArray[np.bool_]:
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
            low = PngImageFile(LimitedStream(file.data))
            low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]  # of two bytes the other one
            is_clear &= _is_colour(np.asarray(low), clear & 255)
        return is_clear
    scale = 255 // (2**bits - 1) if bits < 8 and file.image.mode == "L" else 1
    equal: npt.NDArray[np.bool_] = samples == clear[0] * scale
    return equal


def _is_colour(rgb: Pixels, colour: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    # Channel by channel, which takes the least memory.
    red, green, blue = (rgb[:, :, channel] == level for channel, level in enumerate(colour))
    is_colour: npt.NDArray[np.bool_] = red & green & blue
    return is_colour


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
    grey: npt.NDArray[np.uint8] = (samples >> (image.tag_v2[BITS_PER_SAMPLE][0] - 8)).astype(np.uint8)
    # Of fewer bits Pillow turns such samples over itself.
    return ~grey if is_white_zero(image) else grey


def _in_srgb(colours: Image.Image, profiles: Sequence[bytes]) -> Image.Image:
    """An opaque picture as RGB; its own pixels may be written to."""
    if colours.mode not in ("L", "CMYK"):
        colours = colours.convert("L") if colours.mode == "1" else _as_rgb(colours)
    convert = srgb_conversion(profiles, colours.mode)
    return _as_rgb(colours if convert is None else convert(colours))


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


@functools.cache
def _standard_luma_tables() -> npt.NDArray[np.int64]:
    """libjpeg's luminance tables at quality 1..100 (`jpeg_quality_scaling`): (100, 64), within baseline's 1..255."""
    return _scaled(_STANDARD_LUMA_TABLE)


@functools.cache
def _standard_chroma_tables() -> npt.NDArray[np.int64]:
    """The same of chrominance."""
    return _scaled(_STANDARD_CHROMA_TABLE.ravel())


def _scaled(table: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    qualities = np.arange(1, 101)
    scales = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    return np.clip((table * scales[:, None] + 50) // 100, 1, 255)
