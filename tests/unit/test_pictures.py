"""Inspecting, decoding, fingerprinting and encoding pictures that nobody vouches for."""

import contextlib
import io
import struct
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import scipy.fft
from PIL import Image, ImageOps

from storage.errors import BadImage
from tasks.data.encoding import encode_jpeg, encode_png
from tasks.data.file_parts import MAX_SCANS
from tasks.data.fingerprints import (
    are_duplicates,
    hamming,
    hash_text,
    perceptual_hash,
    perceptual_hash_of_thumbnail,
    thumbnail32,
    thumbnail_correlation,
)
from tasks.data.pictures import (
    MAX_EXIF_BYTES,
    PictureFacts,
    Pixels,
    decode_rgb,
    estimate_jpeg_quality,
    has_own_tables,
    inspect_picture,
)
from tests.property.image_mutations import png_chunk, run_length_bmp


def scene(height: int = 48, width: int = 64, seed: int = 0) -> Pixels:
    """A smooth coloured picture: noise at an eighth of the size, enlarged."""
    small = np.random.default_rng(seed).integers(0, 256, (max(height // 8, 2), max(width // 8, 2), 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds no pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def reason_of(data: bytes, **limits: int) -> str:
    with pytest.raises(BadImage) as caught:
        decode_rgb(data, **limits)
    return caught.value.reason


def test_a_jpeg_declares_its_size_quality_and_tables() -> None:
    data = encode_jpeg(scene(48, 64), 85)
    facts = inspect_picture(data)
    assert facts == PictureFacts(64, 48, "JPEG", "RGB", 85, 1, facts.quantization_tables)
    # Scaled to 30 %, as libjpeg does at quality 85, the standard's first steps 16 and 17 both become 5.
    assert [(len(table), table[0]) for table in facts.quantization_tables] == [(64, 5), (64, 5)]


def test_a_png_has_no_quality_and_no_tables() -> None:
    assert inspect_picture(encode_png(scene(48, 64))) == PictureFacts(64, 48, "PNG", "RGB", None, 1, ())


@pytest.mark.parametrize("quality", range(1, 101))
def test_the_estimate_is_exact_for_every_quality_of_libjpeg(quality: int) -> None:
    assert inspect_picture(encode_jpeg(scene(16, 16), quality)).jpeg_quality == quality
    assert inspect_picture(encoded(Image.fromarray(scene(16, 16)), "JPEG", quality=quality)).jpeg_quality == quality
    assert inspect_picture(encoded(Image.new("L", (16, 16)), "JPEG", quality=quality)).jpeg_quality == quality


@pytest.mark.parametrize("quality", range(1, 101))
def test_tables_of_libjpeg_are_no_files_own_at_any_quality(quality: int) -> None:
    grey = Image.new("L", (16, 16))
    files = [encode_jpeg(scene(16, 16), quality), encoded(grey, "JPEG", quality=quality)]
    files += [
        encoded(Image.fromarray(scene(16, 16)), "JPEG", quality=quality, subsampling=sampling) for sampling in (0, 1, 2)
    ]
    assert not any(map(has_own_tables, files))
    luma, chroma = map(list, inspect_picture(files[0]).quantization_tables)
    one_more = [*luma[:-1], luma[-1] % 255 + 1]

    def is_own(*tables: list[int]) -> bool:
        return has_own_tables(encoded(Image.fromarray(scene(16, 16)), "JPEG", qtables=list(tables)))

    assert (is_own(luma, chroma), is_own(one_more, chroma), is_own(luma, one_more)) == (False, True, True)
    # One table for all components, which libjpeg has only where both are the same.
    assert is_own(luma) == (luma != chroma)
    assert not has_own_tables(encode_png(scene(16, 16)))


def test_a_foreign_table_gets_the_nearest_quality() -> None:
    table = np.array(inspect_picture(encode_jpeg(scene(16, 16), 60)).quantization_tables[0])
    table[:5] += 1
    assert estimate_jpeg_quality(table.tolist()) == 60


def test_the_estimate_reads_the_table_that_luma_uses() -> None:
    luma, chroma = [7] * 64, [1] * 64
    facts = inspect_picture(encoded(Image.fromarray(scene()), "JPEG", qtables=[luma, chroma]))
    assert facts.quantization_tables == (tuple(luma), tuple(chroma))
    assert facts.jpeg_quality == estimate_jpeg_quality(luma)


def test_the_real_format_counts_whatever_a_file_is_called() -> None:
    # Bytes carry no extension: a PNG that was named .jpg is a PNG.
    rgb = scene()
    assert inspect_picture(encode_png(rgb)).format == "PNG"
    np.testing.assert_array_equal(decode_rgb(encode_png(rgb)), rgb)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_decode_to_what_was_encoded(file_format: str) -> None:
    rgb = scene(33, 65)
    data = encoded(Image.fromarray(rgb), file_format)
    assert inspect_picture(data).format == file_format
    np.testing.assert_array_equal(decode_rgb(data), rgb)


def test_lossless_webp_decodes_to_what_was_encoded() -> None:
    rgb = scene(33, 65)
    np.testing.assert_array_equal(decode_rgb(encoded(Image.fromarray(rgb), "WEBP", lossless=True)), rgb)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}])
def test_a_jpeg_decodes_as_pillow_decodes_it(options: dict[str, object]) -> None:
    data = encoded(Image.fromarray(scene(50, 70)), "JPEG", quality=70, **options)
    np.testing.assert_array_equal(decode_rgb(data), np.array(Image.open(io.BytesIO(data)).convert("RGB")))


