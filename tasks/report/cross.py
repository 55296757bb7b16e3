"""Trained on one generator, tested on another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from tasks.report.blocks import Block, Heats, Text, heat_of, reasons_note, row_estimate
from tasks.report.data import (
    HEADLINE_DETECTOR,
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
    for (resolution,), part in table.group_by("resolution", maintain_order=True):
        fitted, tested = part["fitted_on"].unique(maintain_order=True), part["mix"].unique(maintain_order=True)
        values = {(row["fitted_on"], row["mix"]): row_estimate(row, "auroc") for row in part.iter_rows(named=True)}
        estimates += list(values.values())
        found = [[values.get((one, other), Estimate(None)) for other in tested] for one in fitted]
        maps.append(heat_of(f"AUROC at {resolution}", "fitted on", "tested on", tuple(fitted), tuple(tested), found))
    return (
        Text(
            "Each SVM was fitted on one generator only (and the photographs) and tested on every generator, "
            "uncompressed. Where a value beside the diagonal falls to 0.5, what was learned does not carry over."
        ),
        Heats("", tuple(maps)),
        *reasons_note(estimates),
    )


def cross_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """Fitted on one generator, tested on another: AUROC at every resolution, uncompressed."""
    schema: dict[str, Any] = {
        "resolution": pl.String, "fitted_on": pl.String, "tested_on": pl.String, "mix": pl.String,
        **estimate_columns("auroc"), "reason": pl.String,
    }  # fmt: skip
    mixes = {mix.name: mix for mix in data.experiment.all_mixes}
    sources = list(data.experiment.fake_names)
    prefix = f"{HEADLINE_DETECTOR}@"
    fitted = {name for name in index.detectors("fair") if name.startswith(prefix)}
    rows = []
    for resolution in (str(one) for one in data.experiment.resolutions):
        for detector in sorted(fitted, key=lambda name: position(sources, name.removeprefix(prefix))):
            for mix_name, mix in mixes.items():
                auroc = index.get("fair", (mix_name, resolution, None), detector, "auroc")
                if auroc is None or len(mix.fakes) != 1:
                    continue
                rows.append(
                    {
                        "resolution": resolution,
                        "fitted_on": detector.removeprefix(prefix),
                        "tested_on": mix.fakes[0],
                        "mix": mix_name,
                        **estimate_values("auroc", auroc),
                        "reason": auroc.reason,
                    }
                )
    return pl.DataFrame(rows, schema=schema)
