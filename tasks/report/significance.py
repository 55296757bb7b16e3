"""Which detectors differ by more than chance, how they rank, and what perturbations cost each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from tasks.data.perturbations.kinds import NONE
from tasks.evaluation.pairs import ACCURACY, ALL_PAIRS, AUROC
from tasks.evaluation.significance import LEVEL, holm
from tasks.report.blocks import (
    NOT_AVAILABLE,
    UNFOLDED_ROWS,
    Block,
    Cell,
    Column,
    Fold,
    Table,
    Text,
    number,
    reasons_note,
    row_estimate,
    signed,
    signed_interval,
    value_cell,
)
from tasks.report.data import (
    CELL_COLUMNS,
    FAIR,
    HEADLINE_RULE,
    CellKey,
    Estimate,
    ReportData,
    ResultIndex,
    estimate_columns,
    estimate_values,
    mistakes_link,
    perturbations,
    position,
    row_cell,
    sorted_cells,
)
from tasks.spec.detectors import Fit

BEST, NOT_WORSE, DIFFERS = "best", "≈ best", "differs"
_TITLES = {AUROC: "AUROC", ACCURACY: "accuracy"}
_RULES = {AUROC: None, ACCURACY: HEADLINE_RULE}


def pairs_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """Every paired difference, with p adjusted by Holm over the `comparisons` that one table of the report shows.

    One shows a metric of a cell's detectors in all mixes; another that of all detectors in the perturbed cells of a
    resolution, against the uncompressed one.
    """
    rows = data.pairs.with_columns(
        cell=pl.format("{}/{}", "resolution", "perturbation"),
        shown_in=pl.when(pl.col("perturbation") == pl.col("than_perturbation"))
        .then(pl.format("{} {}/{}", "metric", "resolution", "perturbation"))
        .otherwise(pl.format("{} {}", "metric", "resolution")),
    ).to_dicts()
    shown_in: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        shown_in.setdefault(row.pop("shown_in"), []).append(row)
    for family in shown_in.values():
        adjusted = holm([row["p"] for row in family])
        for row, p in zip(family, adjusted, strict=True):
            row |= {"p_holm": p, "comparisons": sum(one is not None for one in adjusted)}
    added = {"p_holm": pl.Float64, "comparisons": pl.Int64}
    schema: dict[str, Any] = {"cell": pl.String, **data.pairs.schema, **added}
    return pl.DataFrame(rows, schema=schema)


def significance_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """Detectors of every cell and mix, the best first: value, rank, and the difference from the best."""
    schema: dict[str, Any] = {
        "metric": pl.String, "mix": pl.String, **CELL_COLUMNS, "detector": pl.String, "best": pl.Boolean,
        **estimate_columns("value"), **estimate_columns("rank"), **estimate_columns("difference"),
        "p": pl.Float64, "p_holm": pl.Float64, "comparisons": pl.Int64, "n_left_out": pl.Int64, "n_groups": pl.Int64,
        "reason": pl.String,
    }  # fmt: skip
    differences = {
        (row["resolution"], row["perturbation"], row["mix"], row["metric"], row["detector"], row["than_detector"]): row
        for row in pairs_table(data, index).iter_rows(named=True)
        if row["perturbation"] == row["than_perturbation"]
    }
    ranks: dict[CellKey, list[dict[str, Any]]] = {}
    for row in data.ranks.iter_rows(named=True):
        ranks.setdefault(row_cell(row), []).append(row)
    rows = []
    for cell in sorted_cells(data.experiment, ranks):
        found = sorted(ranks[cell], key=lambda row: (row["rank"] is None, row["rank"], not row["best"]))
        best = next((row["detector"] for row in found if row["best"]), None)
        for metric, rule in _RULES.items():
            for rank in found:
                value = index.get(FAIR, cell, Fit(detector=rank["detector"]), metric, rule)
                at = (cell.resolution, cell.perturbation, cell.mix, metric, rank["detector"], best)
                difference = differences.get(at, {})
                rows.append(
                    {
                        "metric": metric, "mix": cell.mix, **cell.row, "detector": rank["detector"],
                        "best": rank["best"], **estimate_values("value", value),
                        **estimate_values("rank", row_estimate(rank, "rank")),
                        "difference": difference.get("difference"), "difference_low": difference.get("low"),
                        "difference_high": difference.get("high"),
                        **{name: difference.get(name) for name in ("p", "p_holm", "comparisons", "n_left_out")},
                        "n_groups": rank["n_groups"],
                        "reason": difference.get("reason") or rank["reason"],
                    }
                )  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


def significance_blocks(data: ReportData, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """Per cell the detectors against the best of them, then per resolution what each perturbation costs them."""
    table, pairs = tables["significance"], tables["pairs"]
    if not len(table):
        return (Text("No detectors were compared in this run."),)
    blocks: list[Block] = [Text(sentence) for sentence in _words(table)]
    if len(pairs.filter(pl.col("perturbation") == pl.col("than_perturbation"))):
        blocks += _cell_blocks(data, table)
    else:
        blocks.append(Text("No cell has two detectors that could be compared."))
    blocks += _change_blocks(data, pairs)
    missing = [Estimate(None, reason=row["reason"]) for row in (*table.to_dicts(), *pairs.to_dicts()) if row["reason"]]
    return (*blocks, *reasons_note(missing))


def _words(table: pl.DataFrame) -> Iterator[str]:
    yield (
        "In each mix of a cell the detector of the highest AUROC is the best, and each other one is compared with it "
        f"on the pictures that both scored. “{NOT_WORSE}” marks a detector that is not significantly worse: where two "
        "are equally good, a difference as large as theirs is no rarity. It does not say that it is as good, since "
        "few pictures show large differences alone. A detector without a mark is worse by more than chance, unless its "
        "p is n/a."
    )
    yield (
        f"A difference counts as more than chance where its p is below {LEVEL:.2f} after Holm's adjustment for all "
        "comparisons of the table. AUROCs are compared by DeLong's test for groups, decisions by McNemar's exact "
        "test, also for groups: a photograph and the fakes made of it count as one draw, not as several. The interval "
        "of a rank holds 95 % of the ranks in resamples of the groups; 1 is the highest AUROC."
    )
    detectors = table.filter(pl.col("metric") == AUROC).group_by("mix", "cell").len()["len"].max()
    if isinstance(detectors, int) and detectors > ALL_PAIRS:
        yield (
            f"With more than {ALL_PAIRS} detectors each is compared with the best alone. The best is found on the "
            "same pictures, so that its lead is somewhat flattered, and with it the significance of the differences."
        )
    else:
        yield "The adjustment is for all pairs, those without the best too, which are in pairs.csv."


def _cell_blocks(data: ReportData, table: pl.DataFrame) -> Iterator[Block]:
    """Uncompressed cells are open; decisions, and the other cells, open on a click."""
    for (cell, perturbation), part in table.group_by("cell", "perturbation", maintain_order=True):
        by_auroc, by_accuracy = (_cell_table(data, str(cell), metric, part) for metric in _RULES)
        if perturbation == NONE:
            yield by_auroc
            yield Fold(f"Decisions at {cell}", (by_accuracy,))
        else:
            yield Fold(f"Detectors at {cell}", (by_auroc, by_accuracy))


def _cell_table(data: ReportData, cell: str, metric: str, part: pl.DataFrame) -> Table:
    title = _TITLES[metric]
    rows = part.filter(pl.col("metric") == metric)
    # Where nothing could be compared the table is an order alone.
    compared = rows["p_holm"].count() > 0
    best = {row["mix"]: row["detector"] for row in rows.iter_rows(named=True) if row["best"]}
    shown = tuple(
        (
            Cell(row["mix"]),
            Cell(row["detector"], tag=mark(row)),
            replace(value_cell(row, "value"), link=mistakes_link(data, row_cell(row), row["detector"])),
            *((_rank_cell(row),) if metric == AUROC else ()),
            Cell("–") if row["best"] else _difference_cell(data, row, best.get(row["mix"], "")),
            *((Cell("–") if row["best"] else Cell(_chance(row["p_holm"])),) * compared),
            Cell("–" if row["n_left_out"] is None else str(row["n_left_out"])),
            Cell(str(row["n_groups"])),
        )
        for row in rows.iter_rows(named=True)
    )
    columns = (
        Column("mix", "text"), Column("detector", "text"), Column(title), *((Column("rank"),) * (metric == AUROC)),
        Column("minus the best's"), *((Column("p, adjusted"),) * compared), Column("left out"), Column("groups"),
    )  # fmt: skip
    at = "" if metric == AUROC else ", at the threshold chosen on val"
    caption = f"{cell}: {title}{at}; {_adjusted(rows)}"
    return Table(caption, columns, shown, folded=len(shown) > UNFOLDED_ROWS or not compared, csv="significance")


def mark(row: Mapping[str, Any]) -> str:
    """`best`, `≈ best` for one that is not significantly worse, or nothing, also where that is not known."""
    if row["best"]:
        return BEST
    return NOT_WORSE if row["p_holm"] is not None and row["p_holm"] >= LEVEL else ""


def _change_blocks(data: ReportData, pairs: pl.DataFrame) -> Iterator[Block]:
    """A table for every resolution and metric: detectors by perturbations; decisions open on a click."""
    changes = pairs.filter(pl.col("perturbation") != pl.col("than_perturbation"))
    changes = changes.rename({"low": "difference_low", "high": "difference_high"})
    if not len(changes):
        return
    yield Text(
        "The same detectors on the same pictures, perturbed against uncompressed: "
        f"“{DIFFERS}” marks a change that is more than chance."
    )
    resolutions = sorted(changes["resolution"].unique(), key=lambda one: position(_resolutions(data), one))
    for resolution in resolutions:
        part = changes.filter(pl.col("resolution") == resolution)
        by_auroc, by_accuracy = (_change_table(data, resolution, metric, part) for metric in _RULES)
        yield by_auroc
        yield Fold(f"Decisions at {resolution}", (by_accuracy,))


def _change_table(data: ReportData, resolution: str, metric: str, part: pl.DataFrame) -> Table:
    rows = part.filter(pl.col("metric") == metric)
    happened = [name for name in perturbations(data.experiment) if name in set(rows["perturbation"])]
    found = {(row["mix"], row["detector"], row["perturbation"]): row for row in rows.iter_rows(named=True)}
    shown = tuple(
        (
            Cell(mix),
            Cell(detector),
            *(_change_cell(data, found.get((mix, detector, perturbation))) for perturbation in happened),
        )
        for mix, detector in dict.fromkeys((mix, detector) for mix, detector, _ in found)
    )
    columns = (Column("mix", "text"), Column("detector", "text"), *(Column(name) for name in happened))
    caption = f"{resolution}: {_TITLES[metric]} minus that of uncompressed pictures; {_adjusted(rows)}"
    return Table(caption, columns, shown, folded=len(shown) > UNFOLDED_ROWS, csv="pairs")


def _change_cell(data: ReportData, row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return Cell("–")
    differs = row["p_holm"] is not None and row["p_holm"] < LEVEL
    return _difference_cell(data, row, f"{row['resolution']}/{row['than_perturbation']}", differs)


def _difference_cell(data: ReportData, row: Mapping[str, Any], than: str, differs: bool = False) -> Cell:
    """A difference; it leads to the pictures that one side gets right and the other, `than`, wrong."""
    value, low, high = row["difference"], row["difference_low"], row["difference_high"]
    if value is None:
        return Cell(NOT_AVAILABLE)
    link = mistakes_link(data, row_cell(row), row["detector"], than)
    return Cell(signed(value), sub=signed_interval(low, high), tag=DIFFERS if differs else "", link=link)


def _rank_cell(row: Mapping[str, Any]) -> Cell:
    if row["rank"] is None:
        return Cell(NOT_AVAILABLE)
    low, high = row["rank_low"], row["rank_high"]
    return Cell(f"{row['rank']:.3g}", sub="" if low is None else f"[{low:.3g}, {high:.3g}]")


def _adjusted(rows: pl.DataFrame) -> str:
    compared = {count for count in rows["comparisons"] if count is not None}
    return f"p adjusted for {max(compared, default=0)} comparisons"


def _chance(p: float | None) -> str:
    return "< 0.001" if p is not None and p < 0.001 else number(p)


def _resolutions(data: ReportData) -> list[str]:
    return [str(one) for one in data.experiment.resolutions]
