"""Trained on one generator, tested on another."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import polars as pl

from tasks.data.perturbations.kinds import NONE
from tasks.report.blocks import Block, Heats, Text, heat_of, reasons_note, row_estimate
from tasks.report.data import (
    FAIR,
    CellKey,
    Estimate,
    ReportData,
    ResultIndex,
    estimate_columns,
    estimate_values,
    position,
)


def cross_blocks(data: ReportData, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """Heat maps of AUROC: fitted on one generator, tested on each."""
    table = tables["cross"]
    if not len(table):
        return (
            Text(
                "There is one generator only, so there is no other to test on."
                if len(data.experiment.fake_names) == 1
                else "The cross table was not computed in this run."
            ),
        )
    maps, estimates = [], []
    for (detector, resolution), part in table.group_by("detector", "resolution", maintain_order=True):
        fitted, tested = part["fitted_on"].unique(maintain_order=True), part["mix"].unique(maintain_order=True)
        values = {(row["fitted_on"], row["mix"]): row_estimate(row, "auroc") for row in part.iter_rows(named=True)}
        estimates += list(values.values())
        found = [[values.get((one, other), Estimate(None)) for other in tested] for one in fitted]
        title = f"{detector}: AUROC at {resolution}"
        maps.append(heat_of(title, "fitted on", "tested on", tuple(fitted), tuple(tested), found))
    return (
        Text(
            "Each row is a detector that was fitted on one generator only (and the photographs) and tested on every "
            "generator, uncompressed. Where a value beside the diagonal falls to 0.5, what was learned does not carry "
            "over."
        ),
        Heats("", tuple(maps), csv="cross"),
        *reasons_note(estimates),
    )


def cross_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """Fitted on one generator, tested on another: AUROC of every such fit at every resolution, uncompressed."""
    schema: dict[str, Any] = {
        "detector": pl.String, "resolution": pl.String, "fitted_on": pl.String, "tested_on": pl.String,
        "mix": pl.String, **estimate_columns("auroc"), "reason": pl.String,
    }  # fmt: skip
    names, sources = [one.name for one in index.detectors], list(data.experiment.fake_names)
    resolutions = [str(one) for one in data.experiment.resolutions]
    fits = sorted(
        (fit for fit in index.fits(FAIR) if fit.fitted_on is not None),
        key=lambda fit: (position(names, fit.detector), position(sources, fit.fitted_on)),
    )
    rows = []
    for detector, resolution in itertools.product(dict.fromkeys(fit.detector for fit in fits), resolutions):
        for fit, mix in itertools.product(fits, data.experiment.all_mixes):
            auroc = index.get(FAIR, CellKey(mix.name, resolution, NONE), fit, "auroc")
            if fit.detector != detector or auroc is None or len(mix.fakes) != 1:
                continue
            rows.append(
                {
                    "detector": detector,
                    "resolution": resolution,
                    "fitted_on": fit.fitted_on,
                    "tested_on": mix.fakes[0],
                    "mix": mix.name,
                    **estimate_values("auroc", auroc),
                    "reason": auroc.reason,
                }
            )
    return pl.DataFrame(rows, schema=schema)
