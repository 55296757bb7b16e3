"""Picture files of every accepted kind, and seeded damage to them; as a program, it decodes the damaged ones.

    python -m tests.property.image_mutations FIRST COUNT JOURNAL [PICTURE ...]

decodes the inputs FIRST .. FIRST + COUNT - 1 and prints what became of them as JSON. It is a process of its own, so
that a crash or a hang is seen for what it is, and memory is that of the decoder alone: the input at work stands in
JOURNAL.
"""

import faulthandler
import io
import json
import random
import resource
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, ImageCms

from storage.errors import BadImage
from tasks.data.pictures import MIN_SIDE, decode_rgb, inspect_picture
from tests.unit import icc_profiles

# A mutated header declares any size: small limits keep ten thousands of inputs quick. What the limits mean is the same.
FUZZED_PIXELS = 1_000_000
LONGEST_S = 60
REASONS = frozenset({"empty", "truncated", "unreadable", "unsupported", "too-large", "too-small", "too-complex"})

WIDTH, HEIGHT = 40, 29

# Values at which parsers turn: nothing, signs, what overflows in 8, 16 and 32 bits.
TURNING = (0, 1, 2, 3, 7, 8, 0x10, 0x40, 0x7F, 0x80, 0xFE, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF)
TURNING_32 = (*TURNING, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """An image as a file of a format."""
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def seed_files() -> dict[str, bytes]:
    """A sound small picture of every kind that the decoder accepts, by a name."""
    small = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    rgb = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    grey, cmyk, palette = rgb.convert("L"), rgb.convert("CMYK"), rgb.quantize(16)
    rgba = rgb.copy()
    rgba.putalpha(grey)
    frames = [rgb, rgb.rotate(90), rgb.rotate(180)]
    sixteen = Image.fromarray(np.array(grey, dtype=np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile[:24] + bytes(12) + profile[36:]  # without the moment at which it was made
    p3 = icc_profiles.rgb_profile(icc_profiles.DISPLAY_P3, icc_profiles.srgb_curve())
    press = icc_profiles.cmyk_profile()
    tables = icc_profiles.grey_profile(icc_profiles.sampled_curve(np.linspace(0, 1, 64)))
    animated = {"save_all": True, "append_images": frames[1:], "duration": 50}
    return {
        "jpeg": saved(rgb, "JPEG", quality=85),
        "jpeg-progressive": saved(rgb, "JPEG", quality=60, progressive=True),
        "jpeg-444-restarts": saved(rgb, "JPEG", subsampling=0, restart_marker_blocks=2),
        "jpeg-grey": saved(grey, "JPEG"),
        "jpeg-grey-progressive": saved(grey, "JPEG", progressive=True),
        "jpeg-cmyk": saved(cmyk, "JPEG"),
        "jpeg-cmyk-progressive": saved(cmyk, "JPEG", progressive=True),
        "jpeg-exif-icc": saved(rgb, "JPEG", exif=exif, icc_profile=profile, comment=b"a comment"),
        "jpeg-p3": saved(rgb, "JPEG", icc_profile=p3),
        "jpeg-grey-icc": saved(grey, "JPEG", icc_profile=tables),
        "jpeg-cmyk-icc": saved(cmyk, "JPEG", icc_profile=press),
        "jpeg-without-end": saved(rgb, "JPEG")[:-2],
        "jpeg-cmyk-without-end": saved(cmyk, "JPEG")[:-2],
        "jpeg-turbo": simplejpeg.encode_jpeg(np.array(rgb), quality=30, colorsubsampling="422"),
        "png": saved(rgb, "PNG"),
        "png-grey": saved(grey, "PNG"),
        "png-16": saved(sixteen, "PNG"),
        "png-palette": saved(palette, "PNG", transparency=3),
        "png-bilevel": saved(rgb.convert("1"), "PNG"),
        "png-alpha-exif-icc": saved(rgba, "PNG", exif=exif, icc_profile=profile),
        "png-grey-alpha": saved(rgba.convert("LA"), "PNG"),
        "png-p3": saved(rgb, "PNG", icc_profile=p3),
        "png-gamma": with_chunk(
            saved(rgb, "PNG"), b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
        ),
        "png-code-points": with_chunk(saved(rgba, "PNG"), b"cICP", bytes([12, 13, 0, 1])),
        "png-interlaced": interlaced_png(np.array(rgb)),
        "apng": saved(rgb, "PNG", **animated),
        "webp": saved(rgb, "WEBP", quality=50, exif=exif, icc_profile=profile),
        "webp-lossless": saved(rgb, "WEBP", lossless=True),
        "webp-alpha": saved(rgba, "WEBP", quality=70),
        "webp-animated": saved(rgb, "WEBP", **animated),
        "avif": saved(rgb, "AVIF", exif=exif, icc_profile=p3),
        "avif-alpha": saved(rgba, "AVIF", quality=100, subsampling="4:4:4"),
        "avif-animated": without_times(saved(rgb, "AVIF", **animated)),
        "gif": saved(palette, "GIF"),
        "gif-interlaced": saved(palette, "GIF", interlace=1, comment=b"a comment" * 40),
        "gif-animated": saved(rgb, "GIF", **animated),
        "bmp": saved(rgb, "BMP"),
        "bmp-palette": saved(palette, "BMP"),
        "bmp-bilevel": saved(rgb.convert("1"), "BMP"),
        "bmp-alpha": saved(rgba, "BMP"),
        "bmp-rle8": run_length_bmp(np.array(palette)),
        "tiff": saved(rgb, "TIFF", exif=exif),
        "tiff-16": saved(sixteen, "TIFF"),
        "tiff-lzw": saved(rgb, "TIFF", compression="tiff_lzw"),
        "tiff-deflate": saved(rgba, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-packbits": saved(grey, "TIFF", compression="packbits"),
        "tiff-jpeg": saved(rgb, "TIFF", compression="jpeg"),
        "tiff-group4": saved(rgb.convert("1"), "TIFF", compression="group4"),
        "tiff-cmyk": saved(cmyk, "TIFF"),
        "tiff-icc": saved(rgb, "TIFF", icc_profile=p3),
        "tiff-big": saved(rgb, "TIFF", big_tiff=True, compression="tiff_lzw"),
        "tiff-tiled": saved(rgb, "TIFF", compression="tiff_lzw", tiffinfo={322: 16, 323: 16}),
        "tiff-pages": saved(rgb, "TIFF", save_all=True, append_images=frames[1:]),
    }


def interlaced_png(rgb: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as PNG in Adam7 order, which Pillow reads and does not write."""
    height, width, _ = rgb.shape
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    lines = b""
    for x, y, step_x, step_y in passes:
        for row in rgb[y::step_y, x::step_x]:
            lines += b"\0" + row.tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, body) for name, body in chunks)


def png_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """A PNG with a gamma and another chunk behind its header."""
    return png[:33] + png_chunk(b"gAMA", struct.pack(">I", 50_000)) + png_chunk(name, body) + png[33:]


def without_times(sequence: bytes) -> bytes:
    """An AVIF sequence without the moment at which it was made (ISO/IEC 14496-12, 8.2.2, 8.3.2 and 8.4.2)."""
    data = bytearray(sequence)
    for name in (b"mvhd", b"tkhd", b"mdhd"):
        place = data.index(name) + 4
        size = 16 if data[place] == 1 else 8
        data[place + 4 : place + 4 + size] = bytes(size)
    return bytes(data)


def run_length_bmp(indices: np.ndarray) -> bytes:
    """uint8 (H, W) of palette indices below 16 as a BMP with run lengths, which Pillow reads and does not write."""
    height, width = indices.shape
    body = b""
    for row in indices[::-1]:
        body += b"".join(bytes([1, int(value)]) for value in row) + b"\0\0"
    body += b"\0\1"
    palette = b"".join(bytes([value * 16, value * 8, 255 - value * 16, 0]) for value in range(16)) + bytes(4 * 240)
    offset = 14 + 40 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", offset + len(body), 0, 0, offset)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0) + palette + body


def mutated(number: int, files: Sequence[bytes]) -> bytes:
    """The input of a number: one of the files, damaged in one to six places; equal numbers give equal inputs."""
    draw = random.Random(number)
    data = bytearray(draw.choice(files))
    # Headers decide what is done with the rest, so half of the damage is there.
    near = draw.random() < 0.5
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        place = draw.randrange(min(len(data), 96) if near else len(data)) if data else 0
        draw.choice(DAMAGES)(data, place, draw, files)
    if data[:8] == b"\x89PNG\r\n\x1a\n" and draw.random() < 0.7:
        mend_checksums(data)
    return bytes(data)


Damage = Callable[[bytearray, int, random.Random, Sequence[bytes]], None]


def flip_bit(data: bytearray, place: int, draw: random.Random, files: Sequence[bytes]) -> None:
    if data:
        data[place] ^= 1 << draw.randrange(8)


def set_byte(data: bytearray, place: int, draw: random.Random, files: Sequence[bytes]) -> None:
    data[place : place + 1] = bytes([draw.choice(TURNING) & 0xFF if draw.random() < 0.5 else draw.randrange(256)])


def set_number(data: bytearray, place: int, draw: random.Random, files: Sequence[bytes]) -> None:
    size = draw.choice((2, 4))
    value = draw.choice(TURNING_32) & (2 ** (8 * size) - 1)
    data[place : place + size] = value.to_bytes(size, draw.choice(("big", "little")))


def cut_out(data: bytearray, place: int, draw: random.Random, files: Sequence[bytes]) -> None:
    del data[place : place + draw.randint(1, 40)]


def repeat(data: bytearray, place: int, draw: random.Random, files: Sequence[bytes]) -> None:
    piece = bytes(data[place : place + draw.randint(1, 64)])
    data[place:place] = piece * draw.choice((1, 1, 2, 50))


def insert(data: bytearray, place: int, draw: random.Random, files: Sequence[bytes]) -> None:
    data[place:place] = draw.randbytes(draw.randint(1, 40))


def overwrite(data: bytearray, place: int, draw: random.Random, files: Sequence[bytes]) -> None:
    size = draw.randint(1, 60)
    data[place : place + size] = bytes([draw.choice((0, 255))]) * size if draw.random() < 0.5 else draw.randbytes(size)


def cut_off(data: bytearray, place: int, draw: random.Random, files: Sequence[bytes]) -> None:
    del data[place:]


def transplant(data: bytearray, place: int, draw: random.Random, files: Sequence[bytes]) -> None:
    other = draw.choice(files)
    start = draw.randrange(len(other))
    data[place : place + draw.choice((0, 60))] = other[start : start + draw.randint(1, 200)]


DAMAGES: tuple[Damage, ...] = (
    *(flip_bit, flip_bit, set_byte, set_byte, set_number, set_number),
    *(cut_out, repeat, insert, overwrite, cut_off, transplant),
)


def mend_checksums(data: bytearray) -> None:
    """Give a PNG's chunks the checksums of what they hold now, so that the damage behind them is looked at."""
    place = 8
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        end = place + 8 + size
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(bytes(data[place + 4 : end])))
        place = end + 4


def outcome(data: bytes) -> str:
    """`decoded`, or the reason for which a picture is set aside; anything else that happens is an error."""
    reason = None
    try:
        facts = inspect_picture(data, max_pixels=FUZZED_PIXELS)
        rgb = decode_rgb(data, max_pixels=FUZZED_PIXELS)
    except BadImage as error:
        reason = error.reason
    if reason is not None:
        assert reason in REASONS, reason
        return reason
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    sides = (facts.height, facts.width, 3)
    assert rgb.shape in (sides, (sides[1], sides[0], 3)), f"{rgb.shape} decoded, {sides} declared"
    assert rgb.shape[0] * rgb.shape[1] <= FUZZED_PIXELS
    assert min(rgb.shape[:2]) >= MIN_SIDE
    try:
        reduced = decode_rgb(data, max_pixels=FUZZED_PIXELS, at_least=MIN_SIDE)
    except BadImage as error:
        reason = error.reason
    assert reason is None, f"{reason} at a smaller size only"
    assert MIN_SIDE <= min(reduced.shape[:2]) <= min(rgb.shape[:2])
    return "decoded"


def main() -> None:
    """Decode the inputs that the command names."""
    first, count, journal = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    files = [Path(name).read_bytes() for name in sys.argv[4:]] or list(seed_files().values())
    warnings.simplefilter("ignore")  # Pillow's own, as where pictures are decoded in earnest
    outcomes: Counter[str] = Counter()
    slowest = (0.0, -1)
    for data in files:  # what is loaded once, however many pictures follow, is no growth
        assert outcome(data) == "decoded"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    for number in range(first, first + count):
        journal.write_text(str(number))
        faulthandler.dump_traceback_later(LONGEST_S, exit=True)
        started = time.process_time()
        outcomes[outcome(mutated(number, files))] += 1
        slowest = max(slowest, (time.process_time() - started, number))
    faulthandler.cancel_dump_traceback_later()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    said = {"outcomes": outcomes, "slowest_s": slowest[0], "slowest": slowest[1], "grown_bytes": grown}
    print(json.dumps({**said, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
