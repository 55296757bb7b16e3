"""From per-image scores to a table of results: one cell of the grid, or one stage of the first project's table."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field

from storage.digest import hash_fraction
from storage.objects import ROWS, Ref, read_table
from storage.store import Store
from storage.tables import FAKE, FIT_COLUMNS, REAL, RESULT_SCHEMA
from tasks.detectors.calibration import reasons_of, shown_reasons
from tasks.evaluation.classification import (
    COUNT_METRICS,
    FREE_METRICS,
    balanced_accuracy_threshold,
    binary_metrics,
    bootstrap_intervals,
    draw_balanced_mix,
    few_groups_of_a_class,
    roc_curve,
)
from tasks.evaluation.intervals import Float, Interval, group_weights, share
from tasks.evaluation.protocols import Stage, StageRow
from tasks.evaluation.thresholds import shown_threshold, threshold_per_picture, val_thresholds
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Spec
from tasks.spec.detectors import Fit
from tasks.spec.experiment import Mix
from tasks.spec.views import Cell

ROC = "roc.parquet"
ROC_POINTS = 400

# The threshold that a detector's makers gave it, and how many of a mix's test pictures it could not score.
PUBLISHED = "published"
UNSCORED = "unscored"
# Of photographs that stand beside what was made of them, such as their reconstructions: the share of these pairs in
# which the made picture has the higher score, ties counting half.
PAIRS_IN_ORDER = "pairs_in_order"

Row = dict[str, Any]


def evaluate_scores(
    scores: pl.DataFrame,
    reference: pl.DataFrame,
    mixes: Sequence[Mix],
    *,
    fit: Fit,
    cell: Cell,
    protocol: str,
    seed: int,
    resamples: int,
    published: float | None = None,
    why: str = "",
) -> tuple[list[Row], list[Row]]:
    """Results and ROC points of one fit in one cell.

    Pictures that the detector could not score take no part, and are counted.

    Args:
        scores: SCORE_SCHEMA rows of the cell's view; the test rows are evaluated, each image once.
        reference: SCORE_SCHEMA rows of the view that gives the thresholds; its val rows are used, fold by fold.
        mixes: which sources stand against which.
        published: the decision value from which the detector's makers call a picture fake.
        why: what to say of pictures that the detector could not score.

    Returns:
        Rows in RESULT_SCHEMA, and rows in ROC_SCHEMA.
    """
    thresholds = val_thresholds(reference.drop_nulls("p_fake"))
    rows: list[Row] = []
    points: list[Row] = []
    test = scores.filter(pl.col("split") == "test").sort("image_id", "source")
    for mix in mixes:
        # Every detector is asked about the same pictures: what it could not score is left out of them, not replaced.
        asked = drawn_pictures(test, mix.real, mix.fakes, seed, mix.versions)
        drawn = asked.drop_nulls("p_fake")
        key = result_key(cell, protocol, mix.name, fit)
        unscored = len(asked) - len(drawn)
        if unscored:
            rows.append(result_row(key | picture_counts(drawn), None, UNSCORED, float(unscored), None, why or None))
        if silent := _silent(asked, drawn):
            rows += _without_value(key | picture_counts(drawn), silent)
            continue
        rows += _mix_rows(drawn, thresholds, key, seed, resamples, published)
        rows += _pair_rows(_of_mix(test, mix.real, mix.fakes).drop_nulls("p_fake"), key, seed, resamples)
        points += _roc_points(drawn, key)
    return rows, points


def drawn_pictures(
    test: pl.DataFrame,
    real: Sequence[str],
    fakes: Sequence[str],
    seed: int,
    versions: Sequence[Sequence[str]] = (),
) -> pl.DataFrame:
    """The test rows of a mix at 1:1, with equally many fakes of each source.

    Of photographs that have `versions`, some for each of the fakes, one is taken of each, equally many for every
    generator that has pictures. Where all fakes were made of photographs of the mix, each stands beside its own.
    """
    rows = _of_mix(test, real, fakes)
    if (pairs := _drawn_pairs(rows, fakes, versions, seed)) is not None:
        beside = pairs.select("image_id", source="source_of")
        return rows.join(pl.concat([pairs.select("image_id", "source"), beside]), on=["image_id", "source"], how="semi")
    if len(versions) > 1:
        rows = pl.concat([_one_version(rows, fakes, versions, seed), rows.filter(pl.col("label") == FAKE)])
        rows = rows.sort("image_id", "source")
    mask = draw_balanced_mix(rows["image_id"].to_numpy(), rows["label"].to_numpy(), rows["source"].to_numpy(), seed)
    return rows.filter(pl.Series(mask, dtype=pl.Boolean))


def _drawn_pairs(
    rows: pl.DataFrame, fakes: Sequence[str], versions: Sequence[Sequence[str]], seed: int
) -> pl.DataFrame | None:
    """Of a mix of nothing but pairs those that are drawn: their `image_id`, `source`, and `source_of` the photograph.

    A pair has one id, which begins with its photograph's source, so that no other pictures share one. Equally many of
    each source, and a photograph of which several pictures were made stands beside one of them. None for other mixes.
    """
    made, photographs = (rows.filter(pl.col("label") == label) for label in (FAKE, REAL))
    beside = photographs.select("image_id", source_of="source")
    pairs = made.select("image_id", "source").join(beside, on="image_id")
    if len(versions) > 1:
        own = [(fake, name) for fake, names in zip(fakes, versions, strict=True) for name in names]
        pairs = pairs.join(pl.DataFrame(own, schema=["source", "source_of"], orient="row"), on=["source", "source_of"])
    if not len(made) or set(pairs["source"]) != set(made["source"]):
        return None
    hashes = [hash_fraction("pair", seed, *pair) for pair in pairs.select("image_id", "source").iter_rows()]
    pairs = pairs.with_columns(pl.Series("hash", hashes, pl.Float64)).sort("hash", "image_id", "source")
    pairs = pairs.unique(["image_id", "source_of"], keep="first", maintain_order=True)
    count = pairs.group_by("source").len()["len"].min()
    return pairs.filter(pl.col("hash").rank("ordinal").over("source") <= count).drop("hash")


def _one_version(
    rows: pl.DataFrame, fakes: Sequence[str], versions: Sequence[Sequence[str]], seed: int
) -> pl.DataFrame:
    """Each photograph as those of the generator that its id draws, equally many of each by the smallest hashes."""
    there = set(rows.filter(pl.col("label") == FAKE)["source"])
    present = [names for fake, names in zip(fakes, versions, strict=True) if fake in there]
    if not present:
        return rows.filter(pl.col("label") == REAL).clear()
    place = {name: index for index, names in enumerate(present) for name in names}
    real = rows.filter(pl.col("label") == REAL, pl.col("source").is_in(list(place)))
    hashes = pl.Series("hash", [hash_fraction("version", seed, one) for one in real["image_id"]], pl.Float64)
    drawn = real.with_columns(hashes, pl.col("source").replace_strict(place, return_dtype=pl.Int64).alias("place"))
    drawn = drawn.filter((pl.col("hash") * len(present)).floor() == pl.col("place"))
    count = min(len(drawn.filter(place=index)) for index in range(len(present)))
    return drawn.filter(pl.col("hash").rank("ordinal").over("place") <= count).select(rows.columns)


def why_unranked(asked: pl.DataFrame, scored: pl.DataFrame) -> str:
    """Why a detector that scored some of a mix's drawn pictures has no AUROC; else empty."""
    if not len(asked):
        return "no test pictures in this mix"
    return _silent(asked, scored) or _all_equal(scored)


