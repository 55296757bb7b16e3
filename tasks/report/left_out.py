"""Tested on what a detector was not fitted on: a family of generators, or a source of photographs, left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from tasks.report.blocks import (
    UNFOLDED_ROWS,
    Block,
    Cell,
    Column,
    Table,
    Text,
    estimate_cell,
    number,
    reasons_note,
    row_estimate,
)
from tasks.report.data import (
    CELL_COLUMNS,
    FAIR,
    ReportData,
    ResultIndex,
    estimate_columns,
    estimate_values,
    mistakes_link,
    position,
    row_cell,
    sorted_cells,
)


def left_out_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """AUROC of every detector on what was left out of its training, beside that of the one that knows it."""
    schema: dict[str, Any] = {
        "detector": pl.String, "without": pl.String, "mix": pl.String, **CELL_COLUMNS,
        **estimate_columns("known"), **estimate_columns("left_out"), "reason": pl.String,
    }  # fmt: skip
    names = [one.name for one in index.detectors]
    absent = [*data.experiment.all_families, *data.experiment.real_names]
    fits = sorted(
        (fit for fit in index.fits(FAIR) if fit.without is not None and fit.detector in names),
        key=lambda fit: (position(names, fit.detector), position(absent, fit.without)),
    )
    rows = []
    for fit in fits:
        for cell in sorted_cells(data.experiment, index.cells(FAIR, fit)):
            whole = fit.model_copy(update={"without": None})
            known, left_out = (index.get(FAIR, cell, one, "auroc") for one in (whole, fit))
            if known is not None and left_out is not None:
                rows.append(
                    {
                        "detector": fit.detector,
                        "without": fit.without,
                        "mix": cell.mix,
                        **cell.row,
                        **estimate_values("known", known),
                        **estimate_values("left_out", left_out),
                        "reason": left_out.reason or known.reason,
                    }
                )
    return pl.DataFrame(rows, schema=schema)


def left_out_blocks(data: ReportData, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """A table of all, and the mean over the generators.

    The explorer has what detectors say that know everything, so that only their numbers lead there.
    """
    rows = list(tables["left_out"].iter_rows(named=True))
    if not rows:
        return ()
    estimates = [(row_estimate(row, "known"), row_estimate(row, "left_out")) for row in rows]
    columns = (
        Column("detector", "text"), Column("left out", "text"), Column("mix", "text"), Column("cell", "text"),
        Column("known"), Column("left out"),
    )  # fmt: skip
    shown = tuple(
        (
            Cell(row["detector"]),
            Cell(row["without"]),
            Cell(row["mix"]),
            Cell(row["cell"]),
            estimate_cell(known, mistakes_link(data, row_cell(row), row["detector"])),
            estimate_cell(left_out),
        )
        for row, (known, left_out) in zip(rows, estimates, strict=True)
    )
    return (
        Text(
            "Each row is a detector that was fitted without a family of generators, or without a source of "
            "photographs, and is tested on it: AUROC, uncompressed, beside that of the detector that knows it."
        ),
        *_means(data, tables["left_out"]),
        Table("Each left out, and each mix", columns, shown, folded=len(shown) > UNFOLDED_ROWS, csv="left_out"),
        *reasons_note(one for pair in estimates for one in pair),
    )


def _means(data: ReportData, table: pl.DataFrame) -> tuple[Block, ...]:
    """The mean over generators, each of which counts once: those that have a mix of their own with all photographs."""
    own = [mix.name for mix in data.experiment.all_mixes if mix.fakes == (mix.name,)]
    of_generators = table.filter(pl.col("mix").is_in(own) & pl.col("without").is_in(list(data.experiment.all_families)))
    means = of_generators.group_by("detector", "cell", maintain_order=True).agg(
        pl.col("known").mean(), pl.col("left_out").mean(), pl.len()
    )
    if not len(means):
        return ()
    columns = (
        Column("detector", "text"), Column("cell", "text"), Column("generators"), Column("known"), Column("left out"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(row["detector"]),
            Cell(row["cell"]),
            Cell(str(row["len"])),
            Cell(number(row["known"])),
            Cell(number(row["left_out"])),
        )
        for row in means.iter_rows(named=True)
    )
    return (Table("Mean AUROC over the generators", columns, rows),)
