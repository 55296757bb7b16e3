"""ROC curves."""

from __future__ import annotations

import polars as pl

from tasks.report import plots
from tasks.report.blocks import Block, Gallery, Picture, Text, number
from tasks.report.data import (
    DETECTOR_TITLES,
    MAIN_DETECTORS,
    PROBE,
    ReportData,
    ResultIndex,
    quality_name,
    sorted_cells,
)
from tasks.report.plots import PlotFormat


def roc_blocks(data: ReportData, plot_format: PlotFormat) -> tuple[Block, ...]:
    """A curve per JPEG quality; Markdown (`png`) shows the first detector alone."""
    if not len(data.roc):
        return (Text("No ROC curves were kept in this run."),)
    index = ResultIndex(data.results)
    parts = {
        (detector, mix, resolution): part
        for (detector, mix, resolution), part in data.roc.group_by("detector", "mix", "resolution", maintain_order=True)
    }
    detectors = [name for name in (*MAIN_DETECTORS, PROBE) if any(key[0] == name for key in parts)]
    detectors += sorted({key[0] for key in parts}.difference(detectors))
    if plot_format == "png":
        detectors = detectors[:1]  # the HTML has the others
    blocks: list[Block] = [
        Text(
            "Share of fakes found against share of photographs called fake, one curve per JPEG quality; the number "
            "is AUROC."
        )
    ]
    for detector in detectors:
        cells = [(mix, resolution, None) for name, mix, resolution in parts if name == detector]
        pictures = [
            _roc_picture(index, detector, mix, resolution, parts[detector, mix, resolution], plot_format)
            for mix, resolution, _ in sorted_cells(data.experiment, cells)
        ]
        title = f"{detector}: {DETECTOR_TITLES[detector]}" if detector in DETECTOR_TITLES else detector
        blocks.append(Gallery(title, tuple(pictures), folded=detector != detectors[0], narrow=True))
    return tuple(blocks)


def _roc_picture(
    index: ResultIndex, detector: str, mix: str, resolution: str, part: pl.DataFrame, plot_format: PlotFormat
) -> Picture:
    curves, spoken = [], []
    qualities = sorted(part["jpeg_quality"].unique(), key=lambda quality: -(101 if quality is None else quality))
    for quality in qualities:
        curve = part.filter(pl.col("jpeg_quality").eq_missing(pl.lit(quality)))
        auroc = index.get("fair", (mix, resolution, quality), detector, "auroc")
        label = f"{quality_name(quality)}  {number(auroc.value if auroc else None)}"
        curves.append(plots.Curve(label, curve["fpr"].to_numpy(), curve["tpr"].to_numpy()))
        spoken.append(f"{quality_name(quality)} {number(auroc.value if auroc else None)}")
    title = f"{mix} at {resolution}"
    alt = f"ROC curves of {detector}, {title}; AUROC by quality: {', '.join(spoken)}"
    return Picture(title, alt, plots.roc_plot(curves, title, plot_format))