def _silent(asked: pl.DataFrame, scored: pl.DataFrame) -> str:
    silent = sorted(set(asked["source"]) - set(scored["source"]))
    return f"it could not score any picture of {', '.join(silent)}" if silent else ""


def _all_equal(scored: pl.DataFrame) -> str:
    """Nothing is ranked by a detector that says the same of every picture."""
    score = scored["p_fake"].to_numpy()
    one = len(score) > 1 and len(np.unique(score)) == 1
    return f"every picture has the same score ({score[0]:.4g})" if one else ""


def _of_mix(test: pl.DataFrame, real: Sequence[str], fakes: Sequence[str]) -> pl.DataFrame:
    return test.filter(
        (pl.col("source").is_in(list(real)) & (pl.col("label") == REAL))
        | (pl.col("source").is_in(list(fakes)) & (pl.col("label") == FAKE))
    )


def _mix_rows(
    drawn: pl.DataFrame,
    thresholds: dict[int, float | None],
    key: Row,
    seed: int,
    resamples: int,
    published: float | None,
) -> Iterator[Row]:
    label, score = drawn["label"].to_numpy(), drawn["p_fake"].to_numpy()
    counts = picture_counts(drawn)
    if len(drawn) == 0:
        yield {**key, **counts, "metric": "auroc", "reason": "no test pictures in this mix"}
        return
    if equal := _all_equal(drawn):
        yield from _without_value(key | counts, equal)
        return
    # What is compared with which threshold (N,), by rule.
    rules: dict[str, tuple[Float, Float]] = {"half": (score, np.full(len(score), 0.5))}
    own = threshold_per_picture(drawn["fold"].to_list(), thresholds)
    if not np.isnan(own).any():
        rules["val"] = score, own
    if counts["n_real"] and counts["n_fake"]:
        rules["oracle"] = score, np.full(len(score), balanced_accuracy_threshold(label, score))
    if published is not None:
        rules[PUBLISHED] = drawn["decision"].to_numpy(), np.full(len(score), published)
    free = _intervals(drawn, score >= 0.5, seed, resamples, FREE_METRICS)
    values = binary_metrics(label, score, score >= 0.5).to_dict()
    reasons: dict[str, str] = values["reasons"]  # type: ignore[assignment]
    for metric in FREE_METRICS:
        yield result_row(key | counts, None, metric, values[metric], free[metric], reasons.get(metric))
    for rule, (compared, limits) in rules.items():
        decision = compared >= limits
        values = binary_metrics(label, score, decision).to_dict()
        reasons = values["reasons"]  # type: ignore[assignment]
        intervals = _intervals(drawn, decision, seed, resamples, COUNT_METRICS)
        for metric in COUNT_METRICS:
            yield result_row(key | counts, rule, metric, values[metric], intervals[metric], reasons.get(metric))
        for count in ("tp", "fp", "tn", "fn"):
            yield result_row(key | counts, rule, count, float(values[count]), None, None)  # type: ignore[arg-type]
        shown = shown_threshold(limits)
        yield result_row(key | counts, rule, "threshold", shown.value, None, shown.reason)


