"""ROC curves."""

from __future__ import annotations

import polars as pl

from storage.tables import FIT_COLUMNS
from tasks.report import plots
from tasks.report.blocks import Block, Gallery, Picture, Text, number
from tasks.report.data import (
    FAIR,
    CellKey,
    Evaluated,
    ReportData,
    ResultIndex,
    main_mix,
    perturbations,
    sorted_cells,
)


def roc_blocks(data: ReportData, index: ResultIndex) -> tuple[Block, ...]:
    """A plot of every detector and then of the probes, with a curve for every cell of one mix."""
    mix = main_mix(data.experiment).name
    pictures = []
    for one in (*index.detectors, *index.probes):
        points = _points(data, one)
        of_mix = points.filter(pl.col("mix") == mix) if len(points) else points
        if len(of_mix):
            pictures.append(_picture(data, index, one, mix, of_mix))
    if not pictures:
        return (Text("No ROC curves were kept in this run."),)
    words = (
        f"The mix {mix}: the share of fakes found over the share of photographs called fake. A curve is a cell: its "
        "dashes say the resolution, and of one resolution those further down are fainter. Behind a name is AUROC. All "
        "mixes are in"
    )
    return (Text(words, link="tables/roc.csv", link_words="roc.csv."), Gallery("", tuple(pictures)))


def _points(data: ReportData, detector: Evaluated) -> pl.DataFrame:
    """The points of a detector's own curves."""
    fit = detector.fit.model_dump()
    return data.roc.filter(pl.col(name).eq_missing(pl.lit(fit[name])) for name, _ in FIT_COLUMNS)


def _picture(data: ReportData, index: ResultIndex, detector: Evaluated, mix: str, points: pl.DataFrame) -> Picture:
    curves, spoken = [], []
    resolutions = [str(one) for one in data.experiment.resolutions]
    order = perturbations(data.experiment)
    parts = {
        CellKey(mix, str(resolution), str(perturbation)): part
        for (resolution, perturbation), part in points.group_by("resolution", "perturbation", maintain_order=True)
    }
    for cell in sorted_cells(data.experiment, parts):
        auroc = index.get(FAIR, cell, detector.fit, "auroc")
        value = number(auroc.value if auroc else None)
        dash = resolutions.index(cell.resolution) if cell.resolution in resolutions else len(resolutions)
        place = order.index(cell.perturbation) if cell.perturbation in order else len(order)
        opacity = 1 - 0.65 * place / max(len(order) - 1, 1)
        x, y = parts[cell]["fpr"].to_numpy(), parts[cell]["tpr"].to_numpy()
        label = f"{cell.cell}  {value}"
        curves.append(plots.Curve(label, x, y, index.colour(detector.name), dash, max(opacity, 0.35)))
        spoken.append(f"{cell.cell} {value}")
    alt = f"ROC curves of {detector.name} on {mix}; AUROC by cell: {', '.join(spoken)}"
    return Picture(detector.name, alt, plots.roc_plot(curves, detector.name))
