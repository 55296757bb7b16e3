"""What changed between two runs, on the pictures that both have tested: for those who look at a run every week."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from storage.errors import DamagedObject, MissingInput, SpecError
from storage.store import Store
from storage.tables import FAKE
from tasks.evaluation.classification import few_groups_of_a_class
from tasks.evaluation.significance import (
    LEVEL,
    Difference,
    accuracy_difference,
    auroc_difference,
    holm,
    structural_components,
)
from tasks.explorer.table import P_FAKE, TABLE, VERDICT

AUROC, ACCURACY = "auroc", "accuracy"
_HOW = " on the pictures that both count, Holm"
# What a row of both tables is about.
_KEY = ("source", "image_id", "resolution", "perturbation")

CHANGE_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("mix", "resolution", "perturbation", "detector", "metric"), pl.String),
    # `difference` is after minus before, with its 95 % interval; p is two-sided, p_adjusted Holm's over the table.
    **dict.fromkeys(("before", "after", "difference", "low", "high", "p", "p_adjusted"), pl.Float64),
    "reason": pl.String,
    **dict.fromkeys(("n_real", "n_fake", "n_groups"), pl.Int64),
}


@dataclass(frozen=True, eq=False)
class AnsweredRun:
    """The pictures of a run, as its table has them."""

    name: str
    pictures: pl.DataFrame

    @property
    def mixes(self) -> tuple[str, ...]:
        """The names of those that count any picture."""
        return tuple(self.pictures["drawn"].explode().drop_nulls().unique(maintain_order=True))

    @property
    def detectors(self) -> tuple[str, ...]:
        """The names of those that said something."""
        return tuple(name.removesuffix(P_FAKE) for name in self.pictures.columns if name.endswith(P_FAKE))


def read_run(store: Store, place: str) -> AnsweredRun:
    """A run's pictures.

    Raises:
        MissingInput: the run is of a version that kept none.
        DamagedObject: they cannot be read.
    """
    name = place.rpartition("/")[2]
    if store.size(f"{place}/{TABLE}") is None:
        raise MissingInput(f"{TABLE} of the run {name}: it is of an older version; evaluate its experiment again")
    try:
        found = AnsweredRun(name, pl.read_parquet(io.BytesIO(store.read(f"{place}/{TABLE}"))))
        found.pictures.select(
            *_KEY, "group_id", "truth", "drawn", *(one + end for one in found.detectors for end in (P_FAKE, VERDICT))
        )
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise DamagedObject(f"the pictures of the run {name} cannot be read: {error}; evaluate it again") from error
    return found


def changes(before: AnsweredRun, after: AnsweredRun) -> pl.DataFrame:
    """How every detector of both runs changed in every cell and mix of both: rows in CHANGE_SCHEMA.

    AUROC by DeLong's test, and accuracy of each run's verdicts by McNemar's, for groups, on the pictures that both runs
    count in their figures; `p_adjusted` is over all rows.

    Raises:
        SpecError: the runs have no picture, cell or detector in common.
    """
    both = before.pictures.join(after.pictures, on=list(_KEY), suffix="_after").sort(_KEY)
    if not len(both):
        raise SpecError(f"{before.name} and {after.name} tested no picture in the same cell: nothing can be compared")
    detectors = [name for name in after.detectors if name in before.detectors]
    mixes = [name for name in after.mixes if name in before.mixes]
    if not detectors or not mixes:
        raise SpecError(f"{before.name} and {after.name} have no detector and no mix in common")
    rows: list[dict[str, Any]] = []
    for mix in mixes:
        of_mix = both.filter(*(pl.col(name).list.contains(mix) for name in ("drawn", "drawn_after")))
        for (resolution, perturbation), cell in of_mix.group_by(["resolution", "perturbation"], maintain_order=True):
            where = {"mix": mix, "resolution": resolution, "perturbation": perturbation}
            for detector in detectors:
                rows += [where | {"detector": detector} | row for row in _changes_of(detector, cell)]
    adjusted = holm([row["p"] for row in rows])
    return pl.DataFrame([row | {"p_adjusted": p} for row, p in zip(rows, adjusted, strict=True)], CHANGE_SCHEMA)


def _changes_of(detector: str, cell: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """AUROC and accuracy of one detector on what both runs scored; nothing where it scored no picture twice."""
    scored = cell.drop_nulls([f"{detector}{P_FAKE}", f"{detector}{P_FAKE}_after"])
    if not len(scored):
        return
    label = (scored["truth"] == "generated").cast(pl.Int8).to_numpy()
    groups = scored["group_id"].to_numpy()
    counts = {
        "n_real": int((label == 0).sum()),
        "n_fake": int((label == 1).sum()),
        "n_groups": scored["group_id"].n_unique(),
    }
    first, second = (scored[f"{detector}{P_FAKE}{end}"].to_numpy() for end in ("", "_after"))
    found = auroc_difference(label, second, first, groups)
    if found.value is None:
        yield _row(AUROC, (None, None), found, counts)
    else:
        aurocs = [float(structural_components(label, score)[label == FAKE].mean()) for score in (first, second)]
        yield _row(AUROC, (aurocs[0], aurocs[1]), found, counts)
    verdicts = scored.drop_nulls([f"{detector}{VERDICT}", f"{detector}{VERDICT}_after"])
    right = [(verdicts[f"{detector}{VERDICT}{end}"] == verdicts["truth"]).to_numpy() for end in ("", "_after")]
    if not len(verdicts):
        yield _row(ACCURACY, (None, None), Difference(None, reason="no thresholds"), counts)
        return
    found = accuracy_difference(right[1], right[0], verdicts["group_id"].to_numpy())
    if few := few_groups_of_a_class(label, groups):
        found = Difference(found.value, reason=few)
    yield _row(ACCURACY, (float(right[0].mean()), float(right[1].mean())), found, counts)


def _row(
    metric: str, values: tuple[float | None, float | None], found: Difference, counts: Mapping[str, int]
) -> dict[str, Any]:
    row = asdict(found)
    return {
        "metric": metric,
        "before": values[0],
        "after": values[1],
        "difference": row.pop("value"),
        **row,
        "reason": found.reason or None,
        **counts,
    }


def beyond_chance(found: pl.DataFrame) -> pl.DataFrame:
    """The rows of `changes` whose difference is significant, the largest first."""
    return found.filter(pl.col("p_adjusted") < LEVEL).sort(pl.col("difference").abs(), descending=True)


def in_a_line(found: pl.DataFrame, before: str) -> str:
    """What changed since the run `before`, as one sentence."""
    significant = beyond_chance(found)
    tested = found["p"].count()
    if not tested:
        return f"Nothing can be said of changes since {before}: there are too few groups of pictures."
    if not len(significant):
        return f"No cell changed beyond chance since {before} ({tested} comparisons{_HOW})."
    worst = significant.row(0, named=True)
    others = f" and {len(significant) - 1} more" if len(significant) > 1 else ""
    return (
        f"Changed beyond chance since {before}: {worst['metric']} of {worst['detector']} on {worst['mix']} in "
        f"{worst['resolution']}/{worst['perturbation']} from {worst['before']:.3f} to {worst['after']:.3f}{others} "
        f"(of {tested} comparisons{_HOW})."
    )


def shown(found: pl.DataFrame) -> Sequence[dict[str, str]]:
    """The rows of `changes` as texts, for a table that people read."""
    return [
        {
            "mix": row["mix"],
            "cell": f"{row['resolution']}/{row['perturbation']}",
            "detector": row["detector"],
            "metric": row["metric"],
            "before": _number(row["before"]),
            "after": _number(row["after"]),
            "change": "n/a" if row["difference"] is None else f"{row['difference']:+.3f}",
            "95 %": "n/a" if row["low"] is None else f"[{row['low']:+.3f}, {row['high']:+.3f}]",
            "p (Holm)": _number(row["p_adjusted"]),
            "pictures": f"{row['n_real']} + {row['n_fake']}",
        }
        for row in found.iter_rows(named=True)
    ]


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
