"""What should be at chance: probes, which see no content, and the controls with shuffled labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from tasks.report.blocks import (
    NOT_AVAILABLE,
    Block,
    Cell,
    Column,
    Heats,
    Table,
    Text,
    estimate_cell,
    grid_map,
    reasons_note,
    row_estimate,
)
from tasks.report.data import (
    CELL_COLUMNS,
    FAIR,
    CellKey,
    Estimate,
    Evaluated,
    ReportData,
    ResultIndex,
    estimate_columns,
    estimate_values,
    sorted_cells,
)
from tasks.spec.detectors import Fit

CONTROL = "control"


def control_rows(data: ReportData, index: ResultIndex) -> list[tuple[Fit, CellKey, Estimate]]:
    """AUROC of the controls with shuffled labels."""
    found = []
    for fit in sorted(index.fits(CONTROL), key=lambda fit: fit.label):
        for cell in sorted_cells(data.experiment, index.cells(CONTROL, fit)):
            estimate = index.get(CONTROL, cell, fit, "auroc")
            if estimate is not None:
                found.append((fit, cell, estimate))
    return found


def _chance_cell(contains: bool | None) -> Cell:
    return Cell(NOT_AVAILABLE) if contains is None else Cell("yes") if contains else Cell("no", tag="flag")


def controls_blocks(data: ReportData, index: ResultIndex, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """Every probe in every cell, and the controls with shuffled labels."""
    blocks: list[Block] = []
    if index.probes:
        blocks.append(
            Text(
                "A probe reads only what should not tell the classes apart: one that sees no picture content has "
                "width, height, format, file size, quantisation tables, mean and blockiness. In a fair cell its AUROC "
                "should not differ from 0.5."
            )
        )
        blocks.append(Text(f"{'; '.join(one.label for one in index.probes)}.", "note"))
    else:
        blocks.append(Text("No probe was computed in this run."))
    for probe in index.probes:
        blocks += _probe_blocks(data, index, probe, tables["probe"].filter(pl.col("detector") == probe.name))
    control = control_rows(data, index)
    if not control:
        blocks.append(Text("No control with shuffled labels was computed in this run."))
        return tuple(blocks)
    rows = tuple(
        (Cell(cell.mix), Cell(fit.label), Cell(cell.cell), estimate_cell(one), _chance_cell(one.contains(0.5)))
        for fit, cell, one in control
    )
    columns = (
        Column("mix", "text"), Column("detector", "text"), Column("cell", "text"), Column("AUROC"),
        Column("contains 0.5", "text"),
    )  # fmt: skip
    blocks += [
        Text(
            "Each control is a detector that was fitted to shuffled labels, and tested against them in the views that "
            "it is fitted on: it has to be at chance. Of twenty intervals, one is expected to miss 0.5."
        ),
        Table("Controls with shuffled labels", columns, rows, csv="results"),
        *reasons_note(one for *_, one in control),
    ]
    return tuple(blocks)


def _probe_blocks(data: ReportData, index: ResultIndex, probe: Evaluated, rows: pl.DataFrame) -> Iterator[Block]:
    flagged = rows.filter(pl.col("contains_half").eq(False))
    judged = rows.filter(pl.col("contains_half").is_not_null())
    if not len(judged):
        yield Text(f"No row of {probe.name} has an interval, so whether it is at chance is n/a.", "note")
    elif len(flagged):
        counted = flagged.group_by("mix", maintain_order=True).len()
        places = [f"{mix} in {count} cell{'s' if count > 1 else ''}" for mix, count in counted.iter_rows()]
        yield Text(
            f"In {len(flagged)} of {len(judged)} rows the interval of {probe.name} does not contain 0.5: "
            f"{', '.join(places)}. There, part of what a detector tells may be format rather than content. Of many "
            "rows, one in twenty is expected to be flagged by chance."
        )
    else:
        yield Text(f"In all {len(judged)} rows of {probe.name} with an interval it contains 0.5: nothing is flagged.")
    yield Heats("", (grid_map(data, index, f"{probe.name}: AUROC", probe.fit, "auroc", None),), csv="probe")
    yield from reasons_note(row_estimate(row, "auroc") for row in rows.iter_rows(named=True))


def probe_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """AUROC of every probe in every fair cell; `contains_half` is null where there is no interval."""
    schema: dict[str, Any] = {
        "detector": pl.String, "title": pl.String, "mix": pl.String, **CELL_COLUMNS,
        **estimate_columns("auroc"), "contains_half": pl.Boolean, "reason": pl.String,
    }  # fmt: skip
    rows = []
    for probe in index.probes:
        for cell in sorted_cells(data.experiment, index.cells(FAIR, probe.fit)):
            auroc = index.get(FAIR, cell, probe.fit, "auroc")
            if auroc is not None:
                rows.append(
                    {
                        "detector": probe.name,
                        "title": probe.title,
                        "mix": cell.mix,
                        **cell.row,
                        **estimate_values("auroc", auroc),
                        "contains_half": auroc.contains(0.5),
                        "reason": auroc.reason,
                    }
                )
    return pl.DataFrame(rows, schema=schema)
