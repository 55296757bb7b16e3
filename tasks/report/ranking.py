"""How hard each generator is to tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from tasks.data.perturbations.kinds import NONE
from tasks.report import plots
from tasks.report.blocks import (
    Block,
    Cell,
    Column,
    Gallery,
    Picture,
    Table,
    Text,
    estimate_cell,
    interval,
    number,
    reasons_note,
    row_estimate,
)
from tasks.report.data import (
    FAIR,
    HEADLINE_RULE,
    CellKey,
    ReportData,
    ResultIndex,
    estimate_columns,
    estimate_values,
    is_enlarged,
    mistakes_link,
)


def ranking_blocks(data: ReportData, index: ResultIndex, tables: Mapping[str, pl.DataFrame]) -> tuple[Block, ...]:
    """Generators in the order of their AUROC, as pictures and as a table."""
    table = tables["ranking"]
    if not len(table):
        return (Text("No generator stands alone in a mix, so there is nothing to rank."),)
    pictures, rows, estimates = [], [], []
    for (resolution,), part in table.group_by("resolution", maintain_order=True):
        ranked = [
            plots.Ranked(
                row["mix"] + (" (enlarged)" if row["enlarged"] else ""),
                row["auroc"],
                row["auroc_low"],
                row["auroc_high"],
                index.colour(index.headline.name),
            )
            for row in part.iter_rows(named=True)
        ]
        title = f"{resolution}, uncompressed"
        alt = f"AUROC at {title}, hardest first: " + "; ".join(
            f"{one.label} {number(one.value)} {interval(one.low, one.high)}".rstrip() for one in ranked
        )
        pictures.append(Picture(title, alt, plots.ranking_plot(ranked, title)))
    for row in table.iter_rows(named=True):
        auroc, balanced = row_estimate(row, "auroc"), row_estimate(row, "balanced_accuracy")
        link = mistakes_link(data, CellKey(row["mix"], row["resolution"], NONE), index.headline.name)
        estimates.append(auroc)
        rows.append(
            (
                Cell(row["resolution"]),
                Cell(str(row["rank"])),
                Cell(
                    row["mix"],
                    sub=f"{row['generator']} against {row['real']}",
                    tag="enlarged" if row["enlarged"] else "",
                ),
                estimate_cell(auroc, link),
                estimate_cell(balanced),
                Cell(str(row["n_real"])),
                Cell(str(row["n_fake"])),
                Cell(str(row["n_groups"])),
            )
        )
    columns = (
        Column("resolution", "text"), Column("rank"), Column("mix", "text"), Column("AUROC"),
        Column("balanced accuracy"), Column("photographs"), Column("fakes"), Column("groups"),
    )  # fmt: skip
    intro = (
        f"{data.experiment.path.capitalize()} path, uncompressed, detector {index.headline.name}; the hardest to tell "
        "first. A bar is the 95 % interval; a hollow point has none."
    )
    if table["generator"].n_unique() == 1:
        intro += " There is one generator only: it is compared with itself over resolutions and photographs."
    ranking = Table("Ranking", columns, tuple(rows), folded=True, csv="ranking")
    return (Text(intro), Gallery("", tuple(pictures)), ranking, *reasons_note(estimates))


def ranking_table(data: ReportData, index: ResultIndex) -> pl.DataFrame:
    """Mixes of one generator, uncompressed, at every resolution: the hardest for the headline detector first."""
    schema: dict[str, Any] = {
        "resolution": pl.String, "rank": pl.Int64, "generator": pl.String, "mix": pl.String, "real": pl.String,
        **estimate_columns("auroc"), **estimate_columns("balanced_accuracy"),
        "n_real": pl.Int64, "n_fake": pl.Int64, "n_groups": pl.Int64, "enlarged": pl.Boolean, "reason": pl.String,
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    for resolution in (str(one) for one in data.experiment.resolutions):
        found = []
        for mix in data.experiment.all_mixes:
            cell = CellKey(mix.name, resolution, NONE)
            auroc = index.get(FAIR, cell, index.headline.fit, "auroc")
            if len(mix.fakes) == 1 and auroc is not None and auroc.value is not None:
                found.append((auroc.value, mix, auroc))
        for rank, (_, mix, auroc) in enumerate(sorted(found, key=lambda one: (one[0], one[1].name)), start=1):
            cell = CellKey(mix.name, resolution, NONE)
            balanced = index.get(FAIR, cell, index.headline.fit, "balanced_accuracy", HEADLINE_RULE)
            rows.append(
                {
                    "resolution": resolution,
                    "rank": rank,
                    "generator": mix.fakes[0],
                    "mix": mix.name,
                    "real": " + ".join(mix.real),
                    **estimate_values("auroc", auroc),
                    **estimate_values("balanced_accuracy", balanced),
                    "n_real": auroc.n_real,
                    "n_fake": auroc.n_fake,
                    "n_groups": auroc.n_groups,
                    "enlarged": is_enlarged(data, mix, resolution),
                    "reason": auroc.reason,
                }
            )
    return pl.DataFrame(rows, schema=schema)
