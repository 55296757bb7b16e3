"""What damages no pixel refuses no picture, and what is no picture is named."""

import io
import struct
import sys
import zlib
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from storage.errors import BadImage
from tasks.data.encoding import encode_jpeg, encode_png
from tasks.data.pictures import PictureFacts, decode_rgb, inspect_picture
from tests.property.image_mutations import png_chunk
from tests.unit.test_pictures import encoded, reason_of, scene, tiff

RGB = scene(56, 72, seed=11)
PICTURE = Image.fromarray(RGB)


def segment(marker: int, body: bytes, length: int | None = None) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body) if length is None else length) + body


def behind_start(jpeg: bytes, *pieces: bytes) -> bytes:
    return jpeg[:2] + b"".join(pieces) + jpeg[2:]


def detail_of(data: bytes) -> str:
    with pytest.raises(BadImage) as caught:
        decode_rgb(data)
    return f"{caught.value.reason}: {caught.value.detail}"


JPEGS = {
    "baseline": encode_jpeg(RGB, 90),
    "progressive": encoded(PICTURE, "JPEG", quality=90, progressive=True),
    "restarts": encoded(PICTURE, "JPEG", quality=90, restart_marker_blocks=3),
    "grey": encoded(PICTURE.convert("L"), "JPEG", quality=90),
    "grey-progressive": encoded(PICTURE.convert("L"), "JPEG", quality=90, progressive=True),
    "cmyk": encoded(PICTURE.convert("CMYK"), "JPEG", quality=90),
    "cmyk-progressive": encoded(PICTURE.convert("CMYK"), "JPEG", quality=90, progressive=True),
    "rgb": encoded(PICTURE, "JPEG", quality=90, keep_rgb=True),
}


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize(
    "tail",
    [b"", b"\xff", b"\xff\xff", b"\0" * 40, b"\0" * 4_000, b"\xff" * 4_000],
    ids=["nothing", "half-a-marker", "fill", "zeros", "reserved", "erased"],
)
def test_a_jpeg_without_its_end_marker_is_whole(kind: str, tail: bytes) -> None:
    np.testing.assert_array_equal(decode_rgb(JPEGS[kind][:-2] + tail), decode_rgb(JPEGS[kind]))


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["breaks-off", "with-an-end-marker"])
def test_a_jpeg_whose_pixels_are_missing_stays_refused(kind: str, end: bytes) -> None:
    if end and kind in ("progressive", "grey-progressive", "cmyk", "cmyk-progressive", "rgb"):
        pytest.skip("a whole file by its own word: what no decoder here tells from an encoder's choice")
    data = JPEGS[kind]
    for cut in range(data.index(b"\xff\xda") + 20, len(data) - 8, 97):
        assert reason_of(data[:cut] + end) == "truncated"


NOISE = np.random.default_rng(3).integers(0, 256, (96, 120, 3), dtype=np.uint8)
PARTLY_WRITTEN = {
    "jpeg": encoded(Image.fromarray(NOISE), "JPEG", quality=95),
    "jpeg-optimised": encoded(Image.fromarray(NOISE), "JPEG", quality=95, optimize=True),
    "jpeg-progressive": encoded(Image.fromarray(NOISE), "JPEG", quality=95, progressive=True),
    "jpeg-cmyk": encoded(Image.fromarray(NOISE).convert("CMYK"), "JPEG", quality=95),
    "jpeg-rgb": encoded(Image.fromarray(NOISE), "JPEG", quality=95, keep_rgb=True),
    "jpeg-restarts": encoded(Image.fromarray(NOISE), "JPEG", quality=95, restart_marker_blocks=3),
    "webp": encoded(Image.fromarray(NOISE), "WEBP", quality=95),
    "webp-lossless": encoded(Image.fromarray(NOISE), "WEBP", lossless=True),
    "webp-animation": encoded(
        Image.fromarray(NOISE), "WEBP", quality=95, save_all=True, append_images=[Image.fromarray(NOISE[::-1])]
    ),
    "avif": encoded(Image.fromarray(NOISE), "AVIF", quality=95),
    "png": encoded(Image.fromarray(NOISE), "PNG"),
    "gif": encoded(Image.fromarray(NOISE).quantize(64), "GIF"),
}


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\xf6"], ids=["zeros", "erased", "formatted"])
@pytest.mark.parametrize("kind", PARTLY_WRITTEN)
def test_space_that_was_reserved_and_never_written_is_no_picture(kind: str, fill: bytes) -> None:
    """What a download leaves that gets its whole size first and then stops."""
    if kind == "webp-lossless" and fill == b"\xf6":
        pytest.skip("noise has codes of eight bits each, and so has this fill: it is read to its end like a picture")
    data = PARTLY_WRITTEN[kind]
    decode_rgb(data)
    # Of the animation the first of two frames.
    for share in (0.1, 0.3, 0.45) if kind == "webp-animation" else (0.3, 0.6, 0.9, 0.95):
        written = int(len(data) * share)
        assert reason_of(data[:written] + fill * (len(data) - written)) in ("truncated", "unreadable")


