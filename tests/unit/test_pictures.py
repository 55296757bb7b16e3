"""Inspecting, decoding, fingerprinting and encoding pictures that nobody vouches for."""

import contextlib
import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.fft
from PIL import Image, ImageOps

from storage.errors import BadImage
from tasks.data.file_parts import MAX_SCANS
from tasks.data.pictures import (
    MAX_EXIF_BYTES,
    PictureFacts,
    Pixels,
    are_duplicates,
    decode_rgb,
    encode_jpeg,
    encode_png,
    estimate_jpeg_quality,
    hamming,
    hash_text,
    inspect_picture,
    perceptual_hash,
    perceptual_hash_of_thumbnail,
    thumbnail32,
    thumbnail_correlation,
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
    monkeypatch.setattr("tasks.data.pictures.MAX_BYTES", len(data) - 1)
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
    monkeypatch.setattr("tasks.data.pictures.MAX_READS", 1_000)
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
    monkeypatch.setattr("tasks.data.pictures.MAX_TIFF_VALUES", 10_000)
    data = tiff(*entries, order=order, big=big) + bytes(200_000)
    tracemalloc.start()
    try:
        assert reason_of(data) == reason
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_tiff_directory_in_a_directory_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.data.pictures.MAX_TIFF_VALUES", 10_000)
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
