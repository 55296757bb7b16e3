"""The spread over training seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from tasks.report.blocks import Block, Cell, Column, Table, Text, number, plain_cell
from tasks.report.data import HEADLINE_DETECTOR, ReportData, ResultIndex, sorted_cells


def seeds_blocks(tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """AUROC by training seed, and the widest spread."""
    table = tables["seeds"]
    if not len(table):
        return (Text("Heads were fitted with one training seed only, so the spread over seeds is not known."),)
    seeds = sorted(table["training_seed"].unique())
    rows = []
    for (mix, resolution), part in table.group_by("mix", "resolution", maintain_order=True):
        values = dict(zip(part["training_seed"], part["auroc"], strict=True))
        rows.append(
            (
                Cell(mix),
                Cell(f"{resolution}/none"),
                *(plain_cell(values.get(seed)) for seed in seeds),
                plain_cell(part["spread"][0]),
            )
        )
    columns = (
        Column("mix", "text"),
        Column("cell", "text"),
        *(Column(f"seed {seed}", group="AUROC") for seed in seeds),
        Column("largest − smallest"),
    )
    widest = table.sort("spread", descending=True, maintain_order=True).row(0, named=True)
    return (
        Text(
            "The headline cells again, fitted on bootstrap samples of the training groups (seed 0 is the fit on all "
            f"of them). The widest spread is {number(widest['spread'])}, in {widest['mix']} at "
            f"{widest['resolution']}/none; a difference between detectors that is not larger than this says nothing."
        ),
        Table("AUROC by training seed", columns, tuple(rows)),
    )


def seeds_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """AUROC of heads of several training seeds, uncompressed: one row per mix, resolution and seed, with the spread."""
    schema: dict[str, Any] = {
        "mix": pl.String, "resolution": pl.String, "training_seed": pl.Int64,
        "auroc": pl.Float64, "smallest": pl.Float64, "largest": pl.Float64, "spread": pl.Float64,
    }  # fmt: skip
    prefix = f"{HEADLINE_DETECTOR}#"
    others = {name.removeprefix(prefix) for name in index.detectors("fair") if name.startswith(prefix)}
    detectors = {0: HEADLINE_DETECTOR} | {int(seed): f"{prefix}{seed}" for seed in sorted(others, key=int)}
    cells = {cell for name in list(detectors.values())[1:] for cell in index.cells("fair", name)}
    rows = []
    for cell in sorted_cells(data.experiment, cells):
        values = {}
        for seed, detector in detectors.items():
            auroc = index.get("fair", cell, detector, "auroc")
            if auroc is not None and auroc.value is not None:
                values[seed] = auroc.value
        for seed, value in values.items():
            low, high = min(values.values()), max(values.values())
            rows.append(
                {
                    "mix": cell[0],
                    "resolution": cell[1],
                    "training_seed": seed,
                    "auroc": value,
                    "smallest": low,
                    "largest": high,
                    "spread": high - low,
                }
            )
    return pl.DataFrame(rows, schema=schema)
