"""The spread over training seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from tasks.report.blocks import UNFOLDED_ROWS, Block, Cell, Column, Table, Text, number
from tasks.report.data import CELL_COLUMNS, FAIR, ReportData, ResultIndex, position, sorted_cells
from tasks.spec.detectors import Fit


def seeds_blocks(tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """AUROC by training seed, and the widest spread."""
    table = tables["seeds"]
    if not len(table):
        return (Text("Detectors were fitted with one training seed only, so the spread over seeds is not known."),)
    seeds = sorted(table["training_seed"].unique())
    rows = []
    for (detector, mix, cell), part in table.group_by("detector", "mix", "cell", maintain_order=True):
        values = dict(zip(part["training_seed"], part["auroc"], strict=True))
        rows.append(
            (
                Cell(str(mix)),
                Cell(str(detector)),
                Cell(str(cell)),
                *(Cell(number(values.get(seed))) for seed in seeds),
                Cell(number(part["spread"][0])),
            )
        )
    columns = (
        Column("mix", "text"),
        Column("detector", "text"),
        Column("cell", "text"),
        *(Column(f"seed {seed}", group="AUROC") for seed in seeds),
        Column("largest − smallest"),
    )
    widest = table.sort("spread", descending=True, maintain_order=True).row(0, named=True)
    return (
        Text(
            "Detectors that were fitted several times, with other training seeds: a linear one then takes a bootstrap "
            "sample of the training groups (seed 0 is the fit on all of them), a network other first weights and "
            f"another order. The widest spread is {number(widest['spread'])}, of {widest['detector']} in "
            f"{widest['mix']} at {widest['cell']}; a difference between detectors that is not larger than this says "
            "nothing."
        ),
        Table("AUROC by training seed", columns, tuple(rows), folded=len(rows) > UNFOLDED_ROWS, csv="seeds"),
    )


def seeds_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """AUROC of detectors with several training seeds: one row per mix, cell and seed, with the spread."""
    schema: dict[str, Any] = {
        "detector": pl.String, "mix": pl.String, **CELL_COLUMNS, "training_seed": pl.Int64,
        "auroc": pl.Float64, "smallest": pl.Float64, "largest": pl.Float64, "spread": pl.Float64,
    }  # fmt: skip
    names = [one.name for one in index.detectors]
    several: dict[str, list[Fit]] = {}
    for fit in sorted(index.fits(FAIR), key=lambda fit: (position(names, fit.detector), fit.seed)):
        if fit.fitted_on is None and fit.without is None:
            several.setdefault(fit.detector, []).append(fit)
    rows = []
    for detector, fits in several.items():
        cells = {cell for fit in fits if fit.seed for cell in index.cells(FAIR, fit)}
        for cell in sorted_cells(data.experiment, cells):
            found = {fit.seed: index.get(FAIR, cell, fit, "auroc") for fit in fits}
            values = {seed: one.value for seed, one in found.items() if one is not None and one.value is not None}
            for seed, value in values.items():
                low, high = min(values.values()), max(values.values())
                rows.append(
                    {
                        "detector": detector,
                        "mix": cell.mix,
                        **cell.row,
                        "training_seed": seed,
                        "auroc": value,
                        "smallest": low,
                        "largest": high,
                        "spread": high - low,
                    }
                )
    return pl.DataFrame(rows, schema=schema)
