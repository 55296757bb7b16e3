"""A toy section of the report, as somebody would add one."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from tasks.report.blocks import Block, Cell, Column, Table, Text
from tasks.report.data import ReportData, ResultIndex


def mixes_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """How many photographs' and fakes' sources every mix has."""
    rows = [(mix.name, len(mix.real), len(mix.fakes)) for mix in data.experiment.all_mixes]
    return pl.DataFrame(rows, schema={"mix": pl.String, "real": pl.Int64, "fake": pl.Int64}, orient="row")


def mixes_blocks(tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """The mixes with their numbers of sources."""
    rows = tuple((Cell(mix), Cell(str(real)), Cell(str(fake))) for mix, real, fake in tables["mixes"].iter_rows())
    columns = (Column("mix", "text"), Column("sources of photographs"), Column("sources of fakes"))
    return (Text("What stands against what."), Table("Mixes", columns, rows, csv="mixes"))