def _pair_rows(scored: pl.DataFrame, key: Row, seed: int, resamples: int) -> Iterator[Row]:
    """How many pairs are ordered right, of one generator's test pictures whose ids are those of photographs.

    All pairs count, not those alone that were drawn for the other metrics.
    """
    made, photographs = (scored.filter(pl.col("label") == label) for label in (FAKE, REAL))
    if made["source"].n_unique() != 1:
        return
    pairs = made.join(photographs.select("image_id", "group_id", "decision"), on="image_id", suffix="_of")
    if not len(pairs):
        return
    difference = (pairs["decision"] - pairs["decision_of"]).to_numpy()
    groups = pairs["group_id_of"].to_numpy()
    in_order = share(
        (np.sign(difference) + 1) / 2, np.ones(len(pairs), bool), groups, group_weights(groups, resamples, seed)
    )
    counts = {"n_real": len(pairs), "n_fake": len(pairs), "n_groups": in_order.n_groups}
    yield result_row(key | counts, None, PAIRS_IN_ORDER, in_order.value, in_order.interval(), None)


def _without_value(key: Row, reason: str) -> Iterator[Row]:
    for metric in FREE_METRICS:
        yield result_row(key, None, metric, None, None, reason)
    for metric in COUNT_METRICS:
        yield result_row(key, "val", metric, None, None, reason)


