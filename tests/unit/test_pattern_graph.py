"""The graph of a published network counts what Python counts, answers what its head says, and shows where it saw it."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit

from tasks.features.cooccurrence import cooccurrences
from tasks.networks.exported import ExportedNetwork
from tasks.networks.pattern_graph import CLASSES, PatternHead, build_pattern_graph

Pixels = npt.NDArray[np.uint8]
DIMENSION = 2267


def head(seed: int = 0) -> PatternHead:
    random = np.random.default_rng(seed)
    return PatternHead(random.normal(size=DIMENSION), 0.3, random.random((2, DIMENSION)) / 10)


def noise(height: int, width: int, spread: int, seed: int = 0) -> Pixels:
    random = np.random.default_rng(seed)
    slope = np.add.outer(2 * np.arange(height), np.arange(width))[..., None] % 200
    return np.clip(slope + random.integers(-spread, spread + 1, (height, width, 3)), 0, 255).astype(np.uint8)


PICTURES = {
    "a window": noise(256, 256, 6),
    "coarse noise": noise(64, 80, 255),
    "fine noise": noise(96, 72, 2),
    "flat": np.full((48, 48, 3), 77, np.uint8),
    "odd sides": noise(67, 101, 9),
    "too small for a pattern": noise(16, 21, 9),
    "black and white": (np.indices((64, 64)).sum(axis=0)[..., None].repeat(3, axis=2) % 2 * 255).astype(np.uint8),
}


@pytest.fixture(scope="module")
def network() -> ExportedNetwork:
    return ExportedNetwork(build_pattern_graph(head(), 256))


@pytest.mark.parametrize("name", PICTURES)
def test_the_graph_answers_what_the_head_says_of_sparse_cooccurrences(network: ExportedNetwork, name: str) -> None:
    features = cooccurrences(PICTURES[name], is_sparse=True).astype(np.float64)
    log_odds = head().coef @ features + head().intercept
    found = network.detect(PICTURES[name])
    np.testing.assert_allclose(found.logits, [-log_odds / 2, log_odds / 2], atol=2e-5)
    np.testing.assert_allclose(found.probabilities, [expit(-log_odds), expit(log_odds)], atol=1e-5)
    distances = ((features - head().class_means) ** 2).sum(axis=1)
    np.testing.assert_allclose(found.familiarity[2], -distances.min(), rtol=1e-5)


@pytest.mark.parametrize("name", PICTURES)
def test_the_mean_activation_is_the_logit_but_for_the_intercept(network: ExportedNetwork, name: str) -> None:
    found = network.detect(PICTURES[name])
    means = found.activation.mean(axis=(1, 2))
    np.testing.assert_allclose(means + np.array([-0.5, 0.5]) * head().intercept, found.logits, atol=2e-5)


def test_a_place_of_the_activation_speaks_for_its_own_pixels(network: ExportedNetwork) -> None:
    """What changes in one corner changes the counts, and of the other places only their common scale."""
    picture = np.full((64, 64, 3), 90, np.uint8)
    picture[4:12, 4:12] = noise(8, 8, 40)
    (generated,) = network.detect(picture).activation[1:]
    others = np.delete(generated.ravel(), 0)
    np.testing.assert_allclose(others, others[0], rtol=1e-5)
    assert abs(generated[0, 0] - others[0]) > 0.01


def test_sparse_patterns_are_those_that_begin_in_every_second_row_and_column() -> None:
    """Of first differences along rows and columns, whose 169 patterns are the first block, counted one by one."""
    picture = noise(40, 56, 3)
    grey = [[(77 * int(r) + 150 * int(g) + 29 * int(b) + 128) >> 8 for r, g, b in row] for row in picture]
    counted: dict[tuple[int, ...], int] = {}
    rows, columns = (40 - 8) // 16 * 16, (56 - 8) // 16 * 16
    for y, x in itertools.product(range(0, rows, 2), range(0, columns, 2)):
        for dy, dx in ((1, 0), (0, 1)):
            values = [grey[y + n * dy][x + n * dx] for n in range(5)]
            levels = tuple(max(-2, min(2, later - sooner)) for sooner, later in itertools.pairwise(values))
            turned = [sign for one in (levels, levels[::-1]) for sign in (one, tuple(-level for level in one))]
            counted[min(turned)] = counted.get(min(turned), 0) + 1
    found = cooccurrences(picture, is_sparse=True)[:169].astype(np.float64) ** 2
    every = sorted(
        {
            min(sign for one in (levels, levels[::-1]) for sign in (one, tuple(-level for level in one)))
            for levels in itertools.product(range(-2, 3), repeat=4)
        }
    )
    assert len(every) == 169
    expected = [counted.get(pattern, 0) / sum(counted.values()) for pattern in every]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_equal_heads_give_equal_bytes_and_a_small_file() -> None:
    model = build_pattern_graph(head(), 256)
    assert model == build_pattern_graph(head(), 256)
    assert model != build_pattern_graph(head(1), 256)
    assert len(model) < 500_000


def test_it_says_what_it_is_shown(network: ExportedNetwork) -> None:
    assert (network.classes, network.side, network.temperature) == (CLASSES, 256, 1.0)
