"""Colours of files with a profile: sRGB by matrices in floating point, or as they are."""

import io
import struct
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.data import colours
from tasks.data.encoding import encode_jpeg, encode_png
from tasks.data.pictures import Pixels, decode_rgb
from tests.property.image_mutations import png_chunk
from tests.unit import icc_profiles as icc
from tests.unit.test_pictures import encoded, scene

P3 = icc.rgb_profile(icc.DISPLAY_P3, icc.srgb_curve())
ADOBE = icc.rgb_profile(icc.ADOBE_RGB, icc.gamma_curve(icc.ADOBE_GAMMA))
# LittleCMS rounds within its 8-bit tables: at most one level, plus the half of rounding to a level.
TOLERANCE = 1.5


def in_p3(rgb: Pixels) -> icc.Floats:
    return icc.in_srgb(rgb, icc.DISPLAY_P3, icc.srgb_to_linear)


def in_adobe(rgb: Pixels) -> icc.Floats:
    return icc.in_srgb(rgb, icc.ADOBE_RGB, icc.power(icc.ADOBE_GAMMA))


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with chunks behind its header."""
    return png[:33] + b"".join(png_chunk(name, body) for name, body in chunks) + png[33:]


def iccp(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"a name\0\0" + zlib.compress(profile)


def with_profile(rgb: Pixels, file_format: str, profile: bytes) -> bytes:
    of_format: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}
    options = of_format.get(file_format, {})
    if file_format == "AVIF":
        options = {"quality": 100, "subsampling": "4:4:4"}
    return encoded(Image.fromarray(rgb), file_format, icc_profile=profile, **options)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize(("profile", "expected"), [(P3, in_p3), (ADOBE, in_adobe)], ids=["display-p3", "adobe-rgb"])
def test_an_embedded_profile_is_applied(file_format: str, profile: bytes, expected: Callable[[Pixels], Pixels]) -> None:
    rgb = scene(40, 56, seed=3)
    data = with_profile(rgb, file_format, profile)
    # The file's own pixels are what another decoder makes of it.
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_allclose(decode_rgb(data), expected(stored), atol=TOLERANCE)
    assert np.abs(expected(stored) - stored).mean() > 2


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(icc.rgb_profile(icc.SRGB, icc.srgb_curve(), "anything"), id="by-a-formula"),
        pytest.param(
            icc.rgb_profile(icc.SRGB, icc.sampled_curve(icc.srgb_to_linear(np.linspace(0, 1, 1024)))), id="by-a-table"
        ),
    ],
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_srgb_profile_of_any_name_leaves_every_pixel(file_format: str, profile: bytes) -> None:
    rgb = scene(40, 56, seed=4)
    plain = with_profile(rgb, file_format, b"")
    np.testing.assert_array_equal(decode_rgb(with_profile(rgb, file_format, profile)), decode_rgb(plain))


def test_a_profile_that_only_calls_itself_srgb_is_applied() -> None:
    rgb = scene()
    data = with_profile(rgb, "PNG", icc.rgb_profile(icc.DISPLAY_P3, icc.srgb_curve(), "sRGB IEC61966-2.1"))
    np.testing.assert_allclose(decode_rgb(data), in_p3(rgb), atol=TOLERANCE)


def test_the_reduced_decoding_is_converted_too() -> None:
    jpeg = encode_jpeg(scene(160, 240), 95)
    reduced = decode_rgb(jpeg, at_least=40)
    assert reduced.shape == (40, 60, 3)
    got = decode_rgb(jpeg[:2] + icc.app2(P3) + jpeg[2:], at_least=40)
    np.testing.assert_allclose(got, in_p3(reduced), atol=TOLERANCE)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(icc.grey_profile(icc.gamma_curve(1.0)), id="grey"),
        pytest.param(icc.rgb_profile(icc.DISPLAY_P3, icc.gamma_curve(1.0)), id="rgb"),
    ],
)
def test_a_grey_picture_takes_the_curve_and_stays_grey(file_format: str, profile: bytes) -> None:
    """As Chromium does: 100 of 255 in linear light is 168."""
    ramp = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    options = {"quality": 100} if file_format == "JPEG" else {}
    plain = encoded(Image.fromarray(ramp), file_format, **options)
    stored = np.asarray(Image.open(io.BytesIO(plain)))
    data = encoded(Image.fromarray(ramp), file_format, icc_profile=profile, **options)
    rgb = decode_rgb(data)
    assert np.ptp(rgb, axis=2).max() == 0
    np.testing.assert_allclose(rgb[:, :, 0], 255 * icc.srgb_from_linear(stored / 255), atol=TOLERANCE)


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(icc.grey_profile(icc.gamma_curve(1.0)), id="of-grey"),
        pytest.param(icc.cmyk_profile(), id="of-inks"),
        pytest.param(P3[:300], id="cut-off"),
        pytest.param(b"nothing like it" * 20, id="no-profile"),
        pytest.param(P3[:36] + b"xxxx" + P3[40:], id="without-its-signature"),
        pytest.param(P3[:12] + b"link" + P3[16:], id="a-link-between-devices"),
        pytest.param(P3 + bytes(colours.MAX_PROFILE_BYTES), id="beyond-all-sizes"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_profile_that_is_broken_or_of_other_colours_is_passed_over(profile: bytes) -> None:
    rgb = scene()
    np.testing.assert_array_equal(decode_rgb(with_chunks(encode_png(rgb), iccp(profile))), rgb)


def test_transparency_is_blended_after_the_conversion() -> None:
    rgb = np.full((16, 16, 3), (200, 80, 40), dtype=np.uint8)
    alpha = np.full((16, 16, 1), 128, dtype=np.uint8)
    data = encoded(Image.fromarray(np.dstack([rgb, alpha])), "PNG", icc_profile=P3)
    blended = (in_p3(rgb) * 128 + 255 * 127) / 255
    np.testing.assert_allclose(decode_rgb(data), blended, atol=TOLERANCE)


def test_a_transparent_colour_is_found_before_the_conversion() -> None:
    rgb = np.full((16, 16, 3), (200, 80, 40), dtype=np.uint8)
    rgb[:, 8:] = (10, 200, 90)
    data = encoded(Image.fromarray(rgb), "PNG", transparency=(10, 200, 90), icc_profile=P3)
    got = decode_rgb(data)
    assert (got[:, 8:] == 255).all()
    np.testing.assert_allclose(got[:, :8], in_p3(rgb[:, :8]), atol=TOLERANCE)


def test_a_palette_is_converted() -> None:
    paletted = Image.fromarray(scene()).quantize(16)
    stored = np.asarray(paletted.convert("RGB"))
    np.testing.assert_allclose(decode_rgb(encoded(paletted, "PNG", icc_profile=P3)), in_p3(stored), atol=TOLERANCE)


@pytest.mark.parametrize("inks", [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (1, 0, 1, 0), (0, 0, 0, 1)])
@pytest.mark.parametrize("file_format", ["TIFF", "JPEG"])
def test_inks_are_what_their_profile_says(inks: tuple[int, ...], file_format: str) -> None:
    picture = Image.new("CMYK", (16, 16), tuple(255 * ink for ink in inks))
    options = {"quality": 100, "subsampling": 0} if file_format == "JPEG" else {}
    data = encoded(picture, file_format, icc_profile=icc.cmyk_profile(), **options)
    expected = icc.lab_in_srgb(icc.corner_lab(*inks))
    # The table holds Lab in bytes.
    np.testing.assert_allclose(decode_rgb(data), np.broadcast_to(expected, (16, 16, 3)), atol=3)


@pytest.mark.parametrize(
    ("pieces", "is_applied"),
    [
        pytest.param([icc.app2(P3)], True, id="one"),
        pytest.param([icc.app2(P3[:200], 1, 2), icc.app2(P3[200:], 2, 2)], True, id="two"),
        pytest.param([icc.app2(P3[200:], 2, 2), icc.app2(P3[:200], 1, 2)], True, id="two-in-another-order"),
        pytest.param([icc.app2(P3), icc.app2(P3)], True, id="doubled"),
        pytest.param([icc.app2(P3[:200], 1, 2)], False, id="half"),
        pytest.param([icc.app2(P3, 0, 1)], False, id="counted-from-zero"),
        pytest.param([icc.app2(P3, 1, 0)], False, id="one-of-none"),
        pytest.param([icc.app2(P3[:200], 1, 2), icc.app2(P3[200:], 2, 3)], False, id="two-of-two-and-of-three"),
        pytest.param([b"\xff\xe2\x00\x0eICC_PROFILE\x00"], False, id="without-a-number"),
        pytest.param([b"\xff\xe2\x00\x10ICC_PROFILE\x00\x01\x01"], False, id="without-a-profile"),
    ],
)
def test_the_pieces_of_a_jpegs_profile_are_joined_as_browsers_join_them(pieces: list[bytes], is_applied: bool) -> None:
    """Chromium 156 was asked for each; it applies a doubled one, which libjpeg refuses as a bad marker."""
    jpeg = encode_jpeg(scene(), 95, "444")
    stored = decode_rgb(jpeg)
    for place in (2, jpeg.index(b"\xff\xda")):
        got = decode_rgb(jpeg[:place] + b"".join(pieces) + jpeg[place:])
        if is_applied:
            np.testing.assert_allclose(got, in_p3(stored), atol=TOLERANCE)
        else:
            np.testing.assert_array_equal(got, stored)


def gama(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(100_000 / gamma))


def chrm(primaries: tuple[tuple[float, float], ...]) -> tuple[bytes, bytes]:
    numbers = [round(100_000 * value) for point in (icc.D65, *primaries) for value in point]
    return b"cHRM", struct.pack(">8I", *numbers)


def test_a_pngs_gamma_and_chromaticities_are_applied() -> None:
    rgb = scene()
    png = encode_png(rgb)
    linear = icc.in_srgb(rgb, icc.SRGB, icc.power(1.0))
    np.testing.assert_allclose(decode_rgb(with_chunks(png, gama(1.0))), linear, atol=TOLERANCE)
    of_p3 = icc.in_srgb(rgb, icc.DISPLAY_P3, icc.power(2.2))
    np.testing.assert_allclose(decode_rgb(with_chunks(png, gama(2.2), chrm(icc.DISPLAY_P3))), of_p3, atol=TOLERANCE)


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([gama(2.2)], id="the-gamma-that-stands-for-srgb"),
        pytest.param([chrm(icc.DISPLAY_P3)], id="chromaticities-without-a-gamma"),
        pytest.param([(b"sRGB", b"\0"), gama(1.0), chrm(icc.DISPLAY_P3)], id="srgb-is-said"),
        pytest.param([(b"gAMA", bytes(4)), chrm(icc.DISPLAY_P3)], id="no-gamma"),
        pytest.param([gama(1.0), (b"cHRM", bytes(32))], id="no-colours"),
        pytest.param([(b"gAMA", b"\xff"), (b"cHRM", b"\0")], id="too-short"),
        pytest.param([(b"cICP", bytes([12, 16, 0, 1]))], id="pq-has-no-one-rule"),
        pytest.param([(b"cICP", bytes([12, 13, 0, 0]))], id="the-narrow-range"),
        pytest.param([(b"cICP", bytes([1, 13, 0, 1])), iccp(P3)], id="code-points-come-first"),
    ],
)
def test_a_png_is_srgb_where_nothing_usable_says_otherwise(chunks: list[tuple[bytes, bytes]]) -> None:
    rgb = scene()
    np.testing.assert_array_equal(decode_rgb(with_chunks(encode_png(rgb), *chunks)), rgb)


@pytest.mark.parametrize(
    ("code", "primaries", "linear"),
    [
        ((12, 13), icc.DISPLAY_P3, icc.srgb_to_linear),
        ((9, 13), icc.REC_2020, icc.srgb_to_linear),
        ((12, 4), icc.DISPLAY_P3, icc.power(2.2)),
        ((1, 8), icc.SRGB, icc.power(1.0)),
        ((9, 1), icc.REC_2020, icc.power(2.4)),
    ],
)
def test_code_points_are_applied_in_png_and_avif(
    code: tuple[int, int], primaries: tuple[tuple[float, float], ...], linear: Callable[[icc.Floats], icc.Floats]
) -> None:
    rgb = scene()
    png = with_chunks(encode_png(rgb), (b"cICP", bytes([*code, 0, 1])))
    np.testing.assert_allclose(decode_rgb(png), icc.in_srgb(rgb, primaries, linear), atol=TOLERANCE)
    avif = encoded(Image.fromarray(rgb), "AVIF", quality=100, subsampling="4:4:4")
    stored = decode_rgb(avif)
    place = avif.index(b"colrnclx") + 8
    coded = avif[:place] + struct.pack(">HH", *code) + avif[place + 4 :]
    np.testing.assert_allclose(decode_rgb(coded), icc.in_srgb(stored, primaries, linear), atol=TOLERANCE)


def test_a_broken_profile_leaves_the_gamma() -> None:
    rgb = scene()
    png = with_chunks(encode_png(rgb), iccp(b"nonsense" * 30), gama(1.0))
    np.testing.assert_allclose(decode_rgb(png), icc.in_srgb(rgb, icc.SRGB, icc.power(1.0)), atol=TOLERANCE)


def test_exif_alone_says_nothing_of_colours() -> None:
    """As in browsers: ColorSpace 65535 with the interoperability index R03, which cameras mean as Adobe RGB."""
    exif = Image.Exif()
    exif[0xA001] = 65535
    exif.get_ifd(0xA005)[1] = "R03"
    rgb = scene()
    marked = encoded(Image.fromarray(rgb), "JPEG", quality=95, exif=exif)
    np.testing.assert_array_equal(decode_rgb(marked), decode_rgb(encoded(Image.fromarray(rgb), "JPEG", quality=95)))


def test_equal_files_have_equal_pixels_in_any_number_of_threads() -> None:
    files = [with_profile(scene(120, 160, seed=seed), "PNG", profile) for seed in range(6) for profile in (P3, ADOBE)]
    one_by_one = [decode_rgb(data) for data in files]
    colours._conversion.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        for got, expected in zip(pool.map(decode_rgb, files * 4), one_by_one * 4, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_a_profile_of_endless_programs_costs_nothing() -> None:
    """One element, named 300,000 times: LittleCMS would run it as often for each node of its table."""
    count = 300_000
    element = b"matf" + bytes(4) + struct.pack(">HH", 3, 3)
    element += struct.pack(">12f", *np.eye(3).ravel(), 0, 0, 0)
    start = 16 + 8 * count
    program = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, count)
    program += struct.pack(">II", start, len(element)) * count + element
    tags = {
        name: icc.xyz(one)
        for name, one in zip((b"rXYZ", b"gXYZ", b"bXYZ"), icc.colorants(icc.DISPLAY_P3).T, strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), icc.srgb_curve()) | {b"D2B0": program}
    rgb = scene()
    data = with_chunks(encode_png(rgb), iccp(icc.profile(b"RGB ", tags)))
    began = time.process_time()
    got = decode_rgb(data)
    assert time.process_time() - began < 1.0
    np.testing.assert_allclose(got, in_p3(rgb), atol=TOLERANCE)
