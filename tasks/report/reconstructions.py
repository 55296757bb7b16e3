"""Matched pairs: photographs beside what was made of them, so that content is equal and what is told is trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from tasks.evaluation.cells import PAIRS_IN_ORDER
from tasks.report.blocks import Block, Cell, Column, Table, Text, estimate_cell, number, reasons_note, row_estimate
from tasks.report.data import (
    CELL_COLUMNS,
    FAIR,
    CellKey,
    ReportData,
    ResultIndex,
    estimate_columns,
    estimate_values,
    sorted_cells,
)


def reconstruction_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """AUROC of every detector on matched pairs, the share that it orders right, and its mean AUROC on other fakes.

    `unmatched` is the mean over the generators whose pictures are of no photograph, each against all photographs, in
    the same cell; null where there is none.
    """
    schema: dict[str, Any] = {
        "detector": pl.String, "mix": pl.String, **CELL_COLUMNS, "pairs": pl.Int64, **estimate_columns("auroc"),
        **estimate_columns("in_order"), "unmatched": pl.Float64, "reason": pl.String,
    }  # fmt: skip
    single = [mix.name for mix in data.experiment.all_mixes if mix.fakes == (mix.name,)]
    rows = []
    for one in index.detectors:
        cells = sorted_cells(data.experiment, index.cells(FAIR, one.fit))
        in_order = {cell: index.get(FAIR, cell, one.fit, PAIRS_IN_ORDER) for cell in cells}
        for cell, pairs in in_order.items():
            auroc = index.get(FAIR, cell, one.fit, "auroc")
            if pairs is None or auroc is None:
                continue
            others = [cell._replace(mix=name) for name in single]
            rows.append(
                {
                    "detector": one.name,
                    "mix": cell.mix,
                    **cell.row,
                    "pairs": pairs.n_fake,
                    **estimate_values("auroc", auroc),
                    **estimate_values("in_order", pairs),
                    "unmatched": _mean(index, one.fit, [other for other in others if in_order.get(other) is None]),
                    "reason": auroc.reason or pairs.reason,
                }
            )
    return pl.DataFrame(rows, schema=schema)


def _mean(index: ResultIndex, fit: Any, cells: list[CellKey]) -> float | None:
    found = [index.get(FAIR, cell, fit, "auroc") for cell in cells]
    values = [one.value for one in found if one is not None and one.value is not None]
    return sum(values) / len(values) if values else None


def reconstruction_blocks(tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """The table, and what it says of content."""
    rows = list(tables["reconstructions"].iter_rows(named=True))
    if not rows:
        return ()
    estimates = [(row_estimate(row, "auroc"), row_estimate(row, "in_order")) for row in rows]
    columns = (
        Column("detector", "text"), Column("mix", "text"), Column("cell", "text"), Column("pairs"), Column("AUROC"),
        Column("in order"), Column("AUROC, unmatched"),
    )  # fmt: skip
    shown = tuple(
        (
            Cell(row["detector"]),
            Cell(row["mix"]),
            Cell(row["cell"]),
            Cell(str(row["pairs"])),
            estimate_cell(auroc),
            estimate_cell(in_order),
            Cell(number(row["unmatched"])),
        )
        for row, (auroc, in_order) in zip(rows, estimates, strict=True)
    )
    return (
        Text(
            "Each generated picture here was made of a photograph that it stands beside, so that both show the same: "
            "what a detector gains over 0.5 is trace. In order is the share of pairs in which the generated picture "
            "has the higher score. Beside it the mean AUROC on the generators whose pictures are of no photograph: "
            "what it is higher there may be content, or that these generators leave more."
        ),
        Table("Photographs beside what was made of them", columns, shown, csv="reconstructions"),
        *reasons_note(one for pair in estimates for one in pair),
    )
