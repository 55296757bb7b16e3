"""The kernel that decodes pictures smaller than they are: its own name, its own recipes, and near the exact one."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage.errors import BadImage
from tasks.data.encoding import decode_own_jpeg, encode_jpeg, encode_png
from tasks.data.pictures import Pixels, decode_rgb
from tasks.data.views import _resize, _resize_integers, decode_for_fair, make_views
from tasks.features.probe import ProbeSpec
from tasks.features.shards import embed_shard
from tasks.spec.experiment import Experiment
from tasks.spec.views import Canonical, View

EXACT = Canonical(side=96, qualities=((90, 1),))
SCALED = EXACT.model_copy(update={"kernel": "scaled"})
FAIR = View(path="fair", resolution="native")
RAW = View(path="raw", resolution=64)


def scene(height: int, width: int) -> Pixels:
    """A smooth coloured picture: a few grains of noise, enlarged."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def recipe(canonical: Canonical) -> dict[str, Any]:
    return embed_shard.recipe(
        images="x",
        views=FAIR,
        extractor=ProbeSpec(),
        weights=None,
        canonical=canonical,
        enlarge=False,
        source="s",
        shard=0,
        device="cpu",
        rows="all",
    )


def test_recipes_from_before_kernels_stay_what_they_are() -> None:
    assert EXACT.model_dump(mode="json") == {"side": 96, "qualities": [[90, 1]]}
    assert "kernel" not in recipe(EXACT)["arguments"]["canonical"]
    experiment = {
        "name": "x",
        "sources": [
            {"kind": "folder", "name": "a", "label": "real", "path": "a"},
            {"kind": "folder", "name": "b", "label": "fake", "path": "b"},
        ],
    }
    assert "canonical_kernel" not in Experiment.model_validate(experiment).model_dump(mode="json")
    named = Experiment.model_validate({**experiment, "canonical_kernel": "scaled"})
    assert named.model_dump(mode="json")["canonical_kernel"] == "scaled"


def test_the_kernel_is_part_of_a_recipe() -> None:
    assert recipe(SCALED)["arguments"]["canonical"]["kernel"] == "scaled"


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((191, 400), (96, 200)),  # libjpeg rounds up
        ((190, 400), (190, 400)),
        ((192, 400), (96, 200)),
        ((400, 385), (100, 97)),
        ((768, 1000), (96, 125)),
        ((1600, 1600), (200, 200)),
        ((90, 90), (90, 90)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_size_that_holds_the_canonical_side(
    size: tuple[int, int], decoded: tuple[int, int]
) -> None:
    data = encode_jpeg(scene(*size), 90)
    assert decode_for_fair(data, SCALED).shape[:2] == decoded
    assert decode_for_fair(data, EXACT).shape[:2] == size


def test_other_formats_are_decoded_in_full() -> None:
    rgb = scene(400, 400)
    np.testing.assert_array_equal(decode_for_fair(encode_png(rgb), SCALED), rgb)


def test_a_scaled_view_is_near_the_exact_one_and_not_equal_to_it() -> None:
    # The central square begins at a multiple of eight pixels: elsewhere it is up to half a decoded pixel off as well.
    data = encode_jpeg(scene(800, 992), 95)
    exact, scaled = (make_views(data, "1", [FAIR], canonical)[FAIR].pixels for canonical in (EXACT, SCALED))
    difference = np.abs(exact.astype(int) - scaled)
    assert 0 < difference.mean() < 2
    assert np.quantile(difference, 0.99) <= 8


@pytest.mark.parametrize("size", [(130, 150), (320, 480), (96, 200)])
def test_without_a_reduction_the_resize_is_a_level_off_at_most(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    exact, integers = (resize(noise, 96).astype(int) for resize in (_resize, _resize_integers))
    assert np.abs(exact - integers).max() <= 1


def test_the_raw_path_knows_one_kernel_only() -> None:
    data = encode_jpeg(scene(800, 1000), 95)
    exact, scaled = (make_views(data, "1", [FAIR, RAW], canonical)[RAW].pixels for canonical in (EXACT, SCALED))
    np.testing.assert_array_equal(exact, scaled)


def test_a_rotated_jpeg_is_upright_at_every_size() -> None:
    rgb = scene(400, 800)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", exif=exif)
    assert decode_rgb(buffer.getvalue()).shape == (800, 400, 3)
    assert decode_for_fair(buffer.getvalue(), SCALED).shape == (200, 100, 3)


def test_a_truncated_jpeg_is_refused_at_every_size() -> None:
    data = encode_jpeg(scene(800, 1000), 95)
    with pytest.raises(BadImage, match="truncated"):
        make_views(data[: len(data) // 2], "1", [FAIR], SCALED)


@pytest.mark.parametrize("quality", [20, 60, 95, 100])
def test_an_own_jpeg_decodes_as_any_other(quality: int) -> None:
    encoded = encode_jpeg(scene(96, 136), quality)
    np.testing.assert_array_equal(decode_own_jpeg(encoded), decode_rgb(encoded))
