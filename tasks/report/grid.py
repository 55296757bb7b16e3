"""The full grid: every cell, detector and threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from tasks.evaluation.cells import PUBLISHED, UNSCORED
from tasks.evaluation.classification import FREE_METRICS
from tasks.report.blocks import (
    Block,
    Cell,
    Column,
    Fold,
    Heats,
    Table,
    Text,
    estimate_cell,
    grid_map,
    joined,
    perturbations_note,
    reasons_note,
    row_estimate,
    value_cell,
)
from tasks.report.data import (
    CELL_COLUMNS,
    FAIR,
    HEADLINE_RULE,
    Estimate,
    ReportData,
    ResultIndex,
    estimate_columns,
    estimate_values,
    is_enlarged,
    mistakes_link,
    row_cell,
    sorted_cells,
)

METRICS = (
    "auroc", "average_precision", "eer", "ece",
    "accuracy", "precision", "recall", "f1", "balanced_accuracy", "threshold",
)  # fmt: skip
THRESHOLD_RULES = ("val", "half", "oracle", PUBLISHED)
_HEAT_METRICS = (("auroc", None), ("balanced_accuracy", HEADLINE_RULE))


def grid_blocks(data: ReportData, index: ResultIndex, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """A heat map of every detector; balanced accuracy, and all numbers, open on a click."""
    if not index.detectors:
        return (Text("No fair row was computed in this run."),)
    auroc, accuracy = (
        tuple(grid_map(data, index, one.name, one.fit, metric, rule) for one in index.detectors)
        for metric, rule in _HEAT_METRICS
    )
    return (
        *perturbations_note(data),
        Heats("AUROC", auroc, _enlarged_note(data), "grid"),
        Text(f"{'; '.join(one.label for one in index.detectors)}.", "note"),
        *_detector_notes(data, tables["grid"]),
        *reasons_note(
            index.get(FAIR, cell, one.fit, metric, rule)
            for one in index.detectors
            for cell in index.cells(FAIR, one.fit)
            for metric, rule in _HEAT_METRICS
        ),
        Fold(
            "Balanced accuracy, at the threshold chosen on validation pictures of the uncompressed view",
            (Heats("", accuracy, csv="grid"),),
        ),
        *(_grid_numbers(data, tables["grid"], one.name) for one in index.detectors),
    )


def _detector_notes(data: ReportData, grid: pl.DataFrame) -> Iterable[Text]:
    """What a reader must know of the detectors: their remarks, and how many pictures they could not score."""
    sources = [source.name for source in data.experiment.evaluated_sources]
    for one in data.experiment.all_detectors:
        for remark in one.remarks(sources):
            yield Text(remark, "note")
        cells = grid.filter((pl.col("detector") == one.name) & (pl.col("unscored") > 0))
        if len(cells):
            most = cells.sort("unscored", descending=True).row(0, named=True)
            why = f": {most['unscored_reason']}" if most["unscored_reason"] else ""
            yield Text(
                f"{one.name} could not score some test pictures, which take no part: at most {most['unscored']}, in "
                f"{most['mix']}, {most['cell']}{why}.",
                "note",
            )


def _enlarged_note(data: ReportData) -> str:
    """Which mixes hold pictures that are smaller by nature, and where."""
    found = []
    for mix in data.experiment.all_mixes:
        enlarged = [str(one) for one in data.experiment.resolutions if is_enlarged(data, mix, str(one))]
        found += [f"{mix.name} at {joined(enlarged)}"] if enlarged else []
    return f"enlarged: {'; '.join(found)}" if found else ""


def _grid_numbers(data: ReportData, grid: pl.DataFrame, detector: str) -> Table:
    """Every cell of a detector at every threshold, folded: the heat maps show what matters first."""
    rules = [("val", "chosen on val"), ("half", "0.5"), ("oracle", "oracle: chosen on test")]
    shown = grid.filter(pl.col("detector") == detector)
    if shown[f"balanced_accuracy@{PUBLISHED}"].count():
        rules.append((PUBLISHED, "as published, uncalibrated"))
    columns = (
        Column("mix", "text"), Column("cell", "text"), Column("AUROC"), Column("average precision"), Column("EER"),
        *(Column(name, group="at the threshold chosen on val") for name in ("accuracy", "precision", "recall", "F1")),
        *(Column(title, group="balanced accuracy by threshold") for _, title in rules),
        Column("photographs"), Column("fakes"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(row["mix"], tag="enlarged" if row["enlarged"] else ""),
            Cell(row["cell"]),
            estimate_cell(row_estimate(row, "auroc"), _link(data, row)),
            *(value_cell(row, name) for name in ("average_precision", "eer")),
            *(value_cell(row, f"{name}@{HEADLINE_RULE}") for name in ("accuracy", "precision", "recall", "f1")),
            *(value_cell(row, f"balanced_accuracy@{rule}") for rule, _ in rules),
            Cell(str(row["n_real"])),
            Cell(str(row["n_fake"])),
        )
        for row in shown.iter_rows(named=True)
    )
    caption = f"All numbers of {detector}, positive class fake"
    return Table(caption, columns, rows, folded=True, csv="grid")


def _link(data: ReportData, row: Mapping[str, Any]) -> str:
    return mistakes_link(data, row_cell(row), row["detector"])


def grid_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """The fair grid, wide: one row per detector, mix and cell, probes last; `metric@rule` where it has a threshold."""
    names = [
        (metric, None if metric in FREE_METRICS else rule)
        for metric in METRICS
        for rule in ((None,) if metric in FREE_METRICS else THRESHOLD_RULES)
    ]
    columns = {(metric, rule): metric if rule is None else f"{metric}@{rule}" for metric, rule in names}
    schema: dict[str, Any] = {
        "mix": pl.String, "detector": pl.String, "title": pl.String, "role": pl.String, **CELL_COLUMNS,
        "n_real": pl.Int64, "n_fake": pl.Int64, "n_groups": pl.Int64, "unscored": pl.Int64,
        "unscored_reason": pl.String, "enlarged": pl.Boolean,
        "reason": pl.String,
    }  # fmt: skip
    for column in columns.values():
        schema |= estimate_columns(column)
    mixes = {mix.name: mix for mix in data.experiment.all_mixes}
    rows = []
    for one in (*index.detectors, *index.probes):
        for cell in sorted_cells(data.experiment, index.cells(FAIR, one.fit)):
            estimates = {
                column: index.get(FAIR, cell, one.fit, metric, rule) for (metric, rule), column in columns.items()
            }
            unscored = index.get(FAIR, cell, one.fit, UNSCORED, None)
            some = next((found for found in estimates.values() if found is not None), Estimate(None))
            row: dict[str, Any] = {
                "mix": cell.mix,
                "detector": one.name,
                "title": one.title,
                "role": one.role,
                **cell.row,
                "n_real": some.n_real,
                "n_fake": some.n_fake,
                "n_groups": some.n_groups,
                "unscored": 0 if unscored is None else int(unscored.value or 0),
                "unscored_reason": None if unscored is None else unscored.reason,
                "enlarged": is_enlarged(data, mixes[cell.mix], cell.resolution) if cell.mix in mixes else None,
                "reason": "; ".join(dict.fromkeys(each.reason for each in estimates.values() if each and each.reason)),
            }
            for column, estimate in estimates.items():
                row |= estimate_values(column, estimate)
            rows.append(row)
    return pl.DataFrame(rows, schema=schema)
