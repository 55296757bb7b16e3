"""The small autoencoder of the preset `demo`: how it is trained, and what its shipped weights give back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from storage.errors import MissingInput
from storage.local import LocalStore
from storage.objects import Ref
from tasks.brought_models import BroughtModel, bring_model
from tasks.data.sample_photographs import FURTHER_PHOTOGRAPHS, PHOTOGRAPHS, read_photograph
from tasks.generators.autoencoders import missing_autoencoder, opened_autoencoder
from tasks.generators.small_autoencoder import CARD, TrainingPlan, batches, read_photographs, train
from tasks.variables import needed

WEIGHTS = "${TELLTALE_SHIPPED}/small_autoencoder_weights"
SHORT = TrainingPlan(width=8, side=16, batch=4, steps=60)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalStore, Ref]:
    store = LocalStore(tmp_path_factory.mktemp("store"))
    named = BroughtModel.named(WEIGHTS)
    ref, _ = bring_model.compute(store, digest=named.digest, path=named.path)
    return store, ref


def peak_ratio(picture: np.ndarray, made: np.ndarray) -> float:
    """The peak signal-to-noise ratio of two pictures, in dB."""
    error = np.mean((picture.astype(np.float64) - made) ** 2)
    return float(10 * np.log10(255**2 / error))


@pytest.mark.parametrize("name", ["chelsea", "coffee", "hopper"])
def test_the_shipped_weights_give_back_photographs_that_they_were_not_trained_on(
    name: str, shipped: tuple[LocalStore, Ref]
) -> None:
    assert missing_autoencoder(WEIGHTS) == []
    pixels = np.asarray(read_photograph(name))[:256, :256]
    made = opened_autoencoder(*shipped, "cpu").reconstructed(pixels)
    assert made is not None
    assert 28 < peak_ratio(pixels, made) < 50  # a good likeness that is not the picture itself


def test_the_card_says_what_the_weights_were_trained_on() -> None:
    card = json.loads((Path(needed(WEIGHTS)) / CARD).read_text())
    assert "COCO 2017" in card["trained_on"]
    assert card["plan"]["steps"] == TrainingPlan.steps
    assert card["losses"][-1] < card["losses"][0] / 2
    assert not any(name in card["trained_on"] for name in (*PHOTOGRAPHS, *FURTHER_PHOTOGRAPHS))


def test_a_training_can_be_repeated_and_learns() -> None:
    photographs = [np.asarray(read_photograph("coffee"))[:64, :64]]
    (one, losses), (other, again) = train(photographs, SHORT), train(photographs, SHORT)
    assert losses == again
    assert losses[-1] < losses[0] / 2
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_windows_are_original_pixels() -> None:
    pixels = np.arange(40 * 3, dtype=np.uint8).reshape(1, 40, 3).repeat(40, axis=0)
    (found, *_) = next(batches([pixels], SHORT))
    window = ((found.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    assert any(
        np.array_equal(window, part) or np.array_equal(window, part[:, ::-1])
        for part in (pixels[:16, left : left + 16] for left in range(25))
    )


def test_a_folder_without_large_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="no photograph of 64 pixels a side"):
        read_photographs(tmp_path, 64)