def test_a_zero_that_is_stuffed_into_a_jpeg_is_none_of_the_space_behind_it() -> None:
    data = PARTLY_WRITTEN["jpeg"]
    scan = data.index(b"\xff\xda")
    stuffed = [place for place in range(scan, len(data) - 1) if data[place : place + 2] == b"\xff\0"]
    assert len(stuffed) > 20
    for place in stuffed[::5]:
        assert reason_of(data[: place + 1] + bytes(len(data))) == "truncated"


@pytest.mark.parametrize("lossless", [True, False])
def test_a_webp_that_is_coded_as_zeros_is_whole(lossless: bool) -> None:
    """Its last zeros are read, where those of space that was only reserved are not."""
    rgb = np.zeros((64, 64, 3) if lossless else (2_500, 2_500, 3), dtype=np.uint8)
    if lossless:
        rgb[:32] = np.random.default_rng(0).integers(0, 256, (32, 64, 3))
    options = {"method": 0, "quality": 0} if lossless else {}
    data = encoded(Image.fromarray(rgb), "WEBP", lossless=lossless, **options)
    assert data.endswith(bytes(256))
    assert np.abs(decode_rgb(data).astype(int) - rgb).max() <= (0 if lossless else 2)


def test_zeros_of_metadata_behind_the_pixels_do_not_make_an_avif_bad() -> None:
    data = encoded(PICTURE, "AVIF", quality=90)
    place = data.index(b"mdat") - 4
    (length,) = struct.unpack_from(">I", data, place)
    assert place + length == len(data)
    longer = data[:place] + struct.pack(">I", length + 1_000) + data[place + 4 :] + bytes(1_000)
    np.testing.assert_array_equal(decode_rgb(longer), decode_rgb(data))


def test_pixels_of_a_png_with_a_wrong_checksum_are_refused() -> None:
    """Pillow does not look at it, nor at that of the deflate stream where all rows came out."""
    data = encode_png(NOISE)
    place = data.index(b"IDAT") + 5_000
    assert reason_of(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]) == "unreadable"
    broken_end = data[:-16] + b"\0\0\0\0" + data[-12:]
    assert reason_of(broken_end) == "unreadable"


