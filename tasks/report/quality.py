"""Distances between generated pictures and photographs."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from tasks.data.perturbations.kinds import NONE
from tasks.report.blocks import NOT_AVAILABLE, UNFOLDED_ROWS, Block, Cell, Column, Table, Text
from tasks.report.data import ReportData, ResultIndex


def quality_blocks(tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """Distances by source and cell."""
    table = tables["quality"]
    if not len(table):
        return (Text("Generator quality was not computed in this run."),)
    columns = (
        Column("source", "text"), Column("metric", "text"), Column("cell", "text"), Column("value"),
        Column("photographs"), Column("fakes"),
    )  # fmt: skip
    notes = table["note"].drop_nulls().unique(maintain_order=True).to_list()
    rows = tuple(
        (
            Cell(row["source"], notes=(notes.index(row["note"]) + 1,) if row["note"] else ()),
            Cell(row["metric"]),
            Cell(row["cell"]),
            Cell(_significant(row["value"]), sub=_significant_interval(row["low"], row["high"])),
            Cell(str(row["n_real"])),
            Cell(str(row["n_fake"])),
        )
        for row in table.iter_rows(named=True)
    )
    return (
        Text(
            "Distances between each generator's pictures and test photographs in the same view; lower is nearer. "
            "Values of different metrics, and of different numbers of pictures, do not compare. Only distances on "
            "the 2015 Inception network are called FID and KID."
        ),
        Table("Generator quality", columns, rows, tuple(notes), folded=len(rows) > UNFOLDED_ROWS, csv="quality"),
    )


def quality_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """Distances, each generator's in the order of the grid; all of uncompressed cells."""
    if not len(data.quality):
        return data.quality
    order = {str(resolution): place for place, resolution in enumerate(data.experiment.resolutions)}
    place = pl.col("resolution").replace_strict(order, default=len(order), return_dtype=pl.Int64)
    cell = pl.concat_str("resolution", pl.lit(f"/{NONE}")).alias("cell")
    named = data.quality.select("source", cell, pl.exclude("source", "jpeg_quality"))
    return named.sort("source", "metric", place, maintain_order=True)


def _significant(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else f"{value:.4g}"


def _significant_interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.4g}, {high:.4g}]"