def _intervals(
    drawn: pl.DataFrame,
    decision: np.ndarray,
    seed: int,
    resamples: int,
    metrics: Sequence[str],
    calibrated: bool = True,
) -> dict[str, Interval]:
    """Intervals over groups; none where photographs or fakes come from fewer than ten groups."""
    label, groups = drawn["label"].to_numpy(), drawn["group_id"].to_numpy()
    if reason := few_groups_of_a_class(label, groups):
        return {metric: Interval(None, None, drawn["group_id"].n_unique(), 0, 0, reason) for metric in metrics}
    return bootstrap_intervals(
        label,
        drawn["p_fake" if calibrated else "decision"].to_numpy(),
        decision,
        groups,
        calibrated=calibrated,
        resamples=resamples,
        seed=seed,
        metrics=metrics,
    )


def picture_counts(drawn: pl.DataFrame) -> Row:
    """How many photographs, fakes and groups a number is of: columns of RESULT_SCHEMA."""
    return {
        "n_real": int((drawn["label"] == REAL).sum()),
        "n_fake": int((drawn["label"] == FAKE).sum()),
        "n_groups": drawn["group_id"].n_unique(),
    }


def result_key(cell: Cell, protocol: str, mix: str, fit: Fit) -> Row:
    """The columns of RESULT_SCHEMA that say what a number is of, and no number yet."""
    return {
        "protocol": protocol,
        "resolution": str(cell.resolution),
        "perturbation": cell.perturbation_name,
        "mix": mix,
        **fit.model_dump(),
        "threshold_rule": None,
        "metric": None,
        "value": None,
        "low": None,
        "high": None,
        "reason": None,
    }


def result_row(
    key: Row, rule: str | None, metric: str, value: Any, interval: Interval | None, reason: str | None
) -> Row:
    """A number at a threshold with its interval, or the reason why there is none: a row in RESULT_SCHEMA."""
    row = key | {"threshold_rule": rule, "metric": metric, "value": value, "reason": reason}
    if interval is not None:
        row |= {"low": interval.low, "high": interval.high, "reason": reason or interval.reason or None}
    return row


def _roc_points(drawn: pl.DataFrame, key: Row) -> list[Row]:
    if drawn["label"].n_unique() < 2:
        return []
    fpr, tpr, _ = roc_curve(drawn["label"].to_numpy(), drawn["p_fake"].to_numpy())
    keep = np.unique(np.linspace(0, len(fpr) - 1, min(len(fpr), ROC_POINTS)).round().astype(int))
    place = {name: key[name] for name in ROC_SCHEMA.names if name in key}
    return [{**place, "fpr": float(fpr[i]), "tpr": float(tpr[i])} for i in keep]


def results_table(rows: Iterable[Row]) -> pa.Table:
    """Rows in RESULT_SCHEMA; columns that a row lacks are null."""
    return pa.Table.from_pylist(list(rows), schema=RESULT_SCHEMA)


ROC_SCHEMA = pa.schema(
    [
        ("resolution", pa.string()),
        ("perturbation", pa.string()),
        ("mix", pa.string()),
        *FIT_COLUMNS,
        ("fpr", pa.float64()),
        ("tpr", pa.float64()),
    ]
)


def read_scores(store: Store, ref: Ref) -> pl.DataFrame:
    """One score object as a frame; a picture that the detector could not score has no p(fake)."""
    frame = pl.from_arrow(read_table(store, ref))
    assert isinstance(frame, pl.DataFrame)
    return frame


class Scored(Spec):
    """Scores of a fit in a cell, those that give its thresholds, and the mixes that it is evaluated on.

    `published` is the decision value from which its makers call a picture fake.
    """

    fit: Fit
    scores: Ref
    reference: Ref
    mixes: tuple[Mix, ...]
    # Left out where there is none, so that recipes from before it could be said stay what they are.
    published: float | None = Field(default=None, exclude_if=lambda value: value is None)