def test_a_decoded_picture_is_writable_and_contiguous() -> None:
    for data in (encode_jpeg(scene(), 80), encode_png(scene())):
        rgb = decode_rgb(data)
        assert rgb.flags.writeable
        assert rgb.flags.c_contiguous
        assert rgb.dtype == np.uint8


def test_no_bytes_are_empty() -> None:
    assert reason_of(b"") == "empty"


def test_other_bytes_are_unreadable() -> None:
    assert reason_of(b"<html>404 Not Found</html>") == "unreadable"
    assert reason_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n") == "unsupported"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_cut_off_picture_is_truncated(file_format: str, share: float) -> None:
    data = encoded(Image.fromarray(scene(200, 200)), file_format)
    assert reason_of(data[: int(share * len(data))]) == "truncated"


def test_a_cut_off_exif_rotated_jpeg_is_truncated() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(scene(200, 200)), "JPEG", exif=exif)
    assert reason_of(data[: len(data) // 2]) == "truncated"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_every_prefix_of_a_file_decodes_or_is_a_bad_image(file_format: str) -> None:
    data = encoded(Image.fromarray(scene(16, 16)), file_format)
    whole = decode_rgb(data)
    for length in range(1, len(data)):
        with contextlib.suppress(BadImage):
            # Where it decodes, only a trailer without pixels is missing.
            np.testing.assert_array_equal(decode_rgb(data[:length]), whole)


def test_one_pixel_is_too_small() -> None:
    assert reason_of(encode_png(np.zeros((1, 1, 3), dtype=np.uint8))) == "too-small"
    assert reason_of(encode_jpeg(np.zeros((1, 1, 3), dtype=np.uint8), 90)) == "too-small"


def test_eight_pixels_are_the_smallest_side() -> None:
    assert reason_of(encode_png(scene(7, 100))) == "too-small"
    assert decode_rgb(encode_png(scene(8, 100))).shape == (8, 100, 3)


def test_a_declared_size_beyond_the_limit_is_refused_before_decoding() -> None:
    bomb = png_header(20_000, 20_000)
    tracemalloc.start()
    try:
        assert reason_of(bomb) == "too-large"
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_jpeg_that_declares_too_much_is_refused_before_decoding() -> None:
    data = encode_jpeg(scene(16, 16), 90)
    frame = data.index(b"\xff\xc0")
    bomb = data[: frame + 5] + struct.pack(">HH", 20_000, 20_000) + data[frame + 9 :]
    assert reason_of(bomb) == "too-large"


def test_the_limit_is_ours_and_not_pillows() -> None:
    # 99 megapixels: Pillow would warn from 89 on, and warnings are errors here.
    assert inspect_picture(png_header(9_900, 10_000)).width == 9_900
    assert reason_of(encode_png(scene(48, 64)), max_pixels=48 * 64 - 1) == "too-large"
    assert decode_rgb(encode_png(scene(48, 64)), max_pixels=48 * 64).shape == (48, 64, 3)


def test_inspecting_does_not_decode() -> None:
    # The pixel data are missing altogether, and the declared ones would take 240 MB.
    assert inspect_picture(png_header(10_000, 8_000)).height == 8_000


def test_a_file_of_too_many_bytes_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_png(scene())
    monkeypatch.setattr("tasks.data.file_headers.MAX_BYTES", len(data) - 1)
    assert reason_of(data) == "too-large"


def scans_of(data: bytes) -> int:
    return data.count(b"\xff\xda")


def test_a_progressive_jpeg_of_endless_scans_is_refused() -> None:
    """A scan of some bytes is a pass over all pixels: a file of megabytes would take hours."""
    data = encoded(Image.fromarray(scene(64, 64)), "JPEG", progressive=True)
    assert 5 < scans_of(data) < MAX_SCANS
    last = data.rindex(b"\xff\xda")
    many = data[:-2] + data[last:-2] * MAX_SCANS + data[-2:]
    assert reason_of(many) == "too-complex"
    # Few enough, they only repeat the last refinement, which libjpeg reads with a warning or not at all.
    with contextlib.suppress(BadImage):
        decode_rgb(data[:-2] + data[last:-2] * 3 + data[-2:])


def test_scans_of_thumbnails_and_of_what_is_appended_do_not_count() -> None:
    thumbnail = encode_jpeg(scene(16, 16), 50)
    data = encode_jpeg(scene(), 90)
    noted = data[:2] + b"".join(
        b"\xff\xe7" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail for _ in range(MAX_SCANS + 1)
    )
    appended = b"".join(thumbnail for _ in range(MAX_SCANS + 1))
    np.testing.assert_array_equal(decode_rgb(noted + data[2:] + appended), decode_rgb(data))


def test_two_headers_that_disagree_are_refused() -> None:
    """What one parser takes for padding the other may not: the size that is checked is the size that is decoded."""
    small, large = encode_jpeg(scene(16, 16), 90), encode_jpeg(scene(200, 200), 90)
    frame = small[small.index(b"\xff\xc0") : small.index(b"\xff\xc4")]
    for place in range(2, len(large), 7):
        with contextlib.suppress(BadImage):
            facts = inspect_picture(large[:place] + frame + large[place:])
            assert decode_rgb(large[:place] + frame + large[place:]).shape == (facts.height, facts.width, 3)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode_jpeg(scene(), 90)[:2] + b"\xff" * 200_000 + encode_jpeg(scene(), 90)[2:], id="padding"),
        pytest.param(
            b"\xff\xd8" + b"\xff\xe1\x00\x08Exif\x00\x00" * 20_000 + encode_jpeg(scene(), 90)[2:], id="jpeg-segments"
        ),
        pytest.param(
            encode_png(scene())[:33] + png_chunk(b"abCd", b"") * 20_000 + encode_png(scene())[33:], id="png-chunks"
        ),
        pytest.param(
            b"GIF89a\x10\x00\x10\x00\x00\x00\x00!\xfe" + b"\x01x" * 200_000 + b"\x00;",
            id="gif-comment-of-single-letters",
        ),
    ],
)
def test_a_header_of_endless_pieces_is_refused_within_a_moment(data: bytes) -> None:
    began = time.process_time()
    assert reason_of(data) == "too-complex"
    assert time.process_time() - began < 1.0


