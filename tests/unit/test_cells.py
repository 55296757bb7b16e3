"""Evaluating scores: thresholds come from val, metrics from test, each picture once."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from storage.tables import FAKE, REAL
from tasks.evaluation.cells import drawn_pictures, evaluate_scores, evaluate_stage_row
from tasks.evaluation.protocols import SEED_ROWS, STAGES, Scoring, StageRow, seed_head
from tasks.features.vgg16 import Vgg16Spec
from tasks.spec.detectors import Fit
from tasks.spec.experiment import Mix, SeedProtocol
from tasks.spec.views import Cell, View

CELL = Cell(resolution=64)
FIT = Fit(detector="svm")
MIX = Mix(name="gan", real=("coco",), fakes=("gan",))


def scores(n: int = 60, seed: int = 0, groups: int = 30, folds: int = 1) -> pl.DataFrame:
    """Half photographs, half fakes; fakes score somewhat higher. Val and test rows alike."""
    random = np.random.default_rng(seed)
    rows = []
    for split in ("val", "test"):
        for index in range(n):
            label = index % 2
            p = float(np.clip(random.normal(0.4 + 0.2 * label, 0.2), 0.001, 0.999))
            rows.append(
                {
                    "image_id": f"{split}-{index:04d}",
                    "group_id": f"{split}-{index % groups}",
                    "source": ("coco", "gan")[label],
                    "label": label,
                    "split": split,
                    "fold": index % folds,
                    **FIT.model_dump(),
                    "path": "fair",
                    "resolution": "64",
                    "perturbation": "none",
                    "p_fake": p,
                    "decision": float(np.log(p / (1 - p))),
                    "class_probabilities": None,
                }
            )
    types = pl.Schema([("label", pl.Int8), ("fold", pl.Int16), ("class_probabilities", pl.List(pl.Float64))])
    return pl.DataFrame(rows, schema_overrides=types)


def evaluated(
    frame: pl.DataFrame, reference: pl.DataFrame | None = None, mix: Mix = MIX, published: float | None = None
) -> dict[Any, dict[str, Any]]:
    rows, _ = evaluate_scores(
        frame,
        frame if reference is None else reference,
        [mix],
        fit=FIT,
        cell=CELL,
        protocol="fair",
        seed=0,
        resamples=200,
        published=published,
    )
    return {(row["threshold_rule"], row["metric"]): row for row in rows}


def test_metrics_are_those_of_the_test_rows() -> None:
    frame = scores()
    test = frame.filter(pl.col("split") == "test")
    found = evaluated(frame)
    assert found[None, "auroc"]["value"] == pytest.approx(roc_auc_score(test["label"], test["p_fake"]), abs=1e-12)
    expected = balanced_accuracy_score(test["label"], test["p_fake"] >= 0.5)
    assert found["half", "balanced_accuracy"]["value"] == pytest.approx(expected, abs=1e-12)
    assert found[None, "auroc"]["n_real"] == found[None, "auroc"]["n_fake"] == 30


def test_the_headline_threshold_comes_from_val_alone() -> None:
    frame = scores()
    changed = frame.with_columns(
        pl.when(pl.col("split") == "test").then(pl.col("p_fake") ** 2).otherwise(pl.col("p_fake")).alias("p_fake")
    )
    assert evaluated(frame)["val", "threshold"]["value"] == evaluated(changed)["val", "threshold"]["value"]
    assert evaluated(frame)["oracle", "threshold"]["value"] != evaluated(changed)["oracle", "threshold"]["value"]


def test_the_reference_views_threshold_is_frozen_for_other_qualities() -> None:
    frame = scores()
    compressed = scores(seed=1)
    assert (
        evaluated(compressed, reference=frame)["val", "threshold"]["value"]
        == evaluated(frame)["val", "threshold"]["value"]
    )


def test_every_fold_is_judged_by_its_own_threshold() -> None:
    frame = scores(folds=3)
    found = evaluated(frame)
    assert found["val", "threshold"]["reason"] == "mean of 3 folds' thresholds"


def test_few_groups_give_no_interval_and_say_so() -> None:
    found = evaluated(scores(groups=8))
    row = found[None, "auroc"]
    assert row["value"] is not None
    assert (row["low"], row["high"]) == (None, None)
    assert row["reason"] == "n/a: photographs of only 4 groups, ten are needed"


def test_enough_groups_give_an_interval_around_the_value() -> None:
    row = evaluated(scores(n=400, groups=200))[None, "auroc"]
    assert row["low"] < row["value"] < row["high"]


def test_the_published_decision_is_judged_beside_the_others_on_its_own_scale() -> None:
    frame = scores().with_columns(decision=pl.col("decision") * 100 + 7)
    test = frame.filter(pl.col("split") == "test")
    found = evaluated(frame, published=50.0)
    expected = balanced_accuracy_score(test["label"], test["decision"] >= 50)
    assert found["published", "balanced_accuracy"]["value"] == pytest.approx(expected, abs=1e-12)
    assert found["published", "balanced_accuracy"]["low"] is not None
    assert found["published", "threshold"]["value"] == 50
    plain = evaluated(frame)
    assert not [rule for rule, _ in plain if rule == "published"]
    assert plain["val", "balanced_accuracy"] == found["val", "balanced_accuracy"]


def without(frame: pl.DataFrame, lost: pl.Expr) -> pl.DataFrame:
    return frame.with_columns(*(pl.when(lost).then(None).otherwise(pl.col(c)).alias(c) for c in ("p_fake", "decision")))


def test_pictures_without_a_score_take_no_part_and_are_counted() -> None:
    frame = scores()
    lost = pl.col("image_id").is_in(["test-0000", "test-0001", "test-0003", "val-0000"])
    rows, _ = evaluate_scores(
        without(frame, lost), without(frame, lost), [MIX], fit=FIT, cell=CELL, protocol="fair", seed=0, resamples=200,
        why="ValueError: too small (3)",
    )  # fmt: skip
    found = {(row["threshold_rule"], row["metric"]): row for row in rows}
    assert found[None, "unscored"]["value"] == 3
    assert found[None, "unscored"]["reason"] == "ValueError: too small (3)"
    # The same pictures as of every other detector, less those: not others in their place.
    test = frame.filter(~lost & (pl.col("split") == "test"))
    assert found[None, "auroc"]["value"] == pytest.approx(roc_auc_score(test["label"], test["p_fake"]), abs=1e-12)
    assert (found[None, "auroc"]["n_real"], found[None, "auroc"]["n_fake"]) == (29, 28)
    assert found["val", "threshold"]["value"] == evaluated(frame.filter(~lost))["val", "threshold"]["value"]
    assert (None, "unscored") not in evaluated(frame)


def test_a_mix_of_which_a_source_has_no_score_has_no_numbers() -> None:
    frame = scores().with_columns(
        source=pl.when((pl.col("label") == FAKE) & pl.col("image_id").str.ends_with("1"))
        .then(pl.lit("sd"))
        .otherwise("source")
    )
    both = Mix(name="combined", real=("coco",), fakes=("gan", "sd"))
    found = evaluated(without(frame, pl.col("source") == "sd"), mix=both)
    assert {row["value"] for key, row in found.items() if key != (None, "unscored")} == {None}
    assert found[None, "auroc"]["reason"] == "it could not score any picture of sd"
    assert evaluated(frame, mix=both)[None, "auroc"]["value"] is not None


def test_one_score_for_all_pictures_ranks_nothing() -> None:
    found = evaluated(scores().with_columns(p_fake=pl.lit(0.25)), published=0.0)
    assert {row["value"] for row in found.values()} == {None}
    assert {row["reason"] for row in found.values()} == {"every picture has the same score (0.25)"}
    assert (None, "auroc") in found


def test_the_order_of_scores_does_not_matter() -> None:
    frame = scores(n=100, groups=50)
    assert evaluated(frame) == evaluated(frame.sample(fraction=1.0, shuffle=True, seed=5))


def test_a_mix_without_pictures_says_so() -> None:
    found = evaluated(scores(), mix=Mix(name="dalle", real=("coco",), fakes=("dalle",)))
    assert found[None, "auroc"]["reason"] == "no test pictures in this mix"
    assert found[None, "auroc"]["value"] is None


def test_unequal_classes_are_drawn_to_one_to_one() -> None:
    frame = scores()
    fewer = frame.filter((pl.col("label") == REAL) | (pl.col("image_id").str.ends_with("1")))
    row = evaluated(fewer)[None, "auroc"]
    assert row["n_real"] == row["n_fake"] == 6


def stage_row(frame: pl.DataFrame, reference: pl.DataFrame | None = None) -> dict[str, dict[str, Any]]:
    head = seed_head(SeedProtocol(real="coco", gan="gan", stable="gan"), "raw", 64, Vgg16Spec())
    view = View(path="raw", resolution=64)
    row = StageRow(
        row=next(row for row in SEED_ROWS if row.mix == "gan" and row.cell.resolution == 64),
        stage=STAGES[0],
        real=Scoring(head=head, extractor=Vgg16Spec(), view=view, sources=("coco",)),
        fake=Scoring(head=head, extractor=Vgg16Spec(), view=view, sources=("gan",)),
        reference=None,
    )
    real, fake = frame.filter(pl.col("label") == REAL), frame.filter(pl.col("label") == FAKE)
    rows = evaluate_stage_row(row, real, fake, reference, seed=0, resamples=200)
    return {found["metric"]: found for found in rows}


def test_the_first_projects_columns_take_photographs_as_positive() -> None:
    test = scores().filter(pl.col("split") == "test")
    called_real = test["decision"] <= 0
    real = test["label"] == REAL
    right = int((called_real & real).sum())
    found = {metric: row["value"] for metric, row in stage_row(test).items()}
    assert found["recall"] == pytest.approx(right / int(real.sum()))
    assert found["precision"] == pytest.approx(right / int(called_real.sum()))
    assert found["accuracy"] == pytest.approx((called_real == real).mean())
    assert found["auroc"] == pytest.approx(roc_auc_score(test["label"], test["decision"]))


@pytest.mark.parametrize("calibrated", [False, True])
def test_every_interval_of_a_stage_holds_its_value(calibrated: bool) -> None:
    frame = scores(n=400, groups=200)
    rows = stage_row(frame.filter(pl.col("split") == "test"), frame if calibrated else None)
    for row in rows.values():
        assert row["low"] <= row["value"] <= row["high"], row


def paired(n: int = 40) -> pl.DataFrame:
    """Photographs and what was made of every second one, which has the higher score in three of four pairs."""
    photographs = scores(2 * n, groups=n).filter(pl.col("label") == REAL)
    made = photographs[::2].with_columns(
        pl.lit("made").alias("source"),
        pl.lit(FAKE, pl.Int8).alias("label"),
        pl.col("decision") + pl.when(pl.int_range(pl.len()) % 4 == 0).then(-0.5).otherwise(0.5),
    )
    return pl.concat([photographs, made])


def test_pairs_of_photographs_and_what_was_made_of_them_are_told_by_their_order() -> None:
    frame = paired()
    mix = Mix(name="made", real=("coco",), fakes=("made",))
    found = evaluated(frame, mix=mix)[None, "pairs_in_order"]
    assert found["value"] == 0.75
    assert found["low"] < 0.75 < found["high"]
    assert (found["n_real"], found["n_fake"]) == (20, 20), "all pairs, however many pictures are drawn"
    tied = frame.with_columns(pl.lit(0.0).alias("decision"))
    assert (
        evaluated(tied, mix=Mix(name="made", real=("coco",), fakes=("made",)))[None, "pairs_in_order"]["value"] == 0.5
    )


def test_pictures_of_other_ids_and_mixes_of_several_generators_have_no_pairs() -> None:
    assert (None, "pairs_in_order") not in evaluated(scores())
    frame = pl.concat([paired(), scores().filter(pl.col("label") == FAKE)])
    found = evaluated(frame, mix=Mix(name="both", real=("coco",), fakes=("gan", "made")))
    assert (None, "pairs_in_order") not in found


def renamed(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    return rows.with_columns(pl.lit(name).alias("source"))


def test_what_was_made_of_photographs_is_drawn_beside_these_alone() -> None:
    frame = paired().filter(pl.col("split") == "test")
    drawn = drawn_pictures(frame, ["coco"], ["made"], 0)
    real, made = (drawn.filter(pl.col("label") == label)["image_id"].to_list() for label in (REAL, FAKE))
    assert real == made == frame.filter(pl.col("label") == FAKE)["image_id"].to_list()
    found = evaluated(paired(), mix=Mix(name="made", real=("coco",), fakes=("made",)))
    assert found[None, "auroc"]["n_real"] == found[None, "pairs_in_order"]["n_real"] == len(real)


@pytest.mark.parametrize("has_versions", [False, True])
def test_of_two_pictures_that_were_made_of_a_photograph_each_has_its_own_beside_it(has_versions: bool) -> None:
    frame = paired(40).filter(pl.col("split") == "test")
    real, made = (frame.filter(pl.col("label") == label) for label in (REAL, FAKE))
    versions = [("coco-as-made",), ("coco-as-again",)] if has_versions else []
    photographs = [name for names in versions for name in names] or ["coco"]
    every = pl.concat([*(renamed(real, name) for name in photographs), made, renamed(made, "again")])
    drawn = drawn_pictures(every.sort("image_id", "source"), photographs, ["made", "again"], 0, versions)
    ids = {name: sorted(drawn.filter(source=name)["image_id"]) for name in (*photographs, "made", "again")}
    assert len(ids["made"]) == len(ids["again"]) > 5
    if has_versions:
        assert (ids["coco-as-made"], ids["coco-as-again"]) == (ids["made"], ids["again"])
    else:
        assert ids["coco"] == sorted(ids["made"] + ids["again"]), "no photograph stands beside two"


def test_of_the_versions_of_a_photograph_one_is_drawn_and_equally_many_for_each_generator() -> None:
    fakes = pl.concat(
        [
            scores(60)
            .filter(pl.col("label") == FAKE)
            .with_columns(pl.lit(name).alias("source"), (pl.lit(name) + pl.col("image_id")).alias("image_id"))
            for name in ("one", "two", "gone")
        ]
    ).filter(pl.col("source") != "gone")
    photographs = scores(240).filter(pl.col("label") == REAL)
    versions = [("coco-as-one",), ("coco-as-two",), ("coco-as-gone",)]
    reals = pl.concat([photographs.with_columns(pl.lit(name).alias("source")) for (name,) in versions])
    frame = pl.concat([reals, fakes]).filter(pl.col("split") == "test")
    real = [name for names in versions for name in names]
    drawn = drawn_pictures(frame, real, ["one", "two", "gone"], 0, versions)
    taken = drawn.filter(pl.col("label") == REAL)
    assert not taken["image_id"].is_duplicated().any()
    counts = dict(drawn.group_by("source").len().iter_rows())
    assert counts["one"] == counts["two"] == 30
    assert set(taken["source"]) == {"coco-as-one", "coco-as-two"}, "of a generator without pictures nothing is taken"
    assert abs(counts["coco-as-one"] - 30) < 12
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3).sort("image_id", "source")
    assert drawn_pictures(shuffled, real, ["one", "two", "gone"], 0, versions).equals(drawn)
