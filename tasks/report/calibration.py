"""Calibration errors."""

from __future__ import annotations

from tasks.report.blocks import Block, Cell, Column, Table, Text, estimate_cell, reasons_note
from tasks.report.data import MAIN_DETECTORS, ReportData, ResultIndex, quality_name, sorted_cells


def calibration_blocks(data: ReportData, index: ResultIndex) -> tuple[Block, ...]:
    """Expected calibration error of the main detectors in every cell."""
    detectors = [name for name in MAIN_DETECTORS if index.cells("fair", name)]
    rows, estimates = [], []
    for detector in detectors:
        cells = sorted_cells(data.experiment, index.cells("fair", detector))
        for mix, resolution in dict.fromkeys((cell[0], cell[1]) for cell in cells):
            found = [index.get("fair", (mix, resolution, one), detector, "ece") for one in data.experiment.qualities]
            if any(found):
                estimates += found
                rows.append((Cell(mix), Cell(detector), Cell(resolution), *(estimate_cell(one) for one in found)))
    if not rows:
        return (Text("No calibration error was computed in this run."),)
    columns = (
        Column("mix", "text"), Column("detector", "text"), Column("resolution", "text"),
        *(Column(quality_name(one), group="ECE by JPEG quality") for one in data.experiment.qualities),
    )  # fmt: skip
    return (
        Text(
            "Expected calibration error (15 equal bins): how far p(fake) is from the share of fakes among pictures "
            "that get it. 0 is perfect. Probabilities were calibrated on uncompressed validation pictures."
        ),
        Table("Expected calibration error", columns, tuple(rows), folded=len(rows) > 24),
        *reasons_note(estimates),
    )