def test_pixels_in_endless_pieces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = run_length_bmp(np.zeros((40, 40), dtype=np.uint8))
    assert decode_rgb(data).shape == (40, 40, 3)
    monkeypatch.setattr("tasks.data.file_headers.MAX_READS", 1_000)
    assert reason_of(data) == "too-complex"


def tiff(*entries: tuple[int, int, int, int], order: str = "<", big: bool = False) -> bytes:
    """A TIFF of one directory with these (tag, type, count, value), and nothing else."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, 16)
        return (
            head
            + struct.pack(f"{order}Q", len(entries))
            + b"".join(struct.pack(f"{order}HHQQ", *one) for one in entries)
        )
    head = mark + struct.pack(f"{order}HL", 42, 8) + struct.pack(f"{order}H", len(entries))
    return head + b"".join(struct.pack(f"{order}HHLL", *one) for one in entries)


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        pytest.param([(322, 4, 1, 30_000), (323, 4, 1, 30_000)], "too-large", id="tiles-larger-than-any-picture"),
        pytest.param([(322, 4, 1, 30_000), (323, 4, 1, 30_000), (322, 4, 1, 0)], "too-large", id="tiles-twice"),
        pytest.param([(273, 4, 20_000, 8)], "too-complex", id="endless-strips"),
        pytest.param([(273, 1, 20_000, 8)], "too-complex", id="endless-strips-as-bytes"),
        pytest.param([(282, 5, 20_000, 8)], "too-complex", id="endless-fractions"),
        pytest.param([(700, 1, 20_000, 8)], "unreadable", id="a-long-text-is-none-of-that"),
        pytest.param([(282, 5, 10_000_000, 8)], "unreadable", id="more-values-than-bytes-are-passed-over"),
        pytest.param([(index, 3, 1, 8) for index in range(1_000, 3_100)], "too-complex", id="endless-tags"),
    ],
)
def test_a_tiff_that_would_swell_is_refused(
    entries: list[tuple[int, int, int, int]],
    reason: str,
    order: str,
    big: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.data.file_headers.MAX_TIFF_VALUES", 10_000)
    data = tiff(*entries, order=order, big=big) + bytes(200_000)
    tracemalloc.start()
    try:
        assert reason_of(data) == reason
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_tiff_directory_in_a_directory_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.data.file_headers.MAX_TIFF_VALUES", 10_000)
    inner = 8 + 2 + 12 + 4
    outer = struct.pack("<2sHLH", b"II", 42, 8, 1) + struct.pack("<HHLL", 34665, 4, 1, inner) + bytes(4)
    assert reason_of(outer + struct.pack("<HHHLL", 1, 33434, 5, 20_000, 0) + bytes(200_000)) == "too-complex"
    # One that holds itself is looked at once.
    assert reason_of(tiff((34665, 4, 1, 8))) == "truncated"


def test_exif_data_beyond_all_sizes_are_passed_over() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode_png(scene(16, 40))
    small = data[:33] + png_chunk(b"eXIf", exif.tobytes()[6:]) + data[33:]
    assert inspect_picture(small).orientation == 6
    large = data[:33] + png_chunk(b"eXIf", exif.tobytes()[6:] + bytes(MAX_EXIF_BYTES)) + data[33:]
    assert inspect_picture(large).orientation == 1


def test_grey_becomes_three_equal_channels() -> None:
    grey = scene()[:, :, 0]
    for data in (encoded(Image.fromarray(grey), "PNG"), encoded(Image.fromarray(grey), "JPEG", quality=100)):
        rgb = decode_rgb(data)
        assert np.ptp(rgb, axis=2).max() == 0
        assert np.abs(rgb[:, :, 0].astype(int) - grey).max() <= 2


def test_bilevel_becomes_black_and_white() -> None:
    bits = Image.fromarray(scene()[:, :, 0]).convert("1")
    assert set(np.unique(decode_rgb(encoded(bits, "PNG")))) == {0, 255}


def test_cmyk_becomes_the_colours_that_it_was_made_from() -> None:
    rgb = np.zeros((16, 48, 3), dtype=np.uint8)
    rgb[:, :16, 0] = rgb[:, 16:32, 1] = rgb[:, 32:, 2] = 200
    data = encoded(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=95)
    assert inspect_picture(data).mode == "CMYK"
    assert np.abs(decode_rgb(data).astype(int) - rgb)[:, [8, 24, 40]].max() <= 4


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(file_format: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    data = encoded(Image.fromarray(np.tile(ramp, (16, 1))), file_format)
    assert inspect_picture(data).mode.startswith("I;16")
    np.testing.assert_array_equal(decode_rgb(data)[0, :, 1], np.arange(256))


def test_floating_point_pixels_are_refused() -> None:
    assert reason_of(encoded(Image.fromarray(np.zeros((16, 16), dtype=np.float32)), "TIFF")) == "unreadable"


def test_a_palette_is_looked_up() -> None:
    paletted = Image.fromarray(scene()).quantize(16)
    data = encoded(paletted, "PNG")
    assert inspect_picture(data).mode == "P"
    np.testing.assert_array_equal(decode_rgb(data), np.array(paletted.convert("RGB")))


def test_alpha_is_composited_on_white() -> None:
    rgba = np.zeros((16, 48, 4), dtype=np.uint8)
    rgba[:, :16] = (255, 0, 0, 255)
    rgba[:, 16:32] = (255, 0, 0, 0)
    rgba[:, 32:] = (0, 0, 0, 128)
    rgb = decode_rgb(encoded(Image.fromarray(rgba), "PNG"))
    np.testing.assert_array_equal(rgb[0, [0, 20, 40]], [(255, 0, 0), (255, 255, 255), (127, 127, 127)])


def test_grey_with_alpha_is_composited_on_white() -> None:
    grey_alpha = np.zeros((16, 16, 2), dtype=np.uint8)
    grey_alpha[:, 8:, 1] = 255
    rgb = decode_rgb(encoded(Image.fromarray(grey_alpha), "PNG"))
    np.testing.assert_array_equal(rgb[0, [0, 15]], [(255, 255, 255), (0, 0, 0)])


def test_a_transparent_palette_entry_is_white() -> None:
    paletted = Image.new("P", (16, 16), 1)
    paletted.putpalette([0, 0, 0, 200, 10, 10])
    paletted.paste(0, (0, 0, 8, 16))
    rgb = decode_rgb(encoded(paletted, "PNG", transparency=0))
    np.testing.assert_array_equal(rgb[0, [0, 15]], [(255, 255, 255), (200, 10, 10)])


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(file_format: str) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], duration=100, **options)
    np.testing.assert_array_equal(decode_rgb(data), np.array(frames[0]))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied_as_pillow_applies_it(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(Image.fromarray(scene(24, 40)), file_format, exif=exif, **options)
    facts = inspect_picture(data)
    assert (facts.orientation, facts.width, facts.height) == (orientation, 40, 24)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode_rgb(data), expected)


def test_an_undefined_orientation_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    assert inspect_picture(encoded(Image.fromarray(scene()), "JPEG", exif=exif)).orientation == 1


def test_broken_exif_data_do_not_make_a_picture_bad() -> None:
    data = encoded(Image.fromarray(scene()), "JPEG", exif=b"Exif\x00\x00neither II nor MM")
    assert inspect_picture(data).orientation == 1
    assert decode_rgb(data).shape == (48, 64, 3)


def test_stray_bytes_in_a_jpeg_do_not_make_it_bad() -> None:
    rgb = scene()
    data = encode_jpeg(rgb, 90)
    scan = data.index(b"\xff\xda")
    np.testing.assert_array_equal(decode_rgb(data[:scan] + b"\x00\x01\x02" + data[scan:]), decode_rgb(data))
    np.testing.assert_array_equal(decode_rgb(data + b"trailing bytes"), decode_rgb(data))


def test_png_keeps_every_level() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_rgb(encode_png(rgb)), rgb)


def test_a_view_of_an_array_can_be_encoded() -> None:
    rgb = scene(32, 32)
    assert encode_jpeg(rgb[:, ::-1], 90) == encode_jpeg(np.ascontiguousarray(rgb[:, ::-1]), 90)
    assert encode_png(rgb[::2]) == encode_png(np.ascontiguousarray(rgb[::2]))


@pytest.mark.parametrize("quality", [0, 101, -1])
def test_a_quality_that_jpeg_does_not_have_is_refused(quality: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.100"):
        encode_jpeg(scene(), quality)


def test_the_perceptual_hash_agrees_with_scipys_dct() -> None:
    thumbnail = thumbnail32(scene(100, 140, seed=3))
    low = scipy.fft.dctn(thumbnail.astype(np.float64), norm="ortho")[:8, :8]
    bits = "".join("1" if coefficient > np.median(low) else "0" for coefficient in low.ravel())
    assert perceptual_hash_of_thumbnail(thumbnail) == int(bits, 2)


def test_a_hash_has_sixteen_digits() -> None:
    assert hash_text(10) == "000000000000000a"
    assert int(hash_text(perceptual_hash(scene())), 16) == perceptual_hash(scene())


def test_hamming_counts_the_bits_that_differ() -> None:
    assert hamming(0b1011, 0b0010) == 2
    assert hamming(0, 2**64 - 1) == 64


def test_a_resized_and_compressed_copy_is_a_duplicate() -> None:
    rgb = scene(240, 320, seed=5)
    copy = decode_rgb(encode_jpeg(np.array(Image.fromarray(rgb).resize((200, 150))), 40))
    assert are_duplicates(perceptual_hash(rgb), thumbnail32(rgb), perceptual_hash(copy), thumbnail32(copy))


def test_different_pictures_are_no_duplicates() -> None:
    a, b = scene(240, 320, seed=5), scene(240, 320, seed=6)
    assert not are_duplicates(perceptual_hash(a), thumbnail32(a), perceptual_hash(b), thumbnail32(b))


def test_equal_hashes_alone_make_no_duplicates() -> None:
    a, b = thumbnail32(scene(seed=5)), thumbnail32(scene(seed=6))
    assert not are_duplicates(0, a, 0, b)


def test_flat_pictures_are_duplicates_of_the_same_grey_only() -> None:
    grey, same, white = (np.full((40, 40, 3), level, dtype=np.uint8) for level in (100, 100, 255))
    assert perceptual_hash(grey) == perceptual_hash(same) == perceptual_hash(white)
    assert thumbnail_correlation(thumbnail32(grey), thumbnail32(same)) == 1.0
    assert thumbnail_correlation(thumbnail32(grey), thumbnail32(white)) == 0.0
    assert thumbnail_correlation(thumbnail32(grey), thumbnail32(scene())) == 0.0


def test_thumbnail_correlation_agrees_with_numpy() -> None:
    a, b = thumbnail32(scene(seed=1)), thumbnail32(scene(seed=2))
    assert thumbnail_correlation(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-12)
    assert thumbnail_correlation(a, a) == pytest.approx(1.0)


def packed(samples: np.ndarray, bits: int, order: str = ">") -> bytes:
    """Samples (rows, count) of so many bits each, the highest first, every row filled up to whole bytes."""
    if bits >= 8 and bits != 12:
        return samples.astype(f"{order}u{bits // 8}").tobytes()
    digits = (samples[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.astype(np.uint8).reshape(len(samples), -1), axis=1).tobytes()


def high_byte(samples: np.ndarray, bits: int) -> np.ndarray:
    return samples >> (bits - 8) if bits >= 8 else samples * (255 // (2**bits - 1))


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    mixed: np.ndarray = (colours * alpha + 255 * (255 - alpha)) / 255
    return mixed


def assert_decodes(data: bytes, expected: np.ndarray, most: float = 1) -> None:
    rgb = decode_rgb(data)
    expected = np.broadcast_to(expected, (*expected.shape[:2], 3))
    assert rgb.shape == expected.shape
    assert np.abs(rgb - expected.astype(float)).max() <= most


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png_of(samples: np.ndarray, bits: int, colour_type: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A PNG of samples (H, W, channels) without filters, with other chunks in front of its pixels."""
    height, width, _ = samples.shape
    passes = [samples[top::down, left::right] for left, top, right, down in ADAM7] if interlaced else [samples]
    rows = [row.reshape(1, -1) for one in passes if one.size for row in one]
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced)
    pixels = zlib.compress(b"".join(b"\0" + packed(row, bits) for row in rows))
    body = (png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("transparency", ["none", "plain", "with-bits-beyond-the-samples"])
@pytest.mark.parametrize(("colour_type", "bits"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)])
def test_the_one_transparent_colour_of_a_png_is_white(
    colour_type: int, bits: int, transparency: str, interlaced: bool
) -> None:
    samples = np.random.default_rng(bits).integers(0, 2**bits, (21, 34, 3 if colour_type == 2 else 1))
    clear = samples[3, 5].copy()
    if bits == 16:  # one that is transparent, and two that are so in one of their bytes
        samples[10], samples[11], samples[12] = clear, clear ^ 1, clear ^ 256
    expected = np.broadcast_to(high_byte(samples, bits), (21, 34, 3)).copy()
    chunks = []
    if transparency != "none":
        expected[(samples == clear).all(axis=2)] = 255
        beyond = 0 if transparency == "plain" or bits == 16 else 0x5500 & -(2**bits)
        chunks = [png_chunk(b"tRNS", b"".join(struct.pack(">H", int(level) | beyond) for level in clear))]
    assert_decodes(png_of(samples, bits, colour_type, *chunks, interlaced=interlaced), expected, 0)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_alpha_of_a_png_palette_is_composited_on_white(bits: int, interlaced: bool) -> None:
    random = np.random.default_rng(bits)
    samples, palette = random.integers(0, 2**bits, (21, 34, 1)), random.integers(0, 256, (2**bits, 3))
    alpha = random.integers(0, 256, 2**bits)
    chunks = (
        png_chunk(b"PLTE", palette.astype(np.uint8).tobytes()),
        png_chunk(b"tRNS", alpha.astype(np.uint8).tobytes()),
    )
    expected = on_white(palette, alpha[:, None])[samples[:, :, 0]]
    assert_decodes(png_of(samples, bits, 3, *chunks, interlaced=interlaced), expected)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour_type", "bits"), [(4, 8), (4, 16), (6, 8), (6, 16)])