@pytest.mark.parametrize("kind", ["progressive", "grey-progressive", "cmyk-progressive"])
def test_a_jpeg_that_lacks_whole_scans_and_its_end_is_refused(kind: str) -> None:
    """Cut between two scans, no decoder finds anything amiss."""
    data = JPEGS[kind]
    scans = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    assert len(scans) > 4
    for before, scan in pairwise(scans):
        tables = data.find(b"\xff\xc4", before, scan)
        assert reason_of(data[: tables if tables > 0 else scan]) == "truncated"


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd tags
@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([segment(0xE1, b"Exif\0\0neither II nor MM")], id="exif-of-no-kind"),
        pytest.param([segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff")], id="exif-that-points-nowhere"),
        pytest.param([segment(0xE1, b"Exif")], id="exif-cut-short"),
        pytest.param([segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmp")], id="xmp-cut-short"),
        pytest.param([segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0")] * 3, id="xmp-many-times"),
        pytest.param([segment(0xE2, b"MPF\0MM\0*\0\0")], id="multi-picture-index-of-nothing"),
        pytest.param([segment(0xE2, b"ICC_PROFILE\0\1\1abc")] * 2, id="profile-twice"),
        pytest.param([segment(0xE2, b"ICC_PROFILE\0\5\2abc")], id="profile-piece-five-of-two"),
        pytest.param([segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\4ab")], id="photoshop-cut-short"),
        pytest.param([segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed")], id="photoshop-cut-shorter"),
        pytest.param([segment(0xE0, b"JFXX\0\x10")], id="jfxx"),
        pytest.param([segment(0xEB, b"JP\1\2\3\4\0\0\0\5jumb")], id="c2pa"),
        pytest.param([segment(0xE5, b"abc", length=0)], id="a-length-of-nothing"),
        pytest.param([segment(0xE5, b"abc", length=2)], id="bytes-beyond-a-length"),
        pytest.param([segment(0xFE, b"a comment \xff\xfe\xff\xd9")], id="comment-with-markers"),
        pytest.param([b"\xff\xff\xff\xff"], id="fill-bytes"),
        pytest.param([b"\xff\xd3\xff\x01"], id="markers-out-of-place"),
    ],
)
@pytest.mark.parametrize("kind", JPEGS)
def test_odd_segments_do_not_make_a_jpeg_bad(kind: str, pieces: list[bytes]) -> None:
    whole = JPEGS[kind]
    np.testing.assert_array_equal(decode_rgb(behind_start(whole, *pieces)), decode_rgb(whole))


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"\0" * 4_000, id="zeros"),
        pytest.param(b"\r\n", id="a-line"),
        pytest.param(encode_jpeg(scene(16, 16), 50), id="another-jpeg"),
        pytest.param(b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 9, id="a-motion-photo"),
        pytest.param(b"\0\0\x01\n\x0e\0\0\0Image_UTC_Data1700000000000SEFHk\0\0\0", id="a-telephones-trailer"),
        pytest.param(b"\xff\xda\xff\xd8\xff\xc0", id="markers"),
        pytest.param(b"PK\3\4" + bytes(range(256)), id="an-archive"),
    ],
)
@pytest.mark.parametrize("kind", JPEGS)
def test_what_is_appended_to_a_jpeg_is_none_of_it(kind: str, tail: bytes) -> None:
    np.testing.assert_array_equal(decode_rgb(JPEGS[kind] + tail), decode_rgb(JPEGS[kind]))


def test_an_orientation_is_found_behind_other_segments() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = behind_start(
        JPEGS["baseline"], segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0"), segment(0xE1, exif.tobytes())
    )
    assert inspect_picture(data[:-2]).orientation == 6
    np.testing.assert_array_equal(decode_rgb(data[:-2]), np.rot90(decode_rgb(JPEGS["baseline"]), -1))


def png_with(before: bytes = b"", after: bytes = b"", end: bytes | None = None) -> bytes:
    whole = encode_png(RGB)
    return whole[:33] + before + whole[33:-12] + after + (whole[-12:] if end is None else end)


def broken(chunk: bytes) -> bytes:
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


LONG_TEXT = b"workflow\0\0" + zlib.compress(b"{}," * 1_000_000)
LONG_INTERNATIONAL = b"prompt\0\1\0\0\0" + zlib.compress(b"{}," * 1_000_000)
FRAME = struct.pack(">IIIIIHHBB", 0, 72, 56, 0, 0, 1, 10, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png_with(before=png_chunk(b"zTXt", LONG_TEXT)), id="long-compressed-text"),
        pytest.param(png_with(before=png_chunk(b"iTXt", LONG_INTERNATIONAL)), id="long-international-text"),
        pytest.param(png_with(after=png_chunk(b"zTXt", LONG_TEXT)), id="long-text-behind-the-pixels"),
        pytest.param(png_with(before=png_chunk(b"tEXt", b"a\0" + bytes(70_000_000))), id="text-of-70-megabytes"),
        pytest.param(png_with(before=png_chunk(b"tEXt", b"exif:Make\0b") * 900), id="nine-hundred-texts"),
        pytest.param(png_with(before=png_chunk(b"zTXt", b"a\0\0not compressed")), id="text-that-is-not-compressed"),
        pytest.param(png_with(before=png_chunk(b"zTXt", b"a\0\7")), id="text-of-an-unknown-method"),
        pytest.param(png_with(before=png_chunk(b"iTXt", b"a")), id="text-cut-short"),
        pytest.param(png_with(before=broken(png_chunk(b"tEXt", b"a\0b"))), id="text-with-a-wrong-checksum"),
        pytest.param(png_with(before=broken(png_chunk(b"iCCP", b"a\0\0b"))), id="profile-with-a-wrong-checksum"),
        pytest.param(png_with(before=png_chunk(b"iCCP", b"a\0\1b")), id="profile-of-an-unknown-method"),
        pytest.param(png_with(before=png_chunk(b"iCCP", b"a")), id="profile-without-a-name"),
        pytest.param(
            png_with(before=png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(5_000_000)))),
            id="profile-beyond-all-sizes",
        ),
        pytest.param(png_with(before=png_chunk(b"pHYs", b"")), id="resolution-of-no-bytes"),
        pytest.param(png_with(before=png_chunk(b"gAMA", b"")), id="gamma-of-no-bytes"),
        pytest.param(png_with(before=png_chunk(b"cHRM", b"abc")), id="chromaticities-cut-short"),
        pytest.param(png_with(before=png_chunk(b"sRGB", b"")), id="srgb-of-no-bytes"),
        pytest.param(png_with(before=png_chunk(b"eXIf", b"nothing")), id="exif-of-no-kind"),
        pytest.param(png_with(before=png_chunk(b"acTL", b"")), id="animation-of-no-bytes"),
        pytest.param(png_with(before=png_chunk(b"acTL", struct.pack(">II", 0, 0))), id="animation-of-no-frames"),
        pytest.param(
            png_with(before=png_chunk(b"acTL", struct.pack(">II", 2, 0)) + png_chunk(b"fcTL", FRAME[:9])),
            id="frame-cut-short",
        ),
        pytest.param(
            png_with(
                before=png_chunk(b"acTL", struct.pack(">II", 2, 0)) + png_chunk(b"fcTL", FRAME),
                after=png_chunk(b"fdAT", b""),
            ),
            id="second-frame-of-nothing",
        ),
        pytest.param(png_with(after=png_chunk(b"tEXt", b"a\0b")), id="text-behind-the-pixels"),
        pytest.param(png_with(after=broken(png_chunk(b"tEXt", b"a\0b"))), id="wrong-checksum-behind-the-pixels"),
        pytest.param(png_with(after=png_chunk(b"tEXt", b"a\0bc")[:-6], end=b""), id="breaks-off-behind-the-pixels"),
        pytest.param(png_with(end=b""), id="no-end"),
        pytest.param(png_with(end=b"\0\0\0\0IE"), id="half-an-end"),
        pytest.param(png_with(end=b"\0\0\0\0IEND\0\0\0\0"), id="end-with-a-wrong-checksum"),
        pytest.param(png_with() + b"more" * 400, id="appended"),
        pytest.param(png_with(end=b"?!?!" * 400), id="appended-without-an-end"),
    ],
)
def test_odd_chunks_do_not_make_a_png_bad(data: bytes) -> None:
    np.testing.assert_array_equal(decode_rgb(data), RGB)


def test_texts_between_the_pixels_do_not_make_a_png_bad() -> None:
    whole = encode_png(RGB)
    (length,) = struct.unpack_from(">I", whole, 33)
    body = whole[41 : 41 + length]
    pieces = (png_chunk(b"IDAT", body[:99]), png_chunk(b"tEXt", b"a\0b"), png_chunk(b"IDAT", body[99:]))
    np.testing.assert_array_equal(decode_rgb(whole[:33] + b"".join(pieces) + whole[-12:]), RGB)


def test_a_png_whose_pixels_are_missing_stays_refused() -> None:
    whole = encode_png(RGB)
    (length,) = struct.unpack_from(">I", whole, 33)
    for share in (0.01, 0.3, 0.9):
        cut = int(length * share)
        assert reason_of(whole[: 41 + cut]) == "truncated"
        # The chunks are whole, the pixels in them are not.
        assert reason_of(whole[:33] + png_chunk(b"IDAT", whole[41 : 41 + cut]) + whole[-12:]) == "truncated"


def test_transparency_with_a_wrong_checksum_is_none() -> None:
    data = encoded(PICTURE, "PNG", transparency=tuple(int(level) for level in RGB[0, 0]))
    place = data.index(b"tRNS") + 4 + 6
    np.testing.assert_array_equal(decode_rgb(data[:place] + b"abcd" + data[place + 4 :]), RGB)


def riff(*chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) & 1) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body) if size is None else size) + b"WEBP" + body


