"""Calibration: whether of the pictures with a p(fake) of 0.8 eight in ten are fakes."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from storage.tables import FAKE
from tasks.report.blocks import (
    Block,
    Cell,
    Column,
    Gallery,
    Picture,
    Table,
    Text,
    estimate_cell,
    number,
    reasons_note,
)
from tasks.report.data import (
    FAIR,
    CellKey,
    Estimate,
    Evaluated,
    ReportData,
    ResultIndex,
    main_mix,
    perturbation_word,
    perturbations,
    sorted_cells,
)
from tasks.report.plots import Curve, reliability_plot

BINS = 10
# A share of fewer pictures than this is not drawn: it jumps.
_FEWEST = 5


def reliability_bins(drawn: pl.DataFrame) -> pl.DataFrame:
    """The last columns of `RELIABILITY`: pictures by `p_fake` in bins of equal width, of which empty ones have no row.

    Args:
        drawn: `label` and `p_fake` of pictures, none of them null.
    """
    # 1.0 belongs to the last bin.
    number_of = (pl.col("p_fake") * BINS).floor().clip(0, BINS - 1).cast(pl.Int64)
    return (
        drawn.group_by(number_of.alias("bin"))
        .agg(
            pl.len().cast(pl.Int64).alias("pictures"),
            pl.col("p_fake").mean(),
            (pl.col("label") == FAKE).mean().alias("fakes"),
        )
        .sort("bin")
    )


def calibration_blocks(data: ReportData, index: ResultIndex) -> tuple[Block, ...]:
    """Reliability diagrams of every detector, and the expected calibration error in every cell."""
    columns = (
        Column("detector", "text"), Column("mix", "text"), Column("resolution", "text"),
        *(Column(one, group=f"ECE by {perturbation_word(data.experiment)}") for one in perturbations(data.experiment)),
    )  # fmt: skip
    rows, estimates = [], []
    for one in index.detectors:
        cells = sorted_cells(data.experiment, index.cells(FAIR, one.fit))
        for mix, resolution in dict.fromkeys((cell.mix, cell.resolution) for cell in cells):
            found = [_error(index, one, CellKey(mix, resolution, name)) for name in perturbations(data.experiment)]
            if any(found):
                estimates += found
                rows.append((Cell(one.name), Cell(mix), Cell(resolution), *(estimate_cell(each) for each in found)))
    if not rows:
        return (Text("No calibration error was computed in this run."),)
    return (
        Text(
            f"The share of fakes among pictures of a p(fake), in {BINS} bins; on the dashed line both are equal. Drawn "
            f"is the mix {main_mix(data.experiment).name}, and a bin of {_FEWEST} pictures or more. Probabilities were "
            "calibrated on uncompressed validation pictures. ECE, the expected calibration error, is the mean distance "
            "from the line in 15 bins; 0 is perfect. All bins are in",
            link="tables/reliability.csv",
            link_words="reliability.csv.",
        ),
        Gallery("", tuple(_diagrams(data, index))),
        Table("Expected calibration error", columns, tuple(rows), folded=True, csv="grid"),
        *reasons_note(estimates),
    )


def _error(index: ResultIndex, detector: Evaluated, cell: CellKey) -> Estimate | None:
    return index.get(FAIR, cell, detector.fit, "ece")


def _diagrams(data: ReportData, index: ResultIndex) -> Iterator[Picture]:
    """A picture of each detector with a panel for each resolution, and in it a curve for each perturbation."""
    order = perturbations(data.experiment)
    for one in index.detectors:
        panels, spoken = [], []
        for resolution in (str(size) for size in data.experiment.resolutions):
            curves = []
            errors = []
            for place, name in enumerate(order):
                bins = data.reliability.filter(detector=one.name, resolution=resolution, perturbation=name).filter(
                    pl.col("pictures") >= _FEWEST
                )
                if len(bins):
                    shade = 1 - 0.65 * place / max(len(order) - 1, 1)
                    curves.append(Curve(name, bins["p_fake"], bins["fakes"], index.colour(one.name), place, shade))
                    error = _error(index, one, CellKey(main_mix(data.experiment).name, resolution, name))
                    errors.append(f"{name} {number(error.value if error else None)}")
            if curves:
                panels.append((f"{resolution}: ECE {errors[0].split()[-1]}", curves))
                spoken.append(f"{resolution}: {', '.join(errors)}")
        if panels:
            alt = f"Reliability of {one.name}; expected calibration error at {'; '.join(spoken)}"
            yield Picture(one.name, alt, reliability_plot(panels, one.name))
