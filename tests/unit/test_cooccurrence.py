"""Co-occurrences agree with plain loops, stay what they are in a mirror, and are finite whatever the picture shows."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import TypeAdapter

from storage.local import LocalStore
from tasks.data.perturbations.base import ViewPicture
from tasks.data.pictures import Pixels
from tasks.features.cooccurrence import CooccurrenceSpec, cooccurrences, quantise, square_3, square_5
from tasks.features.kinds import ExtractorSpec
from tasks.spec.views import View

Pattern = tuple[int, ...]
Grid = list[list[int]]

SQUARE_3 = [[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]
SQUARE_5 = [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]


def noise(height: int, width: int, spread: int = 6, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A picture whose residuals reach all levels; its channels differ."""
    random = np.random.default_rng(seed)
    slope = np.add.outer(np.arange(height), 2 * np.arange(width))[..., None]
    return np.clip(40 + slope + random.integers(-spread, spread + 1, (height, width, 3)), 0, 255).astype(np.uint8)


def level(residual: int, step: int) -> int:
    """Rounded half away from zero, and truncated to -2..2."""
    rounded = math.floor(abs(residual) / step + 0.5)
    return int(math.copysign(min(rounded, 2), residual))


def differences(plane: Grid, order: int, dy: int, dx: int) -> Grid:
    for _ in range(order):
        height, width = len(plane) - dy, len(plane[0]) - dx
        plane = [[plane[y + dy][x + dx] - plane[y][x] for x in range(width)] for y in range(height)]
    return plane


def filtered(plane: Grid, kernel: Grid) -> Grid:
    side = len(kernel)
    places = list(itertools.product(range(side), repeat=2))
    height, width = len(plane) - side + 1, len(plane[0]) - side + 1
    return [[sum(kernel[i][j] * plane[y + i][x + j] for i, j in places) for x in range(width)] for y in range(height)]