def test_the_alpha_of_a_png_is_composited_on_white(colour_type: int, bits: int, interlaced: bool) -> None:
    samples = np.random.default_rng(bits).integers(0, 2**bits, (21, 34, 2 if colour_type == 4 else 4))
    levels = high_byte(samples, bits)
    expected = on_white(levels[:, :, :-1], levels[:, :, -1:])
    assert_decodes(png_of(samples, bits, colour_type, interlaced=interlaced), expected)


def test_only_the_first_transparent_colour_of_a_png_counts_and_half_of_one_is_none() -> None:
    samples = np.arange(256).reshape(16, 16, 1)
    first, second = (png_chunk(b"tRNS", struct.pack(">H", level)) for level in (7, 9))
    expected = np.where(samples == 7, 255, samples)
    assert_decodes(png_of(samples, 8, 0, first, second), expected, 0)
    assert_decodes(png_of(samples, 8, 0, png_chunk(b"tRNS", b"\7")), samples, 0)


def test_a_second_header_makes_a_png_bad() -> None:
    data = encode_png(scene(16, 16))
    assert reason_of(data[:33] + data[8:33] + data[33:]) == "unreadable"


def tiff_of(
    samples: np.ndarray,
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    planar: int = 1,
    fill_order: int = 1,
    deflate: bool = False,
    more: dict[int, tuple[str, list[float]]] | None = None,
) -> bytes:
    """A TIFF of samples (H, W, channels) in one strip, or one for each plane; `more`: kind and values of other tags."""
    height, width, channels = samples.shape
    planes = [samples.reshape(height, -1)] if planar == 1 else [samples[:, :, index] for index in range(channels)]
    strips = [packed(plane, bits, order) for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if deflate else strips
    if fill_order == 2:
        strips = [bytes(int(f"{byte:08b}"[::-1], 2) for byte in strip) for strip in strips]
    tags: dict[int, tuple[str, list[float]]] = {
        256: ("L", [width]),
        257: ("L", [height]),
        258: ("H", [bits] * channels),
        259: ("H", [8 if deflate else 1]),
        262: ("H", [photometric]),
        266: ("H", [fill_order]),
        273: ("L", [0] * len(strips)),
        277: ("H", [channels]),
        278: ("L", [height]),
        279: ("L", [len(strip) for strip in strips]),
        284: ("H", [planar]),
        **(more or {}),
    }
    elsewhere = 8 + 2 + 12 * len(tags) + 4
    values = {tag: struct.pack(f"{order}{len(each)}{kind}", *each) for tag, (kind, each) in tags.items()}
    place = elsewhere + sum(len(value) for value in values.values() if len(value) > 4)
    values[273] = struct.pack(
        f"{order}{len(strips)}L", *(place + sum(map(len, strips[:i])) for i in range(len(strips)))
    )
    entries, heap = b"", b""
    for tag in sorted(tags):
        kind, each = tags[tag]
        entries += struct.pack(f"{order}HHL", tag, {"H": 3, "L": 4, "f": 11}[kind], len(each))
        if len(values[tag]) <= 4:
            entries += values[tag].ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}L", elsewhere + len(heap))
            heap += values[tag]
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HLH", 42, 8, len(tags))
    return head + entries + bytes(4) + heap + b"".join(strips)


