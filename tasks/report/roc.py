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
    perturbation_word,
    perturbations,
    position,
    sorted_cells,
)
from tasks.report.plots import PlotFormat


def roc_blocks(data: ReportData, index: ResultIndex, plot_format: PlotFormat) -> tuple[Block, ...]:
    """A curve per perturbation, of every detector and then of the probes; Markdown (`png`) shows the first alone."""
    curves = {one: points for one in (*index.detectors, *index.probes) if len(points := _points(data, one))}
    if not curves:
        return (Text("No ROC curves were kept in this run."),)
    blocks: list[Block] = [
        Text(
            "Share of fakes found against share of photographs called fake, one curve per "
            f"{perturbation_word(data.experiment)}; the number is AUROC."
        )
    ]
    # The HTML has the others.
    shown = list(curves.items())[: 1 if plot_format == "png" else None]
    for place, (one, points) in enumerate(shown):
        parts = {
            CellKey(str(mix), str(resolution), ""): part
            for (mix, resolution), part in points.group_by("mix", "resolution", maintain_order=True)
        }
        pictures = [
            _roc_picture(data, index, one, cell, parts[cell], plot_format)
            for cell in sorted_cells(data.experiment, parts)
        ]
        blocks.append(Gallery(one.label, tuple(pictures), folded=place > 0, narrow=True))
    return tuple(blocks)


def _points(data: ReportData, detector: Evaluated) -> pl.DataFrame:
    """The points of a detector's own curves."""
    fit = detector.fit.model_dump()
    return data.roc.filter(pl.col(name).eq_missing(pl.lit(fit[name])) for name, _ in FIT_COLUMNS)


def _roc_picture(
    data: ReportData,
    index: ResultIndex,
    detector: Evaluated,
    place: CellKey,
    points: pl.DataFrame,
    plot_format: PlotFormat,
) -> Picture:
    """All curves of a mix at a resolution; `place` says of no perturbation."""
    curves, spoken = [], []
    order = perturbations(data.experiment)
    for name in sorted(points["perturbation"].unique(), key=lambda name: position(order, name)):
        curve = points.filter(pl.col("perturbation") == name)
        auroc = index.get(FAIR, place._replace(perturbation=name), detector.fit, "auroc")
        value = number(auroc.value if auroc else None)
        curves.append(plots.Curve(f"{name}  {value}", curve["fpr"].to_numpy(), curve["tpr"].to_numpy()))
        spoken.append(f"{name} {value}")
    title = f"{place.mix} at {place.resolution}"
    alt = f"ROC curves of {detector.name}, {title}; AUROC by {perturbation_word(data.experiment)}: {', '.join(spoken)}"
    return Picture(title, alt, plots.roc_plot(curves, title, plot_format))
