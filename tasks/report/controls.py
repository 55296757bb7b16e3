"""What should be at chance: the probe, which sees no content, and the control with shuffled labels."""

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
    cell_map,
    estimate_cell,
    joined,
    number,
    reasons_note,
    row_estimate,
)
from tasks.report.data import (
    PROBE,
    CellKey,
    Estimate,
    ReportData,
    ResultIndex,
    cell_name,
    estimate_columns,
    estimate_values,
    sorted_cells,
)


def control_rows(data: ReportData, index: ResultIndex) -> list[tuple[CellKey, Estimate]]:
    """AUROC of the controls with shuffled labels."""
    found = []
    for detector in sorted(index.detectors("control")):
        for cell in sorted_cells(data.experiment, index.cells("control", detector)):
            estimate = index.get("control", cell, detector, "auroc")
            if estimate is not None:
                found.append((cell, estimate))
    return found


def _chance_cell(contains: bool | None) -> Cell:
    return Cell(NOT_AVAILABLE) if contains is None else Cell("yes") if contains else Cell("no", tag="flag")


def controls_blocks(data: ReportData, index: ResultIndex, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """The probe in every cell, and the control with shuffled labels."""
    blocks: list[Block] = []
    probe = tables["probe"]
    if len(probe):
        blocks += _probe_blocks(data, index, probe)
    else:
        blocks.append(Text("The probe was not computed in this run."))
    control = control_rows(data, index)
    if not control:
        blocks.append(Text("No control with shuffled labels was computed in this run."))
        return tuple(blocks)
    rows = tuple(
        (Cell(cell[0]), Cell(cell_name(*cell[1:])), estimate_cell(one), _chance_cell(one.contains(0.5)))
        for cell, one in control
    )
    columns = (Column("mix", "text"), Column("cell", "text"), Column("AUROC"), Column("contains 0.5", "text"))
    blocks += [
        Text("The control is the same SVM, fitted after the training labels were shuffled: it has to be at chance."),
        Table("Control with shuffled labels", columns, rows),
        *reasons_note(one for _, one in control),
    ]
    return tuple(blocks)


def _probe_blocks(data: ReportData, index: ResultIndex, probe: pl.DataFrame) -> Iterator[Block]:
    flagged = probe.filter(pl.col("contains_half").eq(False))
    judged = probe.filter(pl.col("contains_half").is_not_null())
    yield Text(
        "The probe sees no picture content: only width, height, format, file size, quantisation tables, mean and "
        "blockiness. In a fair cell its AUROC should not differ from 0.5."
    )
    if not len(judged):
        yield Text("No row of the probe has an interval, so whether it is at chance is n/a.", "note")
    elif len(flagged):
        places = []
        for (mix,), part in flagged.group_by("mix", maintain_order=True):
            cells = [f"{row['cell']} ({number(row['auroc'])})" for row in part.iter_rows(named=True)]
            places.append(f"{mix} at {joined(cells)}" if len(cells) <= 3 else f"{mix} in {len(cells)} cells")
        yield Text(
            f"In {len(flagged)} of {len(judged)} rows the probe's interval does not contain 0.5: "
            f"{'; '.join(places)}. There, part of what a detector tells may be format rather than content. Of many "
            "rows, one in twenty is expected to be flagged by chance.",
            "warning",
        )
    else:
        yield Text(f"In all {len(judged)} rows with an interval the interval contains 0.5: nothing is flagged.")
    mixes = list(dict.fromkeys(probe["mix"]))
    yield Heats("", tuple(cell_map(data, index, f"probe on {mix}: AUROC", mix, PROBE, "auroc", None) for mix in mixes))
    columns = (Column("mix", "text"), Column("cell", "text"), Column("AUROC"), Column("contains 0.5", "text"))
    estimates = [row_estimate(row, "auroc") for row in probe.iter_rows(named=True)]
    rows = tuple(
        (Cell(row["mix"]), Cell(row["cell"]), estimate_cell(one), _chance_cell(row["contains_half"]))
        for row, one in zip(probe.iter_rows(named=True), estimates, strict=True)
    )
    yield Table("The probe in every cell", columns, rows, folded=True)
    yield from reasons_note(estimates)


def probe_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """The probe's AUROC in every fair cell; `contains_half` is null where there is no interval."""
    schema: dict[str, Any] = {
        "mix": pl.String, "cell": pl.String, "resolution": pl.String, "jpeg_quality": pl.Int16,
        **estimate_columns("auroc"), "contains_half": pl.Boolean, "reason": pl.String,
    }  # fmt: skip
    rows = []
    for cell in sorted_cells(data.experiment, index.cells("fair", PROBE)):
        auroc = index.get("fair", cell, PROBE, "auroc")
        if auroc is not None:
            rows.append(
                {
                    "mix": cell[0],
                    "cell": cell_name(*cell[1:]),
                    "resolution": cell[1],
                    "jpeg_quality": cell[2],
                    **estimate_values("auroc", auroc),
                    "contains_half": auroc.contains(0.5),
                    "reason": auroc.reason,
                }
            )
    return pl.DataFrame(rows, schema=schema)
