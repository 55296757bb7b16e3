"""The full grid: every cell, detector and threshold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from tasks.report.blocks import (
    Block,
    Cell,
    Column,
    Heats,
    Table,
    Text,
    cell_map,
    estimate_cell,
    joined,
    reasons_note,
    row_estimate,
)
from tasks.report.data import (
    DETECTOR_TITLES,
    HEADLINE_RULE,
    MAIN_DETECTORS,
    PROBE,
    Estimate,
    ReportData,
    ResultIndex,
    cell_name,
    estimate_columns,
    estimate_values,
    is_enlarged,
    sorted_cells,
)

METRICS = (
    "auroc", "average_precision", "eer", "ece",
    "accuracy", "precision", "recall", "f1", "balanced_accuracy", "threshold",
)  # fmt: skip
THRESHOLD_RULES = ("val", "half", "oracle")
_HEAT_METRICS = (("auroc", None, "AUROC"), ("balanced_accuracy", HEADLINE_RULE, "balanced accuracy"))


def grid_blocks(data: ReportData, index: ResultIndex, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """Heat maps of every mix, and all numbers folded below them."""
    detectors = [name for name in MAIN_DETECTORS if index.cells("fair", name)]
    if not detectors:
        return (Text("No fair row was computed in this run."),)
    blocks: list[Block] = [
        Text(
            "Rows are resolutions, columns JPEG qualities; below each value is its 95 % interval. White is guessing "
            "(0.5), blue is told apart, orange is worse than guessing. Balanced accuracy is taken at the threshold "
            "chosen on validation pictures of the uncompressed view."
        )
    ]
    mixes = dict.fromkeys(
        cell[0] for name in detectors for cell in sorted_cells(data.experiment, index.cells("fair", name))
    )
    for mix_name in mixes:
        maps = [
            cell_map(data, index, f"{detector}: {title}", mix_name, detector, metric, rule)
            for metric, rule, title in _HEAT_METRICS
            for detector in detectors
            if any(cell[0] == mix_name for cell in index.cells("fair", detector))
        ]
        blocks.append(Heats(mix_name, tuple(maps), _enlarged_note(data, mix_name)))
    legend = "; ".join(f"{name}: {DETECTOR_TITLES[name]}" for name in detectors)
    blocks.append(Text(f"{legend}.", "note"))
    blocks += reasons_note(
        index.get("fair", cell, name, metric, rule)
        for name in detectors
        for cell in index.cells("fair", name)
        for metric, rule, _ in _HEAT_METRICS
    )
    blocks.append(_grid_numbers(tables["grid"]))
    return tuple(blocks)


def _enlarged_note(data: ReportData, mix_name: str) -> str:
    mix = next((mix for mix in data.experiment.all_mixes if mix.name == mix_name), None)
    if mix is None:
        return ""
    enlarged = [str(one) for one in data.experiment.resolutions if is_enlarged(data, mix, str(one))]
    return f"enlarged: the rows {joined(enlarged)} hold pictures that are smaller by nature" if enlarged else ""


def _grid_numbers(grid: pl.DataFrame) -> Table:
    """Every cell at every threshold, folded: the heat maps show what matters first."""
    rules = (("val", "chosen on val"), ("half", "0.5"), ("oracle", "oracle: chosen on test"))
    columns = (
        Column("mix", "text"), Column("detector", "text"), Column("cell", "text"), Column("AUROC"),
        Column("average precision"), Column("EER"),
        *(Column(name, group="at the threshold chosen on val") for name in ("accuracy", "precision", "recall", "F1")),
        *(Column(title, group="balanced accuracy by threshold") for _, title in rules),
        Column("photographs"), Column("fakes"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(row["mix"], tag="enlarged" if row["enlarged"] else ""),
            Cell(row["detector"]),
            Cell(row["cell"]),
            *(estimate_cell(row_estimate(row, name)) for name in ("auroc", "average_precision", "eer")),
            *(
                estimate_cell(row_estimate(row, f"{name}@{HEADLINE_RULE}"))
                for name in ("accuracy", "precision", "recall", "f1")
            ),
            *(estimate_cell(row_estimate(row, f"balanced_accuracy@{rule}")) for rule, _ in rules),
            Cell(str(row["n_real"])),
            Cell(str(row["n_fake"])),
        )
        for row in grid.filter(pl.col("detector") != PROBE).with_columns(reason=pl.lit("")).iter_rows(named=True)
    )
    return Table("All numbers of the grid, positive class fake", columns, rows, folded=True)


def grid_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """The fair grid, wide: one row per mix, detector and cell; `metric@rule` where a threshold is needed."""
    names = [
        (metric, None if metric in ("auroc", "average_precision", "eer", "ece") else rule)
        for metric in METRICS
        for rule in (THRESHOLD_RULES if metric not in ("auroc", "average_precision", "eer", "ece") else (None,))
    ]
    columns = {(metric, rule): metric if rule is None else f"{metric}@{rule}" for metric, rule in names}
    schema: dict[str, Any] = {
        "mix": pl.String, "detector": pl.String, "cell": pl.String, "resolution": pl.String, "jpeg_quality": pl.Int16,
        "n_real": pl.Int64, "n_fake": pl.Int64, "n_groups": pl.Int64, "enlarged": pl.Boolean, "reason": pl.String,
    }  # fmt: skip
    for column in columns.values():
        schema |= estimate_columns(column)
    mixes = {mix.name: mix for mix in data.experiment.all_mixes}
    rows = []
    for detector in (*MAIN_DETECTORS, PROBE):
        for cell in sorted_cells(data.experiment, index.cells("fair", detector)):
            estimates = {
                column: index.get("fair", cell, detector, metric, rule) for (metric, rule), column in columns.items()
            }
            some = next((one for one in estimates.values() if one is not None), Estimate(None))
            row: dict[str, Any] = {
                "mix": cell[0],
                "detector": detector,
                "cell": cell_name(*cell[1:]),
                "resolution": cell[1],
                "jpeg_quality": cell[2],
                "n_real": some.n_real,
                "n_fake": some.n_fake,
                "n_groups": some.n_groups,
                "enlarged": is_enlarged(data, mixes[cell[0]], cell[1]) if cell[0] in mixes else None,
                "reason": "; ".join(dict.fromkeys(one.reason for one in estimates.values() if one and one.reason)),
            }
            for column, estimate in estimates.items():
                row |= estimate_values(column, estimate)
            rows.append(row)
    return pl.DataFrame(rows, schema=schema)