LAYOUTS = [
    pytest.param({"order": order, "planar": planar, "fill_order": fill_order, "deflate": deflate}, id=name)
    for order, planar, fill_order, deflate, name in [
        ("<", 1, 1, False, "intel"),
        (">", 1, 1, False, "motorola"),
        ("<", 2, 1, False, "planes"),
        (">", 2, 1, False, "motorola-planes"),
        ("<", 1, 2, False, "bits-reversed"),
        ("<", 2, 2, False, "planes-bits-reversed"),
        ("<", 1, 1, True, "deflate"),
        (">", 1, 1, True, "motorola-deflate"),
        ("<", 2, 1, True, "planes-deflate"),
        ("<", 1, 2, True, "bits-reversed-deflate"),
    ]
]


def assert_decodes_or_refused(data: bytes, expected: np.ndarray, most: float = 1) -> bool:
    """Whether it is read, and then as expected: never wrong without a word."""
    with contextlib.suppress(BadImage):
        decode_rgb(data)
        assert_decodes(data, expected, most)
        return True
    return False


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_a_grey_or_paletted_tiff_is_read_right_or_refused(bits: int, layout: dict[str, Any]) -> None:
    random = np.random.default_rng(bits)
    samples = random.integers(0, 2**bits, (20, 33, 1))
    grey = high_byte(samples, bits)
    reads_white = assert_decodes_or_refused(tiff_of(samples, bits, 0, **layout), 255 - grey, 0)
    reads_black = assert_decodes_or_refused(tiff_of(samples, bits, 1, **layout), grey, 0)
    if layout == {"order": "<", "planar": 1, "fill_order": 1, "deflate": False}:
        assert reads_black
        assert reads_white or bits == 12
    if bits > 8:
        return
    palette = random.integers(0, 256, (3, 2**bits))
    expected = palette[:, samples[:, :, 0]].transpose(1, 2, 0)
    for levels in (palette * 257, palette):  # of 16 bits as they should be, and of 8
        data = tiff_of(samples, bits, 3, more={320: ("H", [int(level) for level in levels.ravel()])}, **layout)
        assert_decodes_or_refused(data, expected, 0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("extra", [0, 1, 2], ids=["unspecified", "multiplied", "plain"])
@pytest.mark.parametrize(("photometric", "channels"), [(1, 1), (2, 3)], ids=["grey", "rgb"])
@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_of_a_tiff_is_read_right_or_refused(
    bits: int, photometric: int, channels: int, extra: int, layout: dict[str, Any]
) -> None:
    samples = np.random.default_rng(bits).integers(0, 2**bits, (20, 33, channels + 1))
    if extra == 1:
        samples[:, :, :-1] = np.minimum(samples[:, :, :-1], samples[:, :, -1:])
    levels = high_byte(samples, bits)
    colours, alpha = levels[:, :, :-1], levels[:, :, -1:]
    expected = {0: colours, 1: colours + 255 - alpha, 2: on_white(colours, alpha)}[extra]
    data = tiff_of(samples, bits, photometric, more={338: ("H", [extra])}, **layout)
    reads = assert_decodes_or_refused(data, expected, 2)
    assert reads or bits == 16 or layout["planar"] == 2 or layout["fill_order"] == 2


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_of_a_tiff_are_read_right_or_refused(bits: int, layout: dict[str, Any]) -> None:
    samples = np.random.default_rng(bits).integers(0, 2**bits, (20, 33, 4))
    levels = high_byte(samples, bits)
    reads = assert_decodes_or_refused(tiff_of(samples[:, :, :3], bits, 2, **layout), levels[:, :, :3], 0)
    assert reads or layout["planar"] == 2 or layout["fill_order"] == 2
    ink = (255 - levels[:, :, :3]) * (255 - levels[:, :, 3:]) / 255
    assert_decodes_or_refused(tiff_of(samples, bits, 5, **layout), ink, 2)
    for black, white, height in ((0, 255, 255), (16, 235, 240)):
        scaled = (levels[:, :, :3] - [black, 128, 128]) / ([white - black, (height - 128) * 2, (height - 128) * 2])
        luma, blue, red = (255 * scaled[:, :, index] for index in range(3))
        expected = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=2)
        more: dict[int, tuple[str, list[float]]] = {530: ("H", [1, 1])}
        if black:
            more[532] = ("f", [16, 235, 128, 240, 128, 240])
        data = tiff_of(samples[:, :, :3], bits, 6, more=more, **layout)
        assert_decodes_or_refused(data, np.clip(expected, 0, 255), 4)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(tiff_of(np.zeros((16, 16, 1), int), 8, 1, more={339: ("H", [2])}), "signed", id="signed"),
        pytest.param(tiff_of(np.zeros((16, 16, 3), int), 16, 2, planar=2), "planes", id="planes-of-16-bits"),
        pytest.param(tiff_of(np.zeros((16, 16, 1), int), 12, 0), "rare kind", id="12-bits-white-is-zero"),
        pytest.param(tiff_of(np.zeros((16, 16, 3), int), 12, 2), "rare kind", id="12-bits-rgb"),
        pytest.param(tiff_of(np.zeros((16, 16, 3), int), 8, 6), "YCbCr", id="subsampled-by-default"),
        pytest.param(
            tiff_of(np.zeros((16, 16, 3), int), 8, 6, more={529: ("f", [0.2126, 0.7152, 0.0722]), 530: ("H", [1, 1])}),
            "YCbCr",
            id="coefficients-of-television",
        ),
    ],
)
def test_a_tiff_of_samples_that_pillow_would_take_for_others_is_refused_by_name(data: bytes, said: str) -> None:
    with pytest.raises(BadImage, match=said) as caught:
        inspect_picture(data)
    assert caught.value.reason == "unsupported"


