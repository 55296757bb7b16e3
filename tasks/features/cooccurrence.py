"""How often patterns of neighbouring noise residuals occur: traces of how pixels came about, not what they show.

Residuals are what remains of a pixel when its neighbours have predicted it (SRM: Fridrich & Kodovsky 2012), quantised
and truncated to five levels. Counted are four of them in a row (SPAM: Pevny, Bas & Fridrich 2010), and those of the
three colours at one pixel (CRM: Goljan, Fridrich & Cogranne 2014). Patterns that a reflection, a transposition or the
other sign turns into one another count as one.
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
Levels = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

# A residual of r steps is rounded, and truncated to -2..2.
TRUNCATION = 2
LEVELS = 2 * TRUNCATION + 1
IN_A_ROW = 4
# The order of a difference, and its quantisation step: those of SRM, which are as large as the sum of the positive
# coefficients where that is not larger than 4.
DIFFERENCES = ((1, 1), (2, 2), (3, 3))
SQUARE_3_STEP = 4
SQUARE_5_STEP = 12
EXTREME_STEP = 1
CHROMA_STEP = 1

# Four residuals in a row, each from five pixels: what is smaller is continued at its borders.
MIN_SIDE = 8
# Of sparse patterns: every second pixel of every second row begins some of each kind, in whole tiles of so many.
SPARSE_STEP = 2
TILE = 8
SPARSE_MIN_SIDE = MIN_SIDE + TILE * SPARSE_STEP
# How many pixels down and across have patterns' first levels, of which every second one is taken; None: all that fit.
Starts = tuple[int, int] | None


class CooccurrenceSpec(ExtractorBase):
    """Co-occurrences of noise residuals: 2,267 square roots of relative frequencies. It does not see content.

    The square root makes frequent and rare patterns vary alike, so that a head on it needs no standardisation.
    """

    kind: Literal["cooccurrence"] = "cooccurrence"

    @property
    def name(self) -> str:
        return "cooccurrence"

    def load(self, store: Store, weights: Ref | None, device: str) -> Extractor:
        dimension = len(cooccurrences(np.zeros((MIN_SIDE, MIN_SIDE, 3), np.uint8)))
        return Extractor(prepare=_features, embed=np.stack, batch=256, dimension=dimension)


def _features(data: bytes, view: View, picture: ViewPicture) -> npt.NDArray[np.float32]:
    return cooccurrences(picture.pixels)


def cooccurrences(pixels: Pixels, *, is_sparse: bool = False) -> npt.NDArray[np.float32]:
    """Square roots of the relative frequencies of residual patterns: float32 (2267,), blocks whose squares sum to 1.

    Four in a row, along rows and columns together: of the luminance, differences of the first to the third order in
    their own direction and across, the 3x3 and the 5x5 square, the largest and the smallest difference from a
    neighbour; of R - G and of B - G, first differences. R, G and B at one pixel: the differences and the 3x3 square.
    Within a block patterns are in lexicographic order of the smallest of those that count as one. Of sparse ones, a
    quarter, all kinds begin at the same pixels (`sparse_starts`).

    Args:
        pixels: uint8 (h, w, 3), RGB.
        is_sparse: whether only patterns are counted that begin in every second row and column.
    """
    least = SPARSE_MIN_SIDE if is_sparse else MIN_SIDE
    short = [(0, max(0, least - side)) for side in pixels.shape[:2]]
    if any(missing for _, missing in short):
        pixels = np.pad(pixels, (*short, (0, 0)), mode="edge")
    starts = sparse_starts(*pixels.shape[:2]) if is_sparse else None
    red, green, blue = (np.ascontiguousarray(pixels[..., channel], dtype=np.int16) for channel in range(3))
    grey = luminance(red, green, blue)
    blocks = [*_difference_blocks(grey, starts), *_square_blocks(grey, starts), _extreme_block(grey, starts)]
    blocks += [_chroma_block(red - green, starts), _chroma_block(blue - green, starts)]
    found: npt.NDArray[np.float64] = np.concatenate([*blocks, *_joint_blocks(starts, red, green, blue)])
    return np.sqrt(found).astype(np.float32)


def sparse_starts(height: int, width: int) -> tuple[int, int]:
    """How many pixels down and across sparse patterns begin in: whole tiles, with room for the longest pattern."""
    tile = TILE * SPARSE_STEP
    return (height - MIN_SIDE) // tile * tile, (width - MIN_SIDE) // tile * tile


def _difference_blocks(grey: Plane, starts: Starts) -> list[npt.NDArray[np.float64]]:
    blocks = []
    for order, step_size in DIFFERENCES:
        along = across = np.zeros(LEVELS**IN_A_ROW, np.int64)
        for axis in (0, 1):
            levels = quantise(np.diff(grey, order, axis), step_size)
            along = along + _count_rows(levels, axis, starts)
            across = across + _count_rows(levels, 1 - axis, starts)
        blocks += [_frequencies(along, alike(IN_A_ROW)), _frequencies(across, alike(IN_A_ROW))]
    return blocks


def _square_blocks(grey: Plane, starts: Starts) -> list[npt.NDArray[np.float64]]:
    blocks = []
    for residual, step_size in ((square_3(grey), SQUARE_3_STEP), (square_5(grey), SQUARE_5_STEP)):
        levels = quantise(residual, step_size)
        blocks.append(_frequencies(_count_rows(levels, 0, starts) + _count_rows(levels, 1, starts), alike(IN_A_ROW)))
    return blocks


def _extreme_block(grey: Plane, starts: Starts) -> npt.NDArray[np.float64]:
    """Of the largest difference from one of the four neighbours and of the smallest, whose sign is turned."""
    down, right = np.diff(grey, axis=0), np.diff(grey, axis=1)
    differences = (down[1:, 1:-1], -down[:-1, 1:-1], right[1:-1, 1:], -right[1:-1, :-1])
    counts = np.zeros(LEVELS**IN_A_ROW, np.int64)
    for residual in (_largest(*differences), _largest(*(-difference for difference in differences))):
        levels = quantise(residual, EXTREME_STEP)
        counts = counts + _count_rows(levels, 0, starts) + _count_rows(levels, 1, starts)
    return _frequencies(counts, alike(IN_A_ROW, signs=False))


def _chroma_block(chroma: Plane, starts: Starts) -> npt.NDArray[np.float64]:
    counts = np.zeros(LEVELS**IN_A_ROW, np.int64)
    for axis in (0, 1):
        counts = counts + _count_rows(quantise(np.diff(chroma, axis=axis), CHROMA_STEP), axis, starts)
    return _frequencies(counts, alike(IN_A_ROW))


def _joint_blocks(starts: Starts, *colours: Plane) -> list[npt.NDArray[np.float64]]:
    same = alike(len(colours), reversals=False)

    def counted(residuals: list[Plane], step_size: int) -> Counts:
        levels = [quantise(residual, step_size) for residual in residuals]
        if starts is not None:
            levels = [one[: starts[0] : SPARSE_STEP, : starts[1] : SPARSE_STEP] for one in levels]
        return _count(levels)

    blocks = []
    for order, step_size in DIFFERENCES:
        counts = np.zeros(LEVELS ** len(colours), np.int64)
        for axis in (0, 1):
            counts = counts + counted([np.diff(colour, order, axis) for colour in colours], step_size)
        blocks.append(_frequencies(counts, same))
    squares = counted([square_3(colour) for colour in colours], SQUARE_3_STEP)
    return [*blocks, _frequencies(squares, same)]


def square_3(x: Plane) -> Plane:
    """The 3x3 square of SRM, [-1 2 -1; 2 -4 2; -1 2 -1], where it fits: (h - 2, w - 2)."""
    beside = x[:, :-2] + x[:, 2:] - 2 * x[:, 1:-1]
    residual: Plane = 2 * beside[1:-1] - beside[:-2] - beside[2:]
    return residual


def square_5(x: Plane) -> Plane:
    """The 5x5 square of SRM (Ker & Boehme's kernel), where it fits: (h - 4, w - 4)."""
    height = x.shape[0] - 4
    # Columns of the kernel are alike on the left and on the right.
    outer, inner, middle = x[:, :-4] + x[:, 4:], x[:, 1:-3] + x[:, 3:-1], x[:, 2:-2]

    def row(at: int, a: int, b: int, c: int) -> Plane:
        rows = slice(at, at + height)
        weighted: Plane = a * outer[rows] + b * inner[rows] + c * middle[rows]
        return weighted

    edge = row(0, -1, 2, -2) + row(4, -1, 2, -2)
    near = row(1, 2, -6, 8) + row(3, 2, -6, 8)
    return edge + near + row(2, -2, 8, -12)


def _largest(*residuals: Plane) -> Plane:
    largest: Plane = functools.reduce(np.maximum, residuals)
    return largest


def quantise(residual: Plane, step_size: int) -> Levels:
    """Residuals in steps, rounded half away from zero and truncated, plus `TRUNCATION`: 0..4.

    Counted in comparisons, which costs a tenth of a division and treats both signs alike.
    """
    levels = np.zeros(residual.shape, np.uint8)
    for level in range(TRUNCATION):
        bound = ((2 * level + 1) * step_size + 1) // 2  # the smallest integer of the next level
        levels += (residual >= bound).view(np.uint8)
        levels += (residual > -bound).view(np.uint8)
    return levels


def _count_rows(levels: Levels, axis: int, starts: Starts) -> Counts:
    """How often each pattern of four neighbours along an axis occurs: (625,)."""
    if starts is None:
        spans = [range(length) for length in levels.shape]
        spans[axis] = range(levels.shape[axis] - IN_A_ROW + 1)
    else:
        spans = [range(0, length, SPARSE_STEP) for length in starts]

    def shifted(by: int) -> Levels:
        down, across = (
            slice(by * (axis == n), by * (axis == n) + span.stop, span.step) for n, span in enumerate(spans)
        )
        return levels[down, across]

    return _count([shifted(by) for by in range(IN_A_ROW)])


def _count(digits: list[Levels]) -> Counts:
    """How often each pattern occurs, of which `digits` has the first, second ... level everywhere."""
    codes = digits[0].astype(np.uint16)
    for digit in digits[1:]:
        codes *= LEVELS
        codes += digit
    return np.bincount(codes.ravel(), minlength=LEVELS ** len(digits))


@functools.cache
def alike(length: int, *, signs: bool = True, reversals: bool = True) -> npt.NDArray[np.int64]:
    """The class of each pattern of that length, as a number (5 ** length,): those that count as one share it."""
    codes = np.arange(LEVELS**length)
    places = LEVELS ** np.arange(length)[::-1]
    digits = codes[:, None] // places % LEVELS
    same = [digits]
    if signs:
        same += [LEVELS - 1 - one for one in same]
    if reversals:
        same += [one[:, ::-1] for one in same]
    smallest = np.min([one @ places for one in same], axis=0)
    return np.unique(smallest, return_inverse=True)[1]


def _frequencies(counts: Counts, alike: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    frequencies: npt.NDArray[np.float64] = np.bincount(alike, weights=counts) / counts.sum()
    return frequencies