def webp_pixels() -> tuple[bytes, bytes]:
    data = encoded(PICTURE, "WEBP", lossless=True)
    return data[12:16], data[20 : 20 + struct.unpack_from("<I", data, 16)[0]]


EXTENDED = (b"VP8X", bytes([0x2C, 0, 0, 0]) + (72 - 1).to_bytes(3, "little") + (56 - 1).to_bytes(3, "little"))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(riff(EXTENDED, webp_pixels()), id="announced-metadata-are-missing"),
        pytest.param(riff(EXTENDED, (b"ICCP", b"no profile"), webp_pixels(), (b"EXIF", b"no")), id="odd-metadata"),
        pytest.param(riff(EXTENDED, (b"ICCP", b""), (b"ICCP", b"twice"), webp_pixels()), id="profile-twice"),
        pytest.param(riff(EXTENDED, (b"ABCD", b"unknown"), webp_pixels(), (b"XYZW", b"too")), id="unknown-chunks"),
        pytest.param(riff(webp_pixels(), (b"EXIF", b"no")), id="metadata-of-a-simple-file"),
        pytest.param(riff(webp_pixels(), size=1_000_000), id="a-size-beyond-the-file"),
        pytest.param(riff(webp_pixels(), size=20), id="a-size-within-the-file"),
        pytest.param(riff(EXTENDED, webp_pixels(), (b"XMP ", bytes(999)))[:-500], id="breaks-off-in-the-metadata"),
        pytest.param(riff(webp_pixels()) + b"appended", id="appended"),
    ],
)
def test_odd_chunks_do_not_make_a_webp_bad(data: bytes) -> None:
    np.testing.assert_array_equal(decode_rgb(data), RGB)