def bmp_of(samples: np.ndarray, bits: int, *masks: int, header: int = 40, palette: np.ndarray | None = None) -> bytes:
    """A BMP of samples (H, W), the last row first, every row filled up to four bytes."""
    rows = [packed(row[None], bits, "<") for row in samples[::-1]]
    pixels = b"".join(row + bytes(-len(row) % 4) for row in rows)
    count = 0 if palette is None else len(palette)
    height, width = samples.shape
    head = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, 3 if masks else 0, 0, 0, 0, count, 0)
    head += struct.pack(f"<{len(masks)}I", *masks)
    head = head.ljust(header, b"\0")
    if palette is not None:
        head += b"".join(bytes([*map(int, colour[::-1]), 0]) for colour in palette)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("colours", [2, 3, 16])
@pytest.mark.parametrize("kind", ["colours", "black-to-white", "first-greys"])
def test_a_bmp_palette_is_looked_up_however_grey(bits: int, colours: int, kind: str) -> None:
    random = np.random.default_rng(bits)
    count = min(colours, 2**bits)
    palette = {
        "colours": random.integers(0, 256, (count, 3)),
        "black-to-white": np.linspace(0, 255, count).astype(int)[:, None].repeat(3, axis=1),
        "first-greys": np.arange(count)[:, None].repeat(3, axis=1),
    }[kind]
    samples = random.integers(0, count, (21, 34))
    assert_decodes(bmp_of(samples, bits, palette=palette), palette[samples], 0)


