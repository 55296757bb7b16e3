"""Pictures of each source as a detector gets them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tasks.report.blocks import Block, Gallery, Picture, Text
from tasks.report.data import ReportData


def examples_blocks(data: ReportData, every_view: bool) -> tuple[Block, ...]:
    """Strips of pictures per source; without `every_view` only the least and the most compressed of a resolution."""
    if not len(data.examples):
        return (Text("No example pictures were kept in this run."),)
    order = [source.name for source in data.experiment.sources]
    labels = {source.name: source.label for source in data.experiment.sources}
    strips: dict[str, dict[str, bytes]] = {}
    for row in data.examples.iter_rows(named=True):
        strips.setdefault(row["source"], {})[row["view"]] = row["png"]
    blocks: list[Block] = [
        Text(
            "The same pictures of each source in every view, as a detector gets them. Views are path / resolution / "
            "quality."
        )
    ]
    for source in sorted(strips, key=lambda name: (order.index(name) if name in order else len(order), name)):
        views = sorted(strips[source], key=lambda view: _view_place(data, view))
        if not every_view:
            views = _least_and_most_compressed(views)
        pictures = [Picture(view, f"pictures of {source} in the view {view}", strips[source][view]) for view in views]
        title = f"{source} ({labels[source]})" if source in labels else source
        blocks.append(Gallery(title, tuple(pictures)))
    return tuple(blocks)


def _least_and_most_compressed(views: Sequence[str]) -> list[str]:
    """Of sorted views, the first and the last of each path and resolution."""
    kept: dict[str, list[str]] = {}
    for view in views:
        kept.setdefault(view.rpartition("/")[0], []).append(view)
    return [view for part in kept.values() for view in dict.fromkeys((part[0], part[-1]))]


def _view_place(data: ReportData, view: str) -> tuple[Any, ...]:
    path, _, cell = view.partition("/")
    resolution, _, quality = cell.partition("/")
    resolutions = [str(one) for one in data.experiment.resolutions]
    compression = 0 if quality == "none" else 101 - int(quality[1:]) if re.fullmatch(r"q\d+", quality) else 200
    return (path, resolutions.index(resolution) if resolution in resolutions else len(resolutions), compression, view)
