"""The spectrum of what a picture's neighbourhoods do not predict: traces of upsampling, not what a picture shows.

Generators that enlarge what they draw leave too little or too much at high frequencies (Durall, Keuper & Keuper 2020),
and peaks at the periods of their enlargements (Synthbuster: Bammey 2023). Peaks are looked for at periods in pixels and
not at bins of a transform, so that a window of any side has the same features (Mandelli et al. 2025).
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
import numpy.typing as npt

from storage.objects import Ref
from storage.store import Store
from tasks.data.perturbations.base import ViewPicture
from tasks.features.base import Extractor, ExtractorBase
from tasks.features.luminance import Plane, luminance
from tasks.spec.views import View

Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Bins = npt.NDArray[np.uint8]

# Every frequency that is a multiple of 1/16 per pixel: periods 16, 8, 4 and 2, and what is between them.
LONGEST_PERIOD = 16
# Bands are 1/16 wide, so that every one has frequencies of the smallest window.
BANDS = 8
RADII = 40
MIN_SIDE = 16

# The power per pixel below which there is nothing: in 256 by 256, one pixel that differs by a quarter.
_FLOOR = 1e-6

# The shapes whose bins are kept, a byte per pixel: windows have few, pictures as they are have any.
_SHAPES = 4


class SpectrumSpec(ExtractorBase):
    """Log spectra of the residual of a median filter and of cross-differences. It does not see content."""

    kind: Literal["spectrum"] = "spectrum"

    @property
    def name(self) -> str:
        return "spectrum"

    def load(self, store: Store, weights: Ref | None, device: str) -> Extractor:
        dimension = len(spectrum(np.zeros((MIN_SIDE, MIN_SIDE, 3), np.uint8)))
        return Extractor(prepare=_features, embed=np.stack, batch=256, dimension=dimension)


def _features(data: bytes, view: View, picture: ViewPicture) -> Float:
    return spectrum(picture.pixels)


def spectrum(pixels: Pixels) -> Float:
    """Natural logarithms of powers: float32 (408,), of luminance, then of R - G.

    Of the residual of a median filter: its radial profile, bands of both frequencies, and periods; of
    cross-differences: their radial profile and periods. Profiles and bands are relative to their own mean, so that it
    does not matter how strong a residual is; a period is relative to the other frequencies of its radius.

    Args:
        pixels: uint8 (h, w, 3), RGB; what is smaller than 16 pixels is continued at its borders.
    """
    short = [(0, max(0, MIN_SIDE - side)) for side in pixels.shape[:2]]
    pixels = np.pad(pixels, (*short, (0, 0)), mode="edge")
    red, green, blue = (np.ascontiguousarray(pixels[..., channel], dtype=np.int16) for channel in range(3))
    blocks = []
    for plane in (luminance(red, green, blue), red - green):
        residual, crossed = median_residual(plane), cross_difference(plane)
        powers = power(_windowed(residual))
        blocks += [_relative(radial_profile(powers)), _relative(bands(powers))]
        blocks += [periods(residual), _relative(radial_profile(power(_windowed(crossed))))]
        blocks.append(periods(crossed))
    return np.concatenate(blocks).astype(np.float32)


def median_residual(plane: Plane) -> Float:
    """A plane (h, w) less the median of every 3x3 neighbourhood, at the borders of the pixels continued: float32."""
    padded = np.pad(plane, 1, mode="edge")
    low, middle, high = _sorted(padded[:-2], padded[1:-1], padded[2:])
    # The median of nine is that of the largest low, the median middle and the smallest high of three sorted columns.
    low = _sorted(low[:, :-2], low[:, 1:-1], low[:, 2:])[2]
    middle = _sorted(middle[:, :-2], middle[:, 1:-1], middle[:, 2:])[1]
    high = _sorted(high[:, :-2], high[:, 1:-1], high[:, 2:])[0]
    return (plane - _sorted(low, middle, high)[1]).astype(np.float32)


def _sorted(*three: Plane) -> tuple[Plane, ...]:
    """Three planes with the values of each place in ascending order."""
    a, b, c = three
    a, b = np.minimum(a, b), np.maximum(a, b)
    b, c = np.minimum(b, c), np.maximum(b, c)
    return np.minimum(a, b), np.maximum(a, b), c


def cross_difference(plane: Plane) -> Float:
    """How far each 2x2 neighbourhood of a plane (h, w) is from a plain slope, 0 at the last row and column: float32."""
    padded = np.pad(plane, ((0, 1), (0, 1)), mode="edge")
    return np.diff(np.diff(padded, axis=0), axis=1).astype(np.float32)


def power(filtered: Float) -> Float:
    """Power per pixel of the frequencies of a plane (h, w) as `fft2` has them: float32 (h, w)."""
    from scipy.fft import fft2

    transformed = fft2(filtered)
    powers: Float = (transformed.real**2 + transformed.imag**2) / filtered.size
    return powers


def radial_profile(powers: Float) -> Double:
    """Mean of powers (h, w) by radius, in steps up to the diagonal; interpolated where none is."""
    radius = _radii(*powers.shape).ravel()
    counts = np.bincount(radius, minlength=RADII)
    filled = np.flatnonzero(counts)
    sums = np.bincount(radius, weights=powers.ravel(), minlength=RADII)
    return np.interp(np.arange(RADII), filled, sums[filled] / counts[filled])


def bands(powers: Float) -> Double:
    """Mean of powers (h, w) by both frequencies, either first: (36,), the upper triangle of 8 by 8."""
    band = _bands(*powers.shape).ravel()
    means = np.bincount(band, weights=powers.ravel(), minlength=BANDS**2) / np.bincount(band, minlength=BANDS**2)
    square = means.reshape(BANDS, BANDS)
    both: Double = (square + square.T)[np.triu_indices(BANDS)] / 2
    return both


def periods(filtered: Float) -> Double:
    """Logarithms of the power at periods of a plane (h, w), relative to their mean at that radius: (44,).

    Both frequencies are multiples of 1/16 up to 1/2, either first: the upper triangle of 9 by 9 without frequency 0,
    means over both directions of a diagonal. Taken of as many rows and columns as are a multiple of 16: there periods
    are frequencies of the transform itself.
    """
    height, width = (side // LONGEST_PERIOD * LONGEST_PERIOD for side in filtered.shape)
    logarithms = np.log(power(filtered[:height, :width]) + _FLOOR)
    every = np.s_[:: height // LONGEST_PERIOD, :: width // LONGEST_PERIOD]
    # Relative to the mean of logarithms, in which a peak hides no other.
    peaks = logarithms[every] - radial_profile(logarithms)[_radii(height, width)[every]]  # (16, 16)
    mirrored = (peaks + np.roll(peaks[::-1], 1, axis=0)) / 2  # row -k leans the other way than row k
    both: Double = ((mirrored + mirrored.T) / 2)[np.triu_indices(LONGEST_PERIOD // 2 + 1)][1:]
    return both


def _relative(powers: Double) -> Double:
    logarithms: Double = np.log(powers + _FLOOR)
    relative: Double = logarithms - logarithms.mean()
    return relative


def _windowed(filtered: Float) -> Float:
    """With a Hann window over both sides, against what the borders would add."""
    rows, columns = (np.hanning(side + 2)[1:-1].astype(np.float32) for side in filtered.shape)
    windowed: Float = filtered * rows[:, None] * columns
    return windowed


@functools.lru_cache(maxsize=_SHAPES)
def _radii(height: int, width: int) -> Bins:
    """In which step of the radius each frequency of `fft2` is: (h, w)."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    steps: Bins = np.minimum((radius / np.sqrt(0.5) * RADII).astype(np.uint8), RADII - 1)
    return steps


@functools.lru_cache(maxsize=_SHAPES)
def _bands(height: int, width: int) -> Bins:
    """In which pair of bands each frequency of `fft2` is, the vertical one first: (h, w)."""
    rows, columns = (
        np.minimum((np.abs(frequencies) * 2 * BANDS).astype(np.uint8), BANDS - 1)
        for frequencies in (np.fft.fftfreq(height), np.fft.fftfreq(width))
    )
    pairs: Bins = rows[:, None] * BANDS + columns
    return pairs