@pytest.mark.parametrize("masks", [(), (0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)], ids=["none", "555", "565"])
def test_sixteen_bits_of_a_bmp_are_scaled_by_their_masks(masks: tuple[int, ...]) -> None:
    samples = np.random.default_rng(0).integers(0, 2**16, (21, 34))
    expected = [
        (samples & mask) / mask * 255  # what is below a mask's lowest bit is zero in both
        for mask in masks or (0x7C00, 0x3E0, 0x1F)
    ]
    assert_decodes(bmp_of(samples, 16, *masks), np.stack(expected, axis=2))


@pytest.mark.parametrize("opacity", ["all", "none", "some"])
@pytest.mark.parametrize("declared", [True, False])
def test_the_fourth_byte_of_a_bmp_is_alpha_where_it_is_declared_and_used(opacity: str, declared: bool) -> None:
    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (21, 34, 3))
    alpha = {"all": np.full((21, 34), 255), "none": np.zeros((21, 34), int), "some": random.integers(0, 256, (21, 34))}
    samples = rgb[:, :, 0] << 16 | rgb[:, :, 1] << 8 | rgb[:, :, 2] | alpha[opacity] << 24
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000) if declared else ()
    is_used = declared and opacity != "none"
    expected = on_white(rgb, alpha[opacity][:, :, None]) if is_used else rgb
    assert_decodes(bmp_of(samples, 32, *masks, header=108 if declared else 40), expected)


def test_a_bmp_whose_alpha_is_not_read_is_refused_by_name() -> None:
    samples = np.random.default_rng(0).integers(0, 2**16, (21, 34))
    for masks in ((0x7C00, 0x3E0, 0x1F, 0x8000), (0xF00, 0xF0, 0xF, 0xF000)):
        assert reason_of(bmp_of(samples, 16, *masks, header=108)) == "unsupported"


