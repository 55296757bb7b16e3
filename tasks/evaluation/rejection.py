"""How well a network answers "unknown source" where it should, and only there: its tables, and one step.

Thresholds come from known val pictures, never from unknown ones; with rotating folds every fold has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from storage.errors import SpecError
from storage.objects import ROWS, Ref, read_table
from storage.store import Store
from storage.tables import FAMILIARITY, REAL
from tasks.evaluation.intervals import Float, Integer, Measured
from tasks.evaluation.rejection_metrics import (
    UNKNOWN_CLASS,
    Answered,
    confusion_matrix,
    paired_difference,
    rejection_metrics,
    separation_metrics,
    threshold_keeping,
)
from tasks.evaluation.thresholds import shown_threshold, threshold_per_picture
from tasks.networks.familiarity import SCORES
from tasks.recipe import Output, StepRun, step

UNKNOWN = "unknown"

CONFUSION = "confusion.parquet"
DIFFERENCES = "differences.parquet"

# One row per score, rule and metric; `low` and `high` are 95 % bounds. n_known and n_unknown count test pictures.
REJECTION_SCHEMA = pa.schema(
    [
        ("scenario", pa.string()),
        ("network", pa.string()),
        ("score", pa.string()),
        ("chosen", pa.bool_()),  # whether the network rejects by this score
        ("rule", pa.string()),  # kept-0.95, bound-0.6; null where no threshold is needed
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("reason", pa.string()),  # why value or interval is null
        ("n_known", pa.int32()),
        ("n_unknown", pa.int32()),
        ("n_groups", pa.int32()),
    ]
)

# `truth` is a class or the name of an unknown source; `answer` is a class or "unknown".
CONFUSION_SCHEMA = pa.schema(
    [
        ("scenario", pa.string()),
        ("network", pa.string()),
        ("score", pa.string()),
        ("rule", pa.string()),
        ("truth", pa.string()),
        ("answer", pa.string()),
        ("count", pa.int32()),
    ]
)

# `value` is the metric of `score` minus that of `against` on the same pictures.
DIFFERENCE_SCHEMA = pa.schema(
    [
        ("scenario", pa.string()),
        ("network", pa.string()),
        ("score", pa.string()),
        ("against", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("reason", pa.string()),
        ("n_known", pa.int32()),
        ("n_unknown", pa.int32()),
        ("n_groups", pa.int32()),
    ]
)

_IDENTITY = ["image_id", "source", "split", "fold"]
Row = dict[str, Any]


@dataclass(frozen=True)
class RejectionTables:
    """Rows in REJECTION_SCHEMA, CONFUSION_SCHEMA and DIFFERENCE_SCHEMA, and score -> fold -> threshold."""

    metrics: list[Row]
    confusion: list[Row]
    differences: list[Row]
    thresholds: dict[str, dict[int, float]]


def evaluate_answers(
    known: pl.DataFrame,
    unknown: pl.DataFrame,
    *,
    scenario: str,
    network: str,
    unknown_sources: Sequence[str],
    classes: Sequence[str],
    score: str,
    kept: float,
    bounds: Sequence[float],
    seed: int,
    resamples: int,
    advance: Callable[[], None] = lambda: None,
) -> RejectionTables:
    """All rejection tables of one network in one scenario; see `evaluate_rejection` for the arguments.

    known, unknown: rows of `read_answers`. `advance` is called after each score.

    Raises:
        SpecError: a score that does not exist, classes that do not begin with `real`, a source that is known and
            unknown at once, class probabilities that are not of these classes, or a row twice.
    """
    _check_names(unknown_sources, classes, score)
    of_known = ~pl.col("source").is_in(list(unknown_sources)) & (
        (pl.col("label") == REAL) | pl.col("source").is_in(list(classes))
    )
    of_unknown = pl.col("source").is_in(list(unknown_sources)) & (pl.col("split") == "test")
    val = _checked(known.filter(of_known & (pl.col("split") == "val")), classes)
    test = _checked(
        pl.concat([known.filter(of_known & (pl.col("split") == "test")), unknown.filter(of_unknown)]), classes
    ).sort("source", "image_id", "fold")
    images = _answered(test, unknown_sources, classes)
    key = {"scenario": scenario, "network": network}
    counts = _counts(test, images)
    against = test[_column(SCORES[0])].to_numpy()

    tables = RejectionTables([], [], [], {})
    for name in SCORES:
        values = test[_column(name)].to_numpy()
        row = key | {"score": name, "chosen": name == score, "rule": None} | counts
        measured = separation_metrics(images, values, resamples=resamples, seed=seed)
        tables.metrics.extend(_rows(row, measured))
        tables.thresholds[name] = _thresholds(val, _column(name), kept)
        for rule, limits in _rules(name, test["fold"].to_list(), tables.thresholds[name], kept, bounds):
            measured = rejection_metrics(images, values, limits, resamples=resamples, seed=seed)
            tables.metrics.extend(_rows(row | {"rule": rule}, measured | {"threshold": shown_threshold(limits)}))
            if not np.isnan(limits).any():
                matrix = confusion_matrix(images, test["source"].to_numpy(), values >= limits, classes, unknown_sources)
                named = key | {"score": name, "rule": rule}
                tables.confusion.extend(_confusion_rows(named, matrix, [*classes, *unknown_sources], classes))
        if name != SCORES[0]:
            differences = paired_difference(images, values, against, resamples=resamples, seed=seed)
            tables.differences.extend(_rows(key | {"score": name, "against": SCORES[0]} | counts, differences))
        advance()
    return tables


def read_answers(store: Store, refs: Sequence[Ref]) -> pl.DataFrame:
    """Score objects with their familiarity: SCORE_SCHEMA columns, then max_probability, energy and distance.

    Raises SpecError where there is no object, or where a row's familiarity is missing.
    """
    if not refs:
        raise SpecError("rejection: there are no score objects to read")
    return pl.concat([_with_familiarity(store, ref) for ref in refs])


def _with_familiarity(store: Store, ref: Ref) -> pl.DataFrame:
    scores, familiarity = (
        pl.DataFrame(pl.from_arrow(read_table(store, ref, name=name))) for name in (ROWS, FAMILIARITY)
    )
    joined = scores.join(familiarity, on=_IDENTITY, how="inner", validate="1:1", nulls_equal=True)
    if not len(scores) == len(familiarity) == len(joined):
        raise SpecError(
            f"{ref.uri}: {len(scores)} scores and {len(familiarity)} rows of familiarity, of which {len(joined)} agree"
        )
    return joined


def _check_names(unknown_sources: Sequence[str], classes: Sequence[str], score: str) -> None:
    if score not in SCORES:
        raise SpecError(f"rejection: unknown score {score!r}, expected one of {', '.join(SCORES)}")
    if not classes or classes[0] != "real":
        raise SpecError(f"rejection: the first class must be 'real', got {list(classes)}")
    both = sorted(set(classes) & set(unknown_sources))
    if both:
        raise SpecError(f"rejection: {both} are classes of the network, and cannot be unknown to it")


def _checked(rows: pl.DataFrame, classes: Sequence[str]) -> pl.DataFrame:
    if rows.select(_IDENTITY).is_duplicated().any():
        raise SpecError("rejection: a picture is scored more than once by the same fold; pass each score object once")
    lengths = rows["class_probabilities"].list.len()
    if (lengths.fill_null(0) != len(classes)).any():
        raise SpecError(
            f"rejection: expected probabilities of {len(classes)} classes {list(classes)}, "
            f"got {sorted(lengths.fill_null(0).unique().to_list())}"
        )
    return rows


def _answered(test: pl.DataFrame, unknown_sources: Sequence[str], classes: Sequence[str]) -> Answered:
    index = {name: position for position, name in enumerate(classes)}
    truth = [
        UNKNOWN_CLASS if source in unknown_sources else 0 if label == REAL else index[source]
        for source, label in test.select("source", "label").iter_rows()
    ]
    return Answered.of(
        np.array(truth, dtype=np.int64),
        test["class_probabilities"].list.arg_max().to_numpy(),
        test["group_id"].to_numpy(),
        test["fold"].to_numpy(),
    )


def _counts(test: pl.DataFrame, images: Answered) -> Row:
    """Pictures, each once, however many folds scored it; and groups."""
    pictures = test.select("image_id", "source")
    return {
        "n_known": pictures.filter(pl.Series(images.known)).n_unique(),
        "n_unknown": pictures.filter(pl.Series(~images.known)).n_unique(),
        "n_groups": len(np.unique(images.groups)),
    }


def _column(score: str) -> str:
    return score.replace("-", "_")


def _thresholds(val: pl.DataFrame, column: str, kept: float) -> dict[int, float]:
    """Per fold the threshold that keeps a share of its known val pictures."""
    return {
        int(str(fold)): threshold_keeping(rows[column].to_numpy(), kept)
        for (fold,), rows in sorted(val.group_by("fold"), key=lambda item: item[0])
    }


def _rules(
    score: str, folds: Sequence[int], thresholds: Mapping[int, float], kept: float, bounds: Sequence[float]
) -> Iterator[tuple[str, Float]]:
    """The rules that a score is judged by: name, and each row's threshold, NaN where its fold has none."""
    yield f"kept-{kept:g}", threshold_per_picture(folds, thresholds)
    if score == SCORES[0]:
        for bound in bounds:
            yield f"bound-{bound:g}", np.full(len(folds), bound, dtype=np.float64)


