"""Detectors are compared on the same pictures of a cell, and each with itself on uncompressed ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from storage.objects import ROWS, Ref, commit, read_table
from storage.opening import open_store
from storage.store import Store
from storage.tables import PAIR_SCHEMA, RANK_SCHEMA
from tasks.data.perturbations.jpeg import jpeg
from tasks.evaluation.cells import evaluate_scores
from tasks.evaluation.pairs import RANKS, Compared, ComparedDetector, compare_detectors, compare_in_cell
from tasks.evaluation.significance import auroc_difference
from tasks.spec.detectors import Fit
from tasks.spec.experiment import Mix
from tasks.spec.views import Cell
from tests.unit.compared_scores import network_scores

CELL = Cell(resolution=64, perturbation=jpeg(20))
GAN = Mix(name="gan", real=("coco",), fakes=("gan",))
BOTH = Mix(name="both", real=("coco",), fakes=("gan", "diffusion"))
NOISES = {"good": 0.8, "fair": 1.5, "poor": 4.0}

Rows = list[dict[str, Any]]


def scores(name: str, noise: float, seed: int = 0, parents: int = 60) -> pl.DataFrame:
    return network_scores(noise, seed, Fit(detector=name), parents)


def compared(parents: int = 60, **noises: float) -> dict[str, Compared]:
    found = {}
    for seed, (name, noise) in enumerate((noises or NOISES).items()):
        frame = scores(name, noise, seed, parents)
        found[name] = Compared(frame, frame)
    return found


def rows_of(detectors: dict[str, Compared], *mixes: Mix, cell: Cell = CELL) -> tuple[Rows, Rows]:
    return compare_in_cell(detectors, mixes or (GAN,), cell, seed=0, resamples=200)


def of_metric(rows: Rows, metric: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["detector"], row["than_detector"]): row for row in rows if row["metric"] == metric}


def test_each_is_compared_with_each_the_worse_minus_the_better() -> None:
    detectors = compared()
    pairs, ranks = rows_of(detectors)
    found = of_metric(pairs, "auroc")
    assert list(found) == [("fair", "good"), ("poor", "good"), ("poor", "fair")]
    test = {
        name: one.scores.filter((pl.col("split") == "test") & (pl.col("source") != "diffusion")).sort(
            "image_id", "source"
        )
        for name, one in detectors.items()
    }
    label, groups = test["good"]["label"], test["good"]["group_id"]
    expected = auroc_difference(label, test["poor"]["p_fake"], test["good"]["p_fake"], groups)
    row = found["poor", "good"]
    assert row["difference"] == pytest.approx(
        roc_auc_score(label, test["poor"]["p_fake"]) - roc_auc_score(label, test["good"]["p_fake"])
    )
    assert (row["low"], row["high"], row["p"]) == (expected.low, expected.high, expected.p)
    assert row["difference"] < 0
    assert row["p"] < 0.001
    assert (row["n_real"], row["n_fake"], row["n_left_out"], row["n_groups"]) == (60, 60, 0, 30)
    assert [(row["detector"], row["best"], row["rank"]) for row in ranks] == [
        ("good", True, 1), ("fair", False, 2), ("poor", False, 3)
    ]  # fmt: skip
    assert all(row["rank_low"] <= row["rank"] <= row["rank_high"] for row in ranks)


def test_aurocs_and_accuracies_that_differ_are_those_of_the_results() -> None:
    detectors = compared()
    pairs, _ = rows_of(detectors, BOTH)
    values: dict[tuple[str, str], Any] = {}
    for name, one in detectors.items():
        rows, _ = evaluate_scores(
            one.scores, one.reference, [BOTH], fit=Fit(detector=name), cell=CELL, protocol="fair", seed=0, resamples=10
        )
        values |= {(name, row["metric"]): row["value"] for row in rows if row["threshold_rule"] in (None, "val")}
    assert len(pairs) == 6
    for row in pairs:
        expected = values[row["detector"], row["metric"]] - values[row["than_detector"], row["metric"]]
        assert row["difference"] == pytest.approx(expected, abs=1e-12)


def test_more_than_six_are_compared_with_the_best_alone() -> None:
    six: dict[str, Any] = {f"detector-{number}": 1.0 + 0.3 * number for number in range(6)}
    assert len(of_metric(rows_of(compared(**six))[0], "auroc")) == 15
    pairs, ranks = rows_of(compared(**six, another=3.0))
    best = [row["detector"] for row in ranks if row["best"]]
    assert len(best) == 1
    assert {than for _, than in of_metric(pairs, "auroc")} == set(best)
    assert len(of_metric(pairs, "auroc")) == 6


def test_of_equal_detectors_the_first_is_the_best_and_they_share_their_rank() -> None:
    good = compared(good=0.8)["good"]
    pairs, ranks = rows_of({"one": good, "other": good})
    assert [(row["detector"], row["best"], row["rank"]) for row in ranks] == [("one", True, 1.5), ("other", False, 1.5)]
    assert [(row["difference"], row["p"]) for row in pairs] == [(0.0, 1.0), (0.0, 1.0)]


def test_a_perturbed_cell_is_compared_with_the_uncompressed_one_picture_by_picture() -> None:
    plain, worse = scores("svm", 0.8), scores("svm", 3.0, seed=1)
    pairs, _ = rows_of({"svm": Compared(worse, plain, uncompressed=plain)})
    row = pairs[0]
    names = ("detector", "than_detector", "perturbation", "than_perturbation", "metric")
    assert [row[name] for name in names] == ["svm", "svm", "q20", "none", "auroc"]
    assert row["difference"] < 0
    assert row["p"] < 0.001
    assert [row["metric"] for row in pairs] == ["auroc", "accuracy"]
    same, _ = rows_of({"svm": Compared(plain, plain, uncompressed=plain)})
    assert {(row["difference"], row["p"]) for row in same} == {(0.0, 1.0)}


def without(frame: pl.DataFrame, *ids: str, value: float | None = None) -> pl.DataFrame:
    lost = pl.col("image_id").is_in(ids) & (pl.col("source") == "coco")
    return frame.with_columns(p_fake=pl.when(lost).then(pl.lit(value, pl.Float64)).otherwise("p_fake"))


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_pictures_that_one_of_them_did_not_score_are_left_out_and_counted(nothing: float | None) -> None:
    good, poor = scores("good", 0.8), scores("poor", 3.0, seed=1)
    fewer = Compared(without(good, "test-000", "test-003", value=nothing), good)
    others = Compared(without(poor, "test-003", "test-007", value=nothing), poor)
    pairs, ranks = rows_of({"good": fewer, "poor": others})
    row = of_metric(pairs, "auroc")["poor", "good"]
    assert (row["n_real"], row["n_fake"], row["n_left_out"]) == (57, 60, 3)
    lost = pl.col("image_id").is_in(["test-000", "test-003", "test-007"]) & (pl.col("source") == "coco")
    kept = [
        frame.filter(~lost & (pl.col("split") == "test") & (pl.col("source") != "diffusion")).sort("image_id", "source")
        for frame in (poor, good)
    ]
    expected = auroc_difference(kept[0]["label"], kept[0]["p_fake"], kept[1]["p_fake"], kept[0]["group_id"])
    assert (row["difference"], row["p"]) == (expected.value, expected.p)
    assert [row["rank"] for row in ranks] == [1, 2]
    assert all(row["rank_low"] is not None for row in ranks)


def test_few_groups_give_the_difference_alone_and_say_why() -> None:
    pairs, ranks = rows_of(compared(parents=18))
    for row in pairs:
        assert row["difference"] is not None
        assert (row["low"], row["high"], row["p"]) == (None, None, None)
        assert row["reason"] == "n/a: photographs of only 9 groups, ten are needed"
    assert [row["rank"] for row in ranks] == [1, 2, 3]
    assert {(row["rank_low"], row["reason"]) for row in ranks} == {
        (None, "n/a: photographs of only 9 groups, ten are needed")
    }


def test_one_that_ranks_nothing_has_no_rank_and_is_compared_with_none() -> None:
    detectors = compared()
    constant = detectors["fair"].scores.with_columns(p_fake=pl.lit(0.25))
    silent = without(detectors["poor"].scores, *(f"test-{number:03d}" for number in range(60)))
    plain = detectors["poor"].scores
    detectors |= {
        "fair": Compared(constant, constant),
        "poor": Compared(silent, plain, uncompressed=plain),
    }
    pairs, ranks = rows_of(detectors)
    reasons = {row["detector"]: row["reason"] for row in ranks}
    assert reasons["fair"] == "every picture has the same score (0.25)"
    assert reasons["poor"] == "it could not score any picture of coco"
    assert [row["rank"] for row in ranks] == [1, None, None]
    assert [(row["detector"], row["difference"], row["reason"]) for row in pairs] == [
        ("poor", None, reasons["poor"])
    ] * 2


def test_a_mix_without_pictures_says_so() -> None:
    pairs, ranks = rows_of(compared(), Mix(name="dalle", real=("coco",), fakes=("dalle",)))
    assert pairs == []
    assert {row["reason"] for row in ranks} == {"no test pictures in this mix"}


def test_decisions_need_thresholds_and_aurocs_do_not() -> None:
    detectors = compared()
    one_class = detectors["fair"].scores.filter((pl.col("split") == "test") | (pl.col("label") == 1))
    detectors["fair"] = replace(detectors["fair"], reference=one_class)
    pairs, _ = rows_of(detectors)
    accuracy = of_metric(pairs, "accuracy")
    assert accuracy["fair", "good"]["reason"] == "no val pictures of both classes to set the threshold by"
    assert accuracy["fair", "good"]["difference"] is None
    assert accuracy["poor", "good"]["p"] is not None
    assert of_metric(pairs, "auroc")["fair", "good"]["p"] is not None


def test_decisions_are_taken_at_the_references_threshold() -> None:
    frame = scores("svm", 1.5)
    shifted = frame.with_columns(p_fake=pl.col("p_fake") * 0.01)
    pairs, _ = rows_of({"svm": Compared(shifted, frame, uncompressed=frame)})
    auroc, accuracy = pairs
    assert auroc["difference"] == 0
    assert accuracy["difference"] < -0.2  # nothing is called fake any more
    assert accuracy["p"] < 0.001


def test_the_order_of_scores_does_not_matter() -> None:
    detectors = compared()
    mixed = {
        name: Compared(one.scores.sample(fraction=1, shuffle=True, seed=3), one.reference)
        for name, one in detectors.items()
    }
    assert rows_of(detectors, GAN, BOTH) == rows_of(mixed, GAN, BOTH)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def kept(store: Store, name: str, frame: pl.DataFrame) -> Ref:
    return commit(store, f"objects/score/{name}", step="score", digest=name, recipe={}, parts={ROWS: frame.to_arrow()})


def test_the_step_writes_both_tables_in_their_schemas(store: Store) -> None:
    frames = {name: scores(name, noise, seed) for seed, (name, noise) in enumerate(NOISES.items())}
    refs = {name: kept(store, name, frame) for name, frame in frames.items()}
    detectors = tuple(
        ComparedDetector(fit=Fit(detector=name), scores=ref, reference=ref, uncompressed=ref)
        for name, ref in refs.items()
    )
    arguments: dict[str, Any] = {"cell": CELL, "mixes": (GAN, BOTH), "detectors": detectors}
    ref, cached = compare_detectors.compute(store, **arguments, seed=0, resamples=50)
    assert not cached
    pairs, ranks = read_table(store, ref), read_table(store, ref, name=RANKS)
    assert (pairs.schema, ranks.schema) == (PAIR_SCHEMA, RANK_SCHEMA)
    assert (len(pairs), len(ranks)) == (2 * 2 * (3 + 3), 2 * 3)
    assert compare_detectors.compute(store, **arguments, seed=0, resamples=50) == (ref, True)
    expected = compare_in_cell(
        {name: Compared(frame, frame, frame) for name, frame in frames.items()}, (GAN, BOTH), CELL, seed=0, resamples=50
    )
    assert np.allclose([row["difference"] for row in expected[0]], pairs["difference"].to_numpy())