@step(
    "evaluate-cell",
    version=4,
    label=lambda cell, protocol, **_: f"{protocol}/{cell.name}",
    libraries=("numpy",),
)
def evaluate_cell_scores(
    run: StepRun,
    *,
    cell: Cell,
    protocol: str,
    scored: tuple[Scored, ...],
    seed: int,
    resamples: int,
) -> Output:
    """All metrics of one cell: per fit and mix, at three thresholds, with intervals; and the ROC curves."""
    progress = run.progress(len(scored), unit="detectors")
    rows: list[Row] = []
    points: list[Row] = []
    for one in scored:
        made = evaluate_scores(
            read_scores(run.store, one.scores),
            read_scores(run.store, one.reference),
            one.mixes,
            fit=one.fit,
            cell=cell,
            protocol=protocol,
            seed=seed,
            resamples=resamples,
            published=one.published,
            why=shown_reasons(reasons_of(run.store, [one.scores])),
        )
        rows += made[0]
        points += made[1]
        progress.advance()
    return Output({ROWS: results_table(rows), ROC: pa.Table.from_pylist(points, schema=ROC_SCHEMA)})


def evaluate_stage_row(
    row: StageRow, real: pl.DataFrame, fake: pl.DataFrame, reference: pl.DataFrame | None, *, seed: int, resamples: int
) -> list[Row]:
    """The first project's columns of one row at one stage; positive class is real there, as in its table.

    Threshold: decision > 0 says fake, or the val threshold of the reference.
    """
    test = pl.concat([real, fake]).filter(pl.col("split") == "test").sort("image_id", "source")
    drawn = drawn_pictures(test, row.real.sources, row.fake.sources, seed)
    rule = "zero" if reference is None else "val"
    key = result_key(row.row.cell, row.stage.name, row.row.mix, row.real.head.fit) | {"threshold_rule": rule}
    counts = picture_counts(drawn)
    if not counts["n_real"] or not counts["n_fake"]:
        return [{**key, **counts, "metric": "accuracy", "reason": "no test pictures in this row"}]
    if reference is None:
        called_fake = drawn["decision"].to_numpy() > 0
    else:
        limits = threshold_per_picture(drawn["fold"].to_list(), val_thresholds(reference))
        called_fake = drawn["p_fake"].to_numpy() >= limits
    # Decision values of unequal folds are not comparable, p(fake) of calibrated heads is.
    calibrated = reference is not None
    score = drawn["p_fake" if calibrated else "decision"].to_numpy()
    label = drawn["label"].to_numpy()
    flipped = drawn.with_columns(
        (1 - pl.col("label")).cast(pl.Int8).alias("label"), (1 - pl.col("p_fake")).alias("p_fake"), -pl.col("decision")
    )
    values = binary_metrics(1 - label, -score, ~called_fake, calibrated=False).to_dict()
    reasons: dict[str, str] = values["reasons"]  # type: ignore[assignment]
    metrics = ("accuracy", "precision", "recall", "f1", "auroc")
    intervals = _intervals(flipped, ~called_fake, seed, resamples, metrics, calibrated=calibrated)
    return [
        result_row(
            key | counts,
            None if metric == "auroc" else rule,
            metric,
            values[metric],
            intervals[metric],
            reasons.get(metric),
        )
        for metric in metrics
    ]


class ScoredRow(Spec):
    """A row of the first project's table at one stage, its scores, and those that give its thresholds, if any do."""

    row: StageRow
    real: Ref
    fake: Ref
    reference: Ref | None


@step("evaluate-stage", version=3, label=lambda stage, **_: stage.name, libraries=("numpy",))
def evaluate_stage(
    run: StepRun,
    *,
    stage: Stage,
    rows: tuple[ScoredRow, ...],
    seed: int,
    resamples: int,
) -> Output:
    """The first project's rows at one stage of the ablation."""
    made: list[Row] = []
    for one in rows:
        made += evaluate_stage_row(
            one.row,
            read_scores(run.store, one.real),
            read_scores(run.store, one.fake),
            None if one.reference is None else read_scores(run.store, one.reference),
            seed=seed,
            resamples=resamples,
        )
    return Output({ROWS: results_table(made)}, {"stage": stage.name})
