"""Spectra agree with plain sums over pixels, find periods wherever they lie, and are finite whatever is shown."""

from __future__ import annotations

import cmath
import itertools
import math
import statistics
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import TypeAdapter
from scipy.ndimage import median_filter

from storage.local import LocalStore
from tasks.data.perturbations.base import ViewPicture
from tasks.features.kinds import ExtractorSpec
from tasks.features.spectrum import (
    BANDS,
    RADII,
    SpectrumSpec,
    bands,
    cross_difference,
    median_residual,
    periods,
    power,
    radial_profile,
    spectrum,
)
from tasks.spec.views import View


def noise(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def plane(height: int, width: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(height, width)).astype(np.float32)


def plain_power(filtered: npt.NDArray[np.float32], down: float, right: float) -> float:
    """The power per pixel of one frequency, in periods per pixel, by its definition."""
    terms = [
        float(value) * cmath.exp(-2j * math.pi * (down * y + right * x)) for (y, x), value in np.ndenumerate(filtered)
    ]
    return abs(sum(terms)) ** 2 / filtered.size


def frequencies(height: int, width: int) -> list[tuple[float, float]]:
    """Those of `fft2`, in its order."""
    down, right = ([at / side if 2 * at < side else at / side - 1 for at in range(side)] for side in (height, width))
    return list(itertools.product(down, right))


@pytest.mark.parametrize("shape", [(16, 16), (9, 14), (1, 5)])
def test_the_residual_is_what_scipys_median_filter_leaves(shape: tuple[int, int]) -> None:
    pixels = noise(*shape)[..., 0].astype(np.int16)
    expected = pixels - median_filter(pixels, size=3, mode="nearest")
    np.testing.assert_array_equal(median_residual(pixels), expected)


def test_a_cross_difference_is_that_of_the_diagonals() -> None:
    pixels = noise(7, 5)[..., 0].astype(np.int16)
    crossed = cross_difference(pixels)
    for y, x in itertools.product(range(6), range(4)):
        assert crossed[y, x] == pixels[y + 1, x + 1] - pixels[y + 1, x] - pixels[y, x + 1] + pixels[y, x]
    assert not crossed[6].any()
    assert not crossed[:, 4].any()


@pytest.mark.parametrize("shape", [(8, 8), (7, 10)])
def test_powers_are_those_of_the_definition(shape: tuple[int, int]) -> None:
    filtered = plane(*shape)
    expected = [plain_power(filtered, *frequency) for frequency in frequencies(*shape)]
    np.testing.assert_allclose(power(filtered).ravel(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (33, 50), (16, 16)])
def test_profiles_and_bands_are_means_over_frequencies(shape: tuple[int, int]) -> None:
    powers = power(plane(*shape))
    by_radius: dict[int, list[float]] = {}
    by_band: dict[tuple[int, int], list[float]] = {}
    for (down, right), value in zip(frequencies(*shape), powers.ravel().tolist(), strict=True):
        radius = min(int(math.hypot(down, right) / math.sqrt(0.5) * RADII), RADII - 1)
        by_radius.setdefault(radius, []).append(value)
        low, high = (min(int(abs(one) * 2 * BANDS), BANDS - 1) for one in (down, right))
        by_band.setdefault((low, high), []).append(value)
    profile = radial_profile(powers)
    for radius, values in by_radius.items():
        assert profile[radius] == pytest.approx(statistics.fmean(values), rel=1e-5)
    assert len(profile) == RADII
    assert (profile > 0).all()  # also between frequencies that there are
    either_first = [
        (statistics.fmean(by_band[i, j]) + statistics.fmean(by_band[j, i])) / 2
        for i, j in itertools.combinations_with_replacement(range(BANDS), 2)
    ]
    np.testing.assert_allclose(bands(powers), either_first, rtol=1e-5)


def test_periods_are_powers_at_multiples_of_a_sixteenth_over_their_surroundings() -> None:
    filtered = plane(39, 50)
    cut = filtered[:32, :48]
    profile = radial_profile(np.log(power(cut) + 1e-6))

    def relative(down: int, right: int) -> float:
        radius = min(int(math.hypot(down / 16, right / 16) / math.sqrt(0.5) * RADII), RADII - 1)
        return math.log(plain_power(cut, down / 16, right / 16) + 1e-6) - float(profile[radius])

    def both_ways(down: int, right: int) -> float:
        return (relative(down, right) + relative(-down, right)) / 2

    places = list(itertools.combinations_with_replacement(range(9), 2))[1:]
    expected = [(both_ways(i, j) + both_ways(j, i)) / 2 for i, j in places]
    np.testing.assert_allclose(periods(filtered), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("side", [64, 100, 250, 256])
@pytest.mark.parametrize("period", [2, 4, 8, 16])
def test_a_period_is_found_in_windows_of_any_side(period: int, side: int) -> None:
    repeated = plane(side, side) + 0.5 * np.cos(2 * np.pi * np.arange(side) / period)
    places = list(itertools.combinations_with_replacement(range(9), 2))[1:]
    found = periods(repeated.astype(np.float32))
    assert places[int(found.argmax())] == (0, 16 // period)


@pytest.mark.parametrize("shape", [(64, 64), (40, 56)])
def test_a_transposed_picture_has_the_same(shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    np.testing.assert_allclose(spectrum(pixels.transpose(1, 0, 2)), spectrum(pixels), atol=1e-3)


def test_the_negative_and_another_brightness_of_a_grey_picture_have_the_same() -> None:
    grey = np.repeat(noise(48, 48)[..., :1] // 2, 3, axis=2)
    np.testing.assert_allclose(spectrum(255 - grey), spectrum(grey), atol=1e-4)
    np.testing.assert_allclose(spectrum(grey + 100), spectrum(grey), atol=1e-4)


def test_how_strong_a_residual_is_hardly_matters() -> None:
    weak = np.repeat(noise(64, 64)[..., :1] // 8, 3, axis=2)
    np.testing.assert_allclose(spectrum(weak * 8), spectrum(weak), atol=0.01)


@pytest.mark.parametrize("side", [16, 17, 23, 31, 100])
def test_windows_of_any_side_have_finite_features_of_one_dimension(side: int) -> None:
    for pixels in (noise(side, side), np.full((side, side, 3), 255, np.uint8), noise(side, side)[..., :1].repeat(3, 2)):
        features = spectrum(pixels)
        assert features.shape == (408,)
        assert np.isfinite(features).all()


def test_a_constant_picture_has_no_spectrum_and_tiny_ones_are_continued() -> None:
    np.testing.assert_allclose(spectrum(np.full((256, 256, 3), 77, np.uint8)), 0, atol=1e-6)
    assert np.isfinite(spectrum(noise(1, 3))).all()


def test_the_extractor_is_read_by_its_kind_and_describes_the_pixels_of_the_view(tmp_path: Path) -> None:
    spec = TypeAdapter(ExtractorSpec).validate_python({"kind": "spectrum"})
    assert isinstance(spec, SpectrumSpec)
    assert spec.name == "spectrum"
    extractor = spec.load(LocalStore(tmp_path), None, "cpu")
    pictures = [noise(16, 16), noise(64, 48, seed=1)]
    view = View(path="fair", resolution=64)
    embedded = extractor.embed([extractor.prepare(b"", view, ViewPicture(one, None)) for one in pictures])
    assert embedded.dtype == np.float32
    assert embedded.shape == (2, extractor.dimension)
    np.testing.assert_array_equal(embedded[1], spectrum(pictures[1]))