def extremes(plane: Grid) -> tuple[Grid, Grid]:
    """The largest difference from one of the four neighbours, and the smallest with its sign turned."""
    largest, smallest = [], []
    for y in range(1, len(plane) - 1):
        rows = [
            [plane[y + dy][x + dx] - plane[y][x] for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
            for x in range(1, len(plane[0]) - 1)
        ]
        largest.append([max(row) for row in rows])
        smallest.append([-min(row) for row in rows])
    return largest, smallest


def in_a_row(residual: Grid, step: int, dy: int, dx: int) -> Iterator[Pattern]:
    for y in range(len(residual) - 3 * dy):
        for x in range(len(residual[0]) - 3 * dx):
            yield tuple(level(residual[y + i * dy][x + i * dx], step) for i in range(4))


def block(patterns: list[Pattern], *, signs: bool = True, reversals: bool = True) -> list[float]:
    """Square roots of the frequencies of all classes of patterns that count as one."""

    def smallest(pattern: Pattern) -> Pattern:
        same = [pattern]
        if signs:
            same += [tuple(-one for one in pattern)]
        if reversals:
            same += [one[::-1] for one in same]
        return min(same)

    counts = Counter(smallest(pattern) for pattern in patterns)
    every = sorted({smallest(pattern) for pattern in itertools.product(range(-2, 3), repeat=len(patterns[0]))})
    return [math.sqrt(counts[pattern] / len(patterns)) for pattern in every]


def plain_cooccurrences(pixels: npt.NDArray[np.uint8]) -> list[float]:
    red, green, blue = (pixels[..., channel].astype(int).tolist() for channel in range(3))
    every = pixels.astype(int).tolist()
    luminance = [[(77 * r + 150 * g + 29 * b + 128) // 256 for r, g, b in row] for row in every]
    directions = ((1, 0), (0, 1))
    blocks = []
    for order in (1, 2, 3):
        along: list[Pattern] = []
        across: list[Pattern] = []
        for dy, dx in directions:
            residual = differences(luminance, order, dy, dx)
            along += in_a_row(residual, order, dy, dx)
            across += in_a_row(residual, order, dx, dy)
        blocks += [block(along), block(across)]
    for kernel, step in ((SQUARE_3, 4), (SQUARE_5, 12)):
        residual = filtered(luminance, kernel)
        blocks.append(block([one for direction in directions for one in in_a_row(residual, step, *direction)]))
    rows = [one for side in extremes(luminance) for way in directions for one in in_a_row(side, 1, *way)]
    blocks.append(block(rows, signs=False))
    for channel in (0, 2):
        chroma = [[pixel[channel] - pixel[1] for pixel in row] for row in every]
        rows = [one for way in directions for one in in_a_row(differences(chroma, 1, *way), 1, *way)]
        blocks.append(block(rows))
    makers: list[tuple[int, list[Callable[[Grid], Grid]]]] = [
        (order, [partial(differences, order=order, dy=dy, dx=dx) for dy, dx in directions]) for order in (1, 2, 3)
    ]
    makers.append((4, [partial(filtered, kernel=SQUARE_3)]))
    for step, residuals in makers:
        triples: list[Pattern] = []
        for of in residuals:
            planes = [of(plane) for plane in (red, green, blue)]
            for lines in zip(*planes, strict=True):
                triples += [tuple(level(one, step) for one in pixel) for pixel in zip(*lines, strict=True)]
        blocks.append(block(triples, reversals=False))
    return [value for one in blocks for value in one]


@pytest.mark.parametrize(("height", "width", "spread"), [(8, 8, 4), (17, 12, 2), (16, 16, 30)])
def test_they_are_what_loops_over_pixels_count(height: int, width: int, spread: int) -> None:
    pixels = noise(height, width, spread)
    np.testing.assert_allclose(cooccurrences(pixels), plain_cooccurrences(pixels), atol=1e-7)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 12])
def test_a_residual_is_rounded_half_away_from_zero_and_truncated(step: int) -> None:
    residual = np.arange(-40, 41, dtype=np.int16)
    np.testing.assert_array_equal(quantise(residual, step), [level(int(one), step) + 2 for one in residual])


@pytest.mark.parametrize(("residual", "kernel"), [(square_3, SQUARE_3), (square_5, SQUARE_5)])
def test_squares_are_the_published_kernels_on_the_widest_steps_too(
    residual: Callable[[npt.NDArray[np.int16]], npt.NDArray[np.int16]], kernel: Grid
) -> None:
    plane = np.random.default_rng(1).choice(np.array([0, 255], np.int16), (12, 9))
    np.testing.assert_array_equal(residual(plane), filtered(plane.astype(int).tolist(), kernel))


@pytest.mark.parametrize(
    "moved",
    [lambda p: p[::-1], lambda p: p[:, ::-1], lambda p: p.transpose(1, 0, 2), lambda p: np.rot90(p)],
    ids=["upside-down", "mirrored", "transposed", "turned"],
)
def test_a_mirrored_or_turned_picture_has_the_same(moved: Callable[[Pixels], Pixels]) -> None:
    pixels = noise(40, 24)
    np.testing.assert_array_equal(cooccurrences(moved(pixels)), cooccurrences(pixels))


def test_the_negative_of_a_grey_picture_has_the_same() -> None:
    grey = np.repeat(noise(32, 32)[..., :1], 3, axis=2)
    np.testing.assert_array_equal(cooccurrences(255 - grey), cooccurrences(grey))


def test_how_bright_a_picture_is_does_not_matter() -> None:
    dark = np.random.default_rng(0).integers(20, 60, (32, 32, 3)).astype(np.uint8)
    np.testing.assert_array_equal(cooccurrences(dark + 100), cooccurrences(dark))


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("shape", [(256, 256), (16, 16), (1, 1), (3, 40)])
def test_a_constant_picture_of_any_size_has_one_pattern_per_block(value: int, shape: tuple[int, int]) -> None:
    features = cooccurrences(np.full((*shape, 3), value, np.uint8))
    assert np.isfinite(features).all()
    assert sorted(features)[-16:] == [0.0] + [1.0] * 15
    np.testing.assert_array_equal(features, cooccurrences(np.full((8, 8, 3), 7, np.uint8)))


def test_the_extractor_is_read_by_its_kind_and_describes_the_pixels_of_the_view(tmp_path: Path) -> None:
    spec = TypeAdapter(ExtractorSpec).validate_python({"kind": "cooccurrence"})
    assert isinstance(spec, CooccurrenceSpec)
    assert spec.name == "cooccurrence"
    extractor = spec.load(LocalStore(tmp_path), None, "cpu")
    pictures = [noise(16, 16), noise(64, 48, seed=1)]
    view = View(path="fair", resolution=64)
    embedded = extractor.embed([extractor.prepare(b"", view, ViewPicture(one, None)) for one in pictures])
    assert embedded.dtype == np.float32
    assert embedded.shape == (2, extractor.dimension)
    np.testing.assert_array_equal(embedded[1], cooccurrences(pictures[1]))
