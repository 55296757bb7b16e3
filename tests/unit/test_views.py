"""The fair and the raw path, and what the probe sees of a view."""

import io
from collections import Counter
from unittest.mock import Mock, call

import numpy as np
import pytest
from PIL import Image

import tasks.data.views as views_module
from storage.errors import BadImage, SpecError
from tasks.data.encoding import encode_jpeg, encode_png
from tasks.data.perturbations.base import ViewPicture
from tasks.data.perturbations.jpeg import jpeg
from tasks.data.pictures import Pixels, decode_rgb, inspect_picture
from tasks.data.views import (
    PROBE_FEATURE_NAMES,
    apply_view,
    blockiness,
    canonical_quality,
    fair_canonical,
    is_enlarged,
    make_views,
    probe_vector,
)
from tasks.spec.views import Canonical, Cell, View

CANONICAL = Canonical(side=96, qualities=((75, 1), (90, 2), (96, 5)))
GRID = tuple(
    View(path=path, resolution=resolution, perturbation=jpeg(quality))
    for path in ("fair", "raw")
    for resolution in ("native", 64, 32)
    for quality in (None, 60, 20)
)


def scene(height: int = 120, width: int = 160, seed: int = 0) -> Pixels:
    """A smooth coloured picture: noise at an eighth of the size, enlarged."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def view(name: str) -> View:
    path, cell = name.split("/", maxsplit=1)
    return View.model_validate({"path": path, **Cell.parse(cell).model_dump()})


def probe(data: bytes, name: str) -> dict[str, float]:
    picture = make_views(data, "1", [view(name)], CANONICAL)[view(name)]
    vector = probe_vector(inspect_picture(data), len(data), view(name), picture)
    assert vector.dtype == np.float32
    assert np.isfinite(vector).all()
    return dict(zip(PROBE_FEATURE_NAMES, vector.tolist(), strict=True))


def test_the_quality_of_an_image_never_changes() -> None:
    # Pinned: another draw would change every fair picture of every run.
    assert [canonical_quality(f"coco/{n}", CANONICAL) for n in range(8)] == [96, 96, 75, 75, 90, 75, 90, 90]


def test_qualities_are_drawn_in_proportion_to_their_counts() -> None:
    drawn = Counter(canonical_quality(f"image {n}", CANONICAL) for n in range(8_000))
    # Binomial standard deviations are at most 44 here.
    assert drawn[75] == pytest.approx(1_000, abs=160)
    assert drawn[90] == pytest.approx(2_000, abs=160)
    assert drawn[96] == pytest.approx(5_000, abs=160)


def test_a_histogram_without_photographs_is_refused() -> None:
    with pytest.raises(SpecError, match="at least one"):
        canonical_quality("1", Canonical(side=96, qualities=()))


def test_the_canonical_form_is_the_central_square_reduced_and_encoded_once() -> None:
    rgb = scene(120, 160)
    square = Image.fromarray(rgb).crop((20, 0, 140, 120)).resize((96, 96), Image.Resampling.BICUBIC)
    expected = decode_rgb(encode_jpeg(np.array(square), canonical_quality("7", CANONICAL)))
    np.testing.assert_array_equal(fair_canonical(rgb, "7", CANONICAL), expected)


def test_a_tall_picture_is_cropped_at_top_and_bottom() -> None:
    rgb = np.zeros((300, 100, 3), dtype=np.uint8)
    rgb[100:200] = 255
    assert fair_canonical(rgb, "1", CANONICAL).min() > 250


def test_reducing_is_antialiased() -> None:
    # A one-pixel checkerboard reduced without antialiasing would keep its black and white.
    checkerboard = np.repeat(((np.indices((960, 960)).sum(axis=0) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    inner = fair_canonical(checkerboard, "1", CANONICAL)[8:-8, 8:-8].astype(int)
    assert np.abs(inner - 127.5).max() < 4


def test_a_picture_is_enlarged_when_its_square_is_smaller_than_the_canonical_side() -> None:
    assert not is_enlarged(96, 96, CANONICAL)
    assert not is_enlarged(640, 96, CANONICAL)
    assert is_enlarged(95, 640, CANONICAL)


def test_every_view_has_its_size_and_encoding() -> None:
    made = make_views(encode_jpeg(scene(120, 160), 90), "1", GRID, CANONICAL)
    assert tuple(made) == GRID
    native = {"fair": (96, 96, 3), "raw": (120, 160, 3)}
    for a_view, picture in made.items():
        size = a_view.resolution
        assert picture.pixels.shape == (native[a_view.path] if size == "native" else (size, size, 3)), a_view.name
        assert picture.pixels.dtype == np.uint8
        if a_view.jpeg_quality is None:
            assert picture.encoded is None
        else:
            assert picture.encoded is not None
            assert inspect_picture(picture.encoded).jpeg_quality == a_view.jpeg_quality
            np.testing.assert_array_equal(decode_rgb(picture.encoded), picture.pixels)


def test_the_raw_path_stretches_without_a_crop() -> None:
    rgb = scene(120, 160)
    stretched = np.array(Image.fromarray(rgb).resize((64, 64), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(apply_view(rgb, view("raw/64/none")).pixels, stretched)


def test_the_raw_native_view_is_the_decoded_original() -> None:
    data = encode_jpeg(scene(), 80)
    made = make_views(data, "1", [view("raw/native/none")], CANONICAL)
    np.testing.assert_array_equal(made[view("raw/native/none")].pixels, decode_rgb(data))


def test_a_file_is_decoded_once_and_each_resolution_resized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_png(scene())
    decode = Mock(wraps=decode_rgb)
    resize = Mock(wraps=views_module._resize)
    monkeypatch.setattr(views_module, "decode_rgb", decode)
    monkeypatch.setattr(views_module, "_resize", resize)
    make_views(data, "1", GRID, CANONICAL)
    assert decode.call_args_list.count(call(data)) == 1
    assert sorted(side for (_, side), _ in resize.call_args_list) == [32, 32, 64, 64, 96]


def test_a_rotated_picture_has_the_views_of_its_upright_copy() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, format="PNG", exif=exif)
    rotated = make_views(buffer.getvalue(), "1", GRID, CANONICAL)
    upright = make_views(encode_png(decode_rgb(buffer.getvalue())), "1", GRID, CANONICAL)
    for a_view in GRID:
        np.testing.assert_array_equal(rotated[a_view].pixels, upright[a_view].pixels)


def test_a_bad_image_has_no_views() -> None:
    data = encode_jpeg(scene(), 80)
    with pytest.raises(BadImage, match="truncated"):
        make_views(data[: len(data) // 2], "1", GRID, CANONICAL)


def test_no_views_cost_a_decode_and_give_nothing() -> None:
    assert make_views(encode_png(scene()), "1", [], CANONICAL) == {}


def test_the_probe_sees_the_original_file_in_the_raw_native_view() -> None:
    data = encode_png(scene(120, 160))
    seen = probe(data, "raw/native/none")
    assert (seen["width"], seen["height"], seen["file_size"]) == (160, 120, len(data))
    assert seen["aspect"] == pytest.approx(160 / 120)
    assert (seen["is_jpeg"], seen["is_png"], seen["is_other_format"]) == (0, 1, 0)
    assert (seen["luma_table_mean"], seen["chroma_table_mean"], seen["jpeg_quality"]) == (0, 0, 0)
    assert seen["log_bytes_per_pixel"] == pytest.approx(np.log(len(data) / (160 * 120)))


def test_the_probe_sees_the_views_own_jpeg() -> None:
    seen = probe(encode_png(scene()), "fair/64/q20")
    made = make_views(encode_png(scene()), "1", [view("fair/64/q20")], CANONICAL)[view("fair/64/q20")]
    assert made.encoded is not None
    tables = inspect_picture(made.encoded).quantization_tables
    assert (seen["width"], seen["height"], seen["jpeg_quality"], seen["is_jpeg"]) == (64, 64, 20, 1)
    assert seen["file_size"] == len(made.encoded)
    assert seen["luma_table_mean"] == pytest.approx(np.mean(tables[0]))
    assert seen["chroma_table_mean"] == pytest.approx(np.mean(tables[1]))


def test_the_probe_sees_an_uncompressed_view_as_png() -> None:
    for name in ("fair/native/none", "fair/64/none", "raw/64/none"):
        seen = probe(encode_jpeg(scene(), 90), name)
        assert (seen["is_jpeg"], seen["is_png"], seen["jpeg_quality"]) == (0, 1, 0), name


def test_the_probe_sees_no_difference_between_formats_on_the_fair_path() -> None:
    """The same pixels, once as PNG and once as lossless WebP: on the fair path nothing is left of the file."""
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, format="WEBP", lossless=True)
    for name in ("fair/native/none", "fair/64/q20"):
        assert probe(encode_png(scene()), name) == probe(buffer.getvalue(), name)
    assert probe(encode_png(scene()), "raw/native/none") != probe(buffer.getvalue(), "raw/native/none")


def test_colour_means_are_those_of_the_pixels() -> None:
    rgb = np.zeros((64, 64, 3), dtype=np.uint8)
    rgb[:] = (10, 120, 250)
    picture = ViewPicture(rgb, None)
    data = encode_png(rgb)
    seen = probe_vector(inspect_picture(data), len(data), view("raw/native/none"), picture)
    first = PROBE_FEATURE_NAMES.index("mean_red")
    np.testing.assert_array_equal(seen[first : first + 3], [10, 120, 250])


def test_a_strongly_compressed_picture_has_blocks() -> None:
    # Grains of 128 / 37 pixels, which no 8-pixel grid fits.
    small = np.random.default_rng(0).integers(0, 256, (37, 37, 3), dtype=np.uint8)
    rgb = np.array(Image.fromarray(small).resize((128, 128), Image.Resampling.BICUBIC))
    assert max(blockiness(rgb)) < 1.1
    assert min(blockiness(decode_rgb(encode_jpeg(rgb, 5)))) > 1.3


def test_blockiness_tells_rows_from_columns() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, (np.arange(64) // 8) % 2 == 1] = 100
    along_rows, along_columns = blockiness(stripes)
    assert along_rows > 100
    assert along_columns == pytest.approx(1.0)


def test_a_picture_without_a_block_border_has_no_blockiness() -> None:
    assert blockiness(scene(16, 16)[:8, :8]) == (1.0, 1.0)