def test_a_webp_whose_pixels_are_missing_stays_refused() -> None:
    data = riff(webp_pixels())
    for share in (0.1, 0.5, 0.95):
        assert reason_of(data[: int(len(data) * share)]) == "truncated"


def test_a_gif_without_its_trailer_or_with_odd_extensions_is_whole() -> None:
    data = encoded(PICTURE.quantize(64), "GIF")
    whole = decode_rgb(data)
    np.testing.assert_array_equal(decode_rgb(data[:-1]), whole)
    np.testing.assert_array_equal(decode_rgb(data + b"more"), whole)
    place = data.index(b",", 13 + 3 * 64)
    odd = b"!\xff\x0bNETSCAPE2.0\x01\x01\x00" + b"!\x77\x02ab\x00" + b"!\xfe\x00"
    np.testing.assert_array_equal(decode_rgb(data[:place] + odd + data[place:]), whole)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd tags
def test_unknown_tags_do_not_make_a_tiff_bad() -> None:
    info = {50_001: "a private text", 700: b"<x:xmp", 37_724: b"\0\1\2", 34_665: 999_999_999}
    data = encoded(PICTURE, "TIFF", tiffinfo=info)
    np.testing.assert_array_equal(decode_rgb(data), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_once(orientation: int) -> None:
    """Its boxes `irot` and `imir` say so, and Pillow repeats it in the EXIF data."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": "4:4:4"}
    plain = decode_rgb(encoded(PICTURE, "AVIF", **options))
    turned = encoded(PICTURE, "AVIF", exif=exif, **options)
    assert inspect_picture(turned) == PictureFacts(72, 56, "AVIF", "RGB", None, orientation, ())
    upright = {1: plain, 2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1]}
    sideways = plain.transpose(1, 0, 2)
    upright |= {5: sideways, 6: sideways[:, ::-1], 7: sideways[::-1, ::-1], 8: sideways[::-1]}
    np.testing.assert_array_equal(decode_rgb(turned), upright[orientation])


def test_of_an_avif_sequence_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:], quality=100, subsampling="4:4:4")
    assert np.abs(decode_rgb(data).astype(int) - np.array(frames[0])).max() <= 2


def test_an_avif_is_refused_beyond_the_limits_before_it_is_decoded() -> None:
    data = encoded(PICTURE, "AVIF")
    assert reason_of(data, max_pixels=72 * 56 - 1) == "too-large"
    assert reason_of(data[: len(data) // 2]) == "truncated"
    assert reason_of(encoded(Image.new("RGB", (100, 4)), "AVIF")) == "too-small"
    assert reason_of(data[:100]) in ("truncated", "unreadable")


def iso_file(brand: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", 4 + len(body)) + body + bytes(200)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99), "unsupported: a JPEG 2000 picture"),
        (b"\xff\x4f\xff\x51\0\x2f" + bytes(99), "unsupported: a JPEG 2000 picture"),
        (b"\xff\x0a\xfa\x7f" + bytes(99), "unsupported: a JPEG XL picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "unsupported: a JPEG XL picture"),
        (b"8BPS\0\1" + bytes(99), "unsupported: a Photoshop (PSD) picture"),
        (b"\0\0\1\0\1\0\x10\x10" + bytes(99), "unsupported: a Windows icon (ICO) picture"),
        (b"P6\n8 8\n255\n" + bytes(192), "unsupported: a Netpbm (PNM) picture"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported: an SVG picture"),
        (b'<svg width="9" height="9"></svg>', "unsupported: an SVG picture"),
        (iso_file(b"crx ", b"crx ", b"isom"), "unsupported: a camera raw (Canon CR3) picture"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(99), "unsupported: a camera raw (Fujifilm) picture"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(99), "unsupported: a camera raw (Canon) picture"),
        (tiff((50706, 1, 4, 0x0104)) + bytes(99), "unsupported: a camera raw picture"),
        (tiff((254, 4, 1, 1), (330, 4, 1, 500)) + bytes(999), "unsupported: a camera raw picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "unreadable: a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "unreadable: an HTML page"),
        (b"\xef\xbb\xbf \n<HTML><HEAD>Access denied</HEAD></HTML>", "unreadable: an HTML page"),
        (
            b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>',
            "unreadable: an XML document",
        ),
        (b'{"error": "rate limit"}', "unreadable: a JSON document"),
        ("zwölf Wörter ".encode() * 999, "unreadable: a text, not a picture"),
        (b"%PDF-1.7\n" + bytes(99), "unreadable: a PDF document"),
        (b"PK\3\4" + bytes(99), "unreadable: a ZIP archive"),
        (b"\x1f\x8b\x08" + bytes(99), "unreadable: a gzip file"),
        (iso_file(b"isom", b"mp41"), "unreadable: a video"),
        (iso_file(b"qt  "), "unreadable: a video"),
        (b"\x1a\x45\xdf\xa3" + bytes(99), "unreadable: a Matroska or WebM video"),
        (bytes(5_000), "unreadable: nothing but zeros"),
        (b"\x7fELF" + bytes(99), "unreadable: not JPEG, PNG, GIF, WebP, BMP, TIFF or AVIF: starts with b'\\x7fELF"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, said: str) -> None:
    assert detail_of(data).startswith(said)
    with pytest.raises(BadImage):
        inspect_picture(data)


def test_heic_is_named_with_its_remedy_where_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.data import file_headers

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    file_headers._heif_plugin.cache_clear()
    try:
        said = detail_of(iso_file(b"heic", b"mif1", b"heic"))
    finally:
        file_headers._heif_plugin.cache_clear()
    assert said.startswith("unsupported: a HEIC picture: install telltale's extra `heic`")


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_and_turned_once_with_the_extra(orientation: int) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is missing: pip install 'telltale[heic]'")
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    heif.from_pillow(PICTURE).save(buffer, quality=-1, chroma=444, exif=exif.tobytes())
    data = buffer.getvalue()
    facts = inspect_picture(data)
    assert (facts.format, facts.orientation) == ("HEIF", 1)
    expected = RGB if orientation == 1 else np.rot90(RGB, -1)
    assert np.abs(decode_rgb(data).astype(int) - expected).max() <= 3
    assert reason_of(data[: len(data) // 2]) in ("truncated", "unreadable")
    assert reason_of(data, max_pixels=100) == "too-large"


def test_pillows_switches_stay_as_they_are() -> None:
    from PIL import ImageFile

    decode_rgb(JPEGS["baseline"][:-2])
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert PngImagePlugin.MAX_TEXT_CHUNK == ImageFile.SAFEBLOCK