@pytest.mark.parametrize("transparency", [{}, {"transparency": 1}], ids=["opaque", "transparent"])
@pytest.mark.parametrize("colours", [2, 16, 200])
def test_a_canvas_that_the_first_frame_of_a_gif_leaves_uncovered_is_white(
    colours: int, transparency: dict[str, int]
) -> None:
    paletted = Image.fromarray(scene(24, 40)).quantize(colours)
    data = encoded(paletted, "GIF", interlace=0, **transparency)
    expected = np.full((50, 60, 3), 255, dtype=np.uint8)
    expected[7:31, 9:49] = decode_rgb(data)
    place = data.index(b"," + struct.pack("<HHHH", 0, 0, 40, 24))
    moved = data[:6] + struct.pack("<HH", 60, 50) + data[10 : place + 1] + struct.pack("<HH", 9, 7) + data[place + 5 :]
    np.testing.assert_array_equal(decode_rgb(moved), expected)


@pytest.mark.parametrize("flags", [0x02, 0x12], ids=["without-alpha", "with-alpha"])
def test_a_canvas_that_the_first_frame_of_a_webp_leaves_uncovered_is_white(flags: int) -> None:
    rgb = scene(24, 40)
    body = encoded(Image.fromarray(rgb), "WEBP", lossless=True)[12:]
    sides = (39).to_bytes(3, "little") + (23).to_bytes(3, "little")
    frame = (4).to_bytes(3, "little") + (3).to_bytes(3, "little") + sides + bytes([100, 0, 0, 0]) + body
    canvas = bytes([flags, 0, 0, 0]) + (59).to_bytes(3, "little") + (49).to_bytes(3, "little")
    chunks = [(b"VP8X", canvas), (b"ANIM", bytes([1, 2, 3, 255, 0, 0])), (b"ANMF", frame), (b"ANMF", frame)]
    data = b"WEBP" + b"".join(
        name + struct.pack("<I", len(each)) + each + bytes(len(each) & 1) for name, each in chunks
    )
    expected = np.full((50, 60, 3), 255, dtype=np.uint8)
    expected[6:30, 8:48] = rgb
    np.testing.assert_array_equal(decode_rgb(b"RIFF" + struct.pack("<I", len(data)) + data), expected)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("has_extension", [True, False])
def test_the_alpha_of_a_webp_is_composited_on_white(lossless: bool, has_extension: bool) -> None:
    rgba = np.dstack([scene(24, 40), np.linspace(0, 255, 40).astype(np.uint8)[None].repeat(24, axis=0)])
    data = encoded(Image.fromarray(rgba), "WEBP", lossless=lossless, exact=True, quality=100)
    if not has_extension:
        if not lossless:
            pytest.skip("lossy pixels have alpha in the extended form alone")
        place = data.index(b"VP8L")
        data = b"RIFF" + struct.pack("<I", 4 + len(data) - place) + b"WEBP" + data[place:]
    assert_decodes(data, on_white(rgba[:, :, :3].astype(int), rgba[:, :, 3:].astype(int)), 1 if lossless else 24)


@pytest.mark.parametrize("transform", [0, 2], ids=["cmyk", "ycck"])
def test_inks_of_a_jpeg_are_inverted_as_adobe_writes_them(transform: int) -> None:
    stored = np.dstack([scene(32, 48), scene(32, 48, seed=1)[:, :, 0]]).astype(float)
    stored = np.repeat(np.repeat(stored[::8, ::8], 8, axis=0), 8, axis=1)  # flat blocks, which JPEG keeps
    # Pillow stores the complement of what it is given.
    data = encoded(Image.fromarray((255 - stored).astype(np.uint8), "CMYK"), "JPEG", quality=100)
    place = data.index(b"Adobe") + 11
    assert data[place] == 0
    data = data[:place] + bytes([transform]) + data[place + 1 :]
    first = stored[:, :, :3]
    if transform == 2:  # of which T.872 makes red, green and blue, and their complements are the inks as stored
        luma, blue, red = first[:, :, 0], first[:, :, 1] - 128, first[:, :, 2] - 128
        rgb = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=2)
        first = 255 - np.clip(rgb, 0, 255)
    assert_decodes(data, first * stored[:, :, 3:] / 255, 6)


def test_lab_of_a_tiff_becomes_srgb() -> None:
    """By the definitions of CIE 1976, the Bradford matrix from D50 to D65 and IEC 61966-2-1."""
    light, a, b = np.meshgrid(np.arange(100, 181, 20), np.arange(-12, 13, 6), np.arange(-12, 13, 6), indexing="ij")
    stored = np.stack([light, a & 255, b & 255], axis=-1).reshape(5, 25, 3).repeat(2, axis=0)
    f_y = (stored[:, :, 0] / 255 * 100 + 16) / 116
    signed = np.where(stored > 127, stored - 256, stored)
    f = np.stack([f_y + signed[:, :, 1] / 500, f_y, f_y - signed[:, :, 2] / 200], axis=2)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.96422, 1, 0.82521]
    to_linear = [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540]]
    to_linear += [[0.0719453, -0.2289914, 1.4052427]]
    linear = np.clip(xyz @ np.array(to_linear).T, 0, 1)
    encoded_light = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert_decodes(tiff_of(stored, 8, 8), encoded_light * 255, 4)