def _rows(key: Row, measured: Mapping[str, Measured]) -> Iterator[Row]:
    for metric, found in measured.items():
        yield key | {"metric": metric, **asdict(found)}


def _confusion_rows(key: Row, matrix: Integer, truths: Sequence[str], classes: Sequence[str]) -> Iterator[Row]:
    for truth, counts in zip(truths, matrix.tolist(), strict=True):
        for answer, count in zip([*classes, UNKNOWN], counts, strict=True):
            yield key | {"truth": truth, "answer": answer, "count": count}


@step(
    "rejection",
    version=1,
    label=lambda scenario, network, **_: f"{scenario}/{network}",
    libraries=("numpy",),
)
def evaluate_rejection(
    run: StepRun,
    *,
    scenario: str,
    network: str,
    known: tuple[Ref, ...],
    unknown: tuple[Ref, ...],
    unknown_sources: tuple[str, ...],
    classes: tuple[str, ...],
    score: str,
    kept: float,
    bounds: tuple[float, ...],
    seed: int,
    resamples: int,
) -> Output:
    """How well a network rejects pictures of unknown sources, by every score of familiarity, with intervals.

    Args:
        scenario: what is unknown, such as the generator that was left out of training; a part of the place.
        network: name of the network that scored.
        known: score objects of a network, with their familiarity; photographs and the sources in `classes` are read.
            Their val rows alone give the thresholds, their test rows are evaluated.
        unknown: score objects of the same network, of which the test rows of `unknown_sources` are evaluated; they may
            be the same objects.
        unknown_sources: sources that the network was neither trained nor calibrated on.
        classes: what the network tells apart, in the order of its class probabilities: `real`, then generators.
        score: the one of `SCORES` that the network rejects by; marked `chosen`.
        kept: share of each fold's known val pictures that the threshold keeps.
        bounds: constant lower bounds on the maximum probability, as further rules.
    """
    progress = run.progress(len(SCORES), unit="scores")
    tables = evaluate_answers(
        read_answers(run.store, known),
        read_answers(run.store, unknown),
        scenario=scenario,
        network=network,
        unknown_sources=unknown_sources,
        classes=classes,
        score=score,
        kept=kept,
        bounds=bounds,
        seed=seed,
        resamples=resamples,
        advance=progress.advance,
    )
    thresholds = {
        name: {str(fold): limit for fold, limit in of_score.items()} for name, of_score in tables.thresholds.items()
    }
    return Output(
        {
            ROWS: pa.Table.from_pylist(tables.metrics, schema=REJECTION_SCHEMA),
            CONFUSION: pa.Table.from_pylist(tables.confusion, schema=CONFUSION_SCHEMA),
            DIFFERENCES: pa.Table.from_pylist(tables.differences, schema=DIFFERENCE_SCHEMA),
        },
        {"score": score, "thresholds": thresholds},
    )
