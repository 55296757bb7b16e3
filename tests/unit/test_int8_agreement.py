"""The benchmark of int8: scores of the same pictures compared, and both ways of embedding measured on equal input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks import embedding, int8_agreement
from benchmarks.int8_agreement import Agreement, agreement, identity_of, judge_out_of_fold, read_folders
from storage.errors import MissingInput
from tasks.data.pictures import encode_jpeg
from tasks.detectors import vgg16, vgg16_int8
from tasks.spec import Vgg16Spec

EXTRACTOR = Vgg16Spec(layer="pool5-avg", side=32, weights="random:0")


@pytest.fixture(scope="module")
def described() -> tuple[int8_agreement.FeatureRows, np.ndarray]:
    rows = identity_of([f"p{number}" for number in range(60)], [f"f{number}" for number in range(60)])
    noise = np.random.default_rng(0).standard_normal((120, 8))
    return rows, (noise + rows.labels[:, None]).astype(np.float32)


def test_equal_features_agree_wholly(described) -> None:
    rows, features = described
    exact, other = judge_out_of_fold(rows, features, [features, features.copy()], int8_agreement.VIEWS[0], EXTRACTOR)
    found = agreement([exact, exact], [other, other])
    assert (found.count, found.flipped) == (240, 0)
    assert found.decisions == pytest.approx(1)
    assert found.scores == pytest.approx(1)
    assert (exact.fake == (rows.labels == 1)).mean() > 0.8


def test_other_features_flip_decisions(described) -> None:
    rows, features = described
    noise = np.random.default_rng(1).standard_normal(features.shape).astype(np.float32)
    exact, other = judge_out_of_fold(rows, features, [features, features + noise], int8_agreement.VIEWS[0], EXTRACTOR)
    found = agreement([exact], [other])
    assert found.decisions < 0.95
    assert found.flipped == (exact.fake != other.fake).sum() > 2


@pytest.mark.parametrize(
    ("count", "decisions", "scores", "flipped", "holds"),
    [
        (2000, 0.995, 0.995, 20, True),
        (1999, 0.995, 0.995, 0, False),
        (2000, 0.9949, 1.0, 0, False),
        (2000, 1.0, 0.9949, 0, False),
        (2000, 1.0, 1.0, 21, False),
    ],
)
def test_the_rule_asks_for_scores_correlations_and_few_flips(count, decisions, scores, flipped, holds) -> None:
    assert Agreement(count, decisions, scores, flipped).holds is holds


def test_folders_give_equal_shares_of_large_pictures(tmp_path: Path) -> None:
    for folder, sides in (("a", [320] * 5), ("b", [320, 400, 100]), ("c", [100])):
        (tmp_path / folder).mkdir()
        for number, side in enumerate(sides):
            (tmp_path / folder / f"{number}.jpg").write_bytes(encode_jpeg(np.zeros((side, side, 3), np.uint8), 80))
    names = [name for name, _ in read_folders([tmp_path / "a", tmp_path / "b"], 6)]
    assert sorted(names) == ["0/0.jpg", "0/1.jpg", "0/2.jpg", "0/3.jpg", "1/0.jpg", "1/1.jpg"]
    with pytest.raises(MissingInput, match="at least 320 pixels"):
        read_folders([tmp_path / "c"], 6)


@pytest.mark.parametrize(("case", "words"), [("exact_case", "largest difference"), ("int8_case", "least cosine")])
def test_both_ways_describe_the_same_pictures(
    case: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "int8_case" and (problem := vgg16_int8.check_processor()):
        pytest.skip(problem)
    path = tmp_path / "vgg16.safetensors"
    save_file(vgg16.random_tensors(EXTRACTOR), path)
    monkeypatch.setenv(embedding.WEIGHTS_SETTING, str(path))
    monkeypatch.setattr(embedding, "SIDE", 32)
    monkeypatch.setattr(embedding, "CORRELATION", 0.9)  # of random weights at 32 pixels
    for cached in (embedding._tensors, embedding._quantized, embedding._batch):
        cached.cache_clear()
    with getattr(embedding, case)(2, 1) as both:
        sentence = both.equality(both.plain(), both.ours())
    assert sentence.startswith("pool5-avg of the weights that")
    assert words in sentence
    for cached in (embedding._tensors, embedding._quantized, embedding._batch):
        cached.cache_clear()
