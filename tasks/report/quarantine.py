"""How many pictures there are, and which were set aside."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from tasks.report.blocks import Block, Cell, Column, Table, Text, capped, plain_value
from tasks.report.data import ReportData, ResultIndex
from tasks.spec.experiment import Experiment
from tasks.spec.views import CLEAN_QUALITY


def counts_blocks(data: ReportData, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """What warns, how many pictures there are, and which were set aside."""
    blocks: list[Block] = [Text(line, "warning") for line in data.warnings]
    counts = tables["counts"]
    if len(counts):
        blocks.append(
            Text(
                f"Left out are {_left_out(data.experiment)}. Duplicates repeat an earlier picture of any source: they "
                "are of its group, so of its split. The collapse rate is the share of a generator's pictures that are "
                "near duplicates of another one. A cell is tested on as many photographs as fakes, with equally many "
                "of each generator: where there are more of one, some are drawn and the others not counted."
            )
        )
        blocks += _counted(
            "Images",
            counts.group_by("source", "label", maintain_order=True).agg(
                pl.col("images", "groups").sum(),
                pl.col("left_out", "quarantined", "duplicates", "collapse_rate").first(),
            ),
        )
        blocks += _counted(
            "Images by split or fold", counts.select("source", "label", "split_or_fold", "images", "groups")
        )
    else:
        blocks.append(Text("No counts were given."))
    quarantine = tables["quarantine"]
    if not len(quarantine):
        blocks.append(Text("No picture was quarantined."))
        return tuple(blocks)
    by_reason = quarantine.group_by("source", "reason").len().sort("source", "reason")
    blocks.append(
        Table(
            f"Quarantined: {len(quarantine)}",
            (Column("source", "text"), Column("reason", "text"), Column("pictures")),
            tuple((Cell(row[0]), Cell(plain_value(row[1])), Cell(str(row[2]))) for row in by_reason.iter_rows()),
            csv="quarantine",
        )
    )
    titles = {"source": "source", "image_id": "image", "reason": "reason", "detail": "detail"}
    listed = tuple(tuple(Cell(plain_value(row[name])) for name in titles) for row in quarantine.iter_rows(named=True))
    headings = tuple(Column(title, "code" if name == "image_id" else "text") for name, title in titles.items())
    blocks += capped("Every quarantined picture", headings, listed, "quarantine", folded=True)
    return tuple(blocks)


def _counted(title: str, counts: pl.DataFrame) -> tuple[Block, ...]:
    """Some columns of the counts; what is known of a source as a whole stands in one row of it."""
    texts = ("source", "label", "split_or_fold")
    columns = tuple(Column(name.replace("_", " "), "text" if name in texts else "number") for name in counts.columns)
    rows = tuple(tuple(Cell(plain_value(value)) for value in row) for row in counts.iter_rows())
    return tuple(capped(title, columns, rows, "counts"))


def counts_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """How many pictures each source has, by split or fold."""
    return data.counts.sort("source", "split_or_fold", nulls_last=True) if len(data.counts) else data.counts


def quarantine_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """Every picture that was set aside, and why."""
    return data.quarantine.sort("source", "image_id") if len(data.quarantine) else data.quarantine


def _left_out(experiment: Experiment) -> str:
    """Which pictures take no part, and why."""
    if experiment.path == "fair":
        return (
            f"pictures whose square is smaller than the canonical side ({experiment.canonical_side} pixels): enlarging "
            "them where others are reduced would tell them"
        )
    small = "pictures that are smaller than the smallest window"
    if not experiment.matches_history:
        return small
    return (
        f"{small}, and, where they stand against a generator whose files are JPEGs, photographs below JPEG quality "
        f"{CLEAN_QUALITY}, whose own encoding would be seen; against other generators they take part"
    )
