"""The benchmark of VGG16's features: both ways describe the same pictures, or nothing is measured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import embedding
from benchmarks.harness import Unequal
from tasks.features.vgg16 import Vgg16Spec


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pictures of 32 pixels, and a network that ends before the connected layers."""
    monkeypatch.setattr(embedding, "SPEC", Vgg16Spec(layer="pool5-avg", side=32, weights="random:0"))
    embedding._batch.cache_clear()
    yield
    embedding._batch.cache_clear()


def test_both_ways_describe_the_same_pictures() -> None:
    with embedding.exact_case(2, 1) as both:
        assert both.plain is not None
        sentence = both.equality(both.plain(), both.ours())
    assert sentence.startswith("pool5-avg of random weights")
    assert "largest difference" in sentence


def test_features_that_differ_are_not_measured() -> None:
    with embedding.exact_case(2, 1) as both:
        found = both.ours()
        with pytest.raises(Unequal, match=r"differ by 5\.0e-02 of the largest one"):
            both.equality(found, found + found.max() * 0.05)
