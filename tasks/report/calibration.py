"""Calibration errors."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.report.blocks import Block, Cell, Column, Fold, Table, Text, estimate_cell, reasons_note
from tasks.report.data import (
    FAIR,
    SHOWN_DETECTORS,
    CellKey,
    Estimate,
    Evaluated,
    ReportData,
    ResultIndex,
    perturbation_word,
    perturbations,
    sorted_cells,
)


def calibration_blocks(data: ReportData, index: ResultIndex) -> tuple[Block, ...]:
    """Expected calibration error of every detector in every cell."""
    shown, estimates = _errors(data, index, index.detectors[:SHOWN_DETECTORS])
    others, further = _errors(data, index, index.detectors[SHOWN_DETECTORS:])
    if not shown and not others:
        return (Text("No calibration error was computed in this run."),)
    columns = (
        Column("mix", "text"), Column("detector", "text"), Column("resolution", "text"),
        *(Column(one, group=f"ECE by {perturbation_word(data.experiment)}") for one in perturbations(data.experiment)),
    )  # fmt: skip
    title = "Expected calibration error"
    return (
        Text(
            "Expected calibration error (15 equal bins): how far p(fake) is from the share of fakes among pictures "
            "that get it. 0 is perfect. Probabilities were calibrated on uncompressed validation pictures."
        ),
        Table(title, columns, shown, folded=len(shown) > 24),
        *([Fold("The other detectors", (Table(title, columns, others),))] if others else []),
        *reasons_note([*estimates, *further]),
    )


def _errors(
    data: ReportData, index: ResultIndex, detectors: Sequence[Evaluated]
) -> tuple[tuple[tuple[Cell, ...], ...], list[Estimate | None]]:
    """A row for every detector, mix and resolution, and all numbers in them."""
    rows, estimates = [], []
    for one in detectors:
        cells = sorted_cells(data.experiment, index.cells(FAIR, one.fit))
        for mix, resolution in dict.fromkeys((cell.mix, cell.resolution) for cell in cells):
            found = [
                index.get(FAIR, CellKey(mix, resolution, name), one.fit, "ece")
                for name in perturbations(data.experiment)
            ]
            if any(found):
                estimates += found
                rows.append((Cell(mix), Cell(one.name), Cell(resolution), *(estimate_cell(each) for each in found)))
    return tuple(rows), estimates
