"""The probe for the history of files: it sees an encoding before the last one, on its grid and nowhere else."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from tasks.data.encoding import encode_jpeg_exactly
from tasks.data.perturbations.base import ViewPicture
from tasks.data.pictures import Pixels
from tasks.data.views import make_views, window_place
from tasks.features.history import DIMENSION, FREQUENCIES, LARGEST, HistorySpec, history_features
from tasks.spec.views import Canonical, View


def photograph(seed: int, side: int = 200) -> Pixels:
    """Smooth shapes with a little noise: uint8 (side, side, 3)."""
    random = np.random.default_rng(seed)
    plane = gaussian_filter(random.normal(size=(side, side, 3)), (3, 3, 0)) * 300 + 128
    pixels: Pixels = np.clip(plane + random.normal(size=plane.shape) * 4, 0, 255).astype(np.uint8)
    return pixels


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_coefficients_are_those_of_the_blocks_of_the_grid() -> None:
    pixels = photograph(0, 40)
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    counts = np.zeros(LARGEST + 2)
    for top in (3, 11, 19, 27):
        for left in (5, 13, 21, 29):
            size = round(abs(dctn(luma[top : top + 8, left : left + 8], norm="ortho")[FREQUENCIES[2]]))
            if size < len(counts):
                counts[size] += 2 if size == 0 else 1
    beside = (counts[:-2] + counts[2:]) / 2
    expected = np.log((counts[1:-1] + 1) / (beside + 1))
    found = history_features(pixels, (3, 5)).reshape(-1)[2 * LARGEST : 3 * LARGEST]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_earlier_encoding_is_seen_on_its_own_grid_alone() -> None:
    """Steps of quality 50 for the first frequency, 11: coefficients gather at 11 and 22 and are rare between."""
    saved = [decoded(encode_jpeg_exactly(photograph(seed), 50)) for seed in range(6)]
    clean = [photograph(seed) for seed in range(6)]

    def gathered(pictures: list[np.ndarray], grid: tuple[int, int]) -> float:
        first = np.mean([history_features(picture, grid)[:LARGEST] for picture in pictures], axis=0)
        return float(first[10] - first[[7, 14]].mean())

    assert gathered(saved, (0, 0)) > 0.8
    assert abs(gathered(saved, (4, 4))) < 0.5
    assert abs(gathered(clean, (0, 0))) < 0.5


def test_a_window_is_looked_at_on_the_pictures_grid() -> None:
    canonical = Canonical(side=64, qualities=((96, 1),))
    view = View(path="crop", resolution=128)
    data = encode_jpeg_exactly(photograph(1), 50)
    made = make_views(data, "a", [view], canonical)[view]
    assert made.place == window_place("a", 0, 200, 200, 128)
    right, wrong = (
        HistorySpec(phase=phase).load(None, None, "cpu").prepare(data, view, made)  # type: ignore[arg-type]
        for phase in ("right", "wrong")
    )
    top, left = made.place
    np.testing.assert_array_equal(right, history_features(made.pixels, (-top, -left)))
    np.testing.assert_array_equal(wrong, history_features(made.pixels, (4 - top, 4 - left)))


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("side", [16, 64])
def test_features_of_constant_pictures_are_finite(value: int, side: int) -> None:
    features = history_features(np.full((side, side, 3), value, np.uint8), (7, 3))
    assert features.shape == (DIMENSION,)
    assert np.isfinite(features).all()


def test_subsampled_chroma_changes_between_pairs_of_pixels() -> None:
    own = photograph(2)
    halved = np.repeat(np.repeat(own[::2, ::2], 2, axis=0), 2, axis=1)
    assert (history_features(halved, (0, 0))[-5:-1] > 3).all()
    assert (history_features(halved, (1, 1))[-5:-1] < -3).all()
    assert (np.abs(history_features(own, (0, 0))[-5:-1]) < 0.5).all()


def test_a_picture_that_is_no_window_has_its_own_corner() -> None:
    assert ViewPicture(photograph(0, 16), None).place == (0, 0)
