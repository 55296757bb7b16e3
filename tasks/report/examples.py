"""Pictures of each source as a detector gets them."""

from __future__ import annotations

from tasks.data.perturbations.kinds import NONE
from tasks.report.blocks import Block, Gallery, Picture, Text
from tasks.report.data import ReportData, position, strongest_jpeg
from tasks.spec.experiment import Experiment


def examples_blocks(data: ReportData, every_view: bool) -> tuple[Block, ...]:
    """Strips of pictures per source; without `every_view` only the least and the most compressed of a resolution."""
    if not len(data.examples):
        return (Text("No example pictures were kept in this run."),)
    sources = [source.name for source in data.experiment.sources]
    labels = {source.name: source.label for source in data.experiment.sources}
    order = [cell.view(data.experiment.path).name for cell in data.experiment.cells]
    few = _least_and_most_compressed(data.experiment)
    strips: dict[str, dict[str, bytes]] = {}
    for row in data.examples.iter_rows(named=True):
        if every_view or row["view"] in few:
            strips.setdefault(row["source"], {})[row["view"]] = row["png"]
    blocks: list[Block] = [
        Text(
            "The same pictures of each source in every view, as a detector gets them. Views are path / resolution / "
            "perturbation."
        )
    ]
    for source in sorted(strips, key=lambda name: position(sources, name)):
        views = sorted(strips[source], key=lambda view: position(order, view))
        pictures = [Picture(view, f"pictures of {source} in the view {view}", strips[source][view]) for view in views]
        title = f"{source} ({labels[source]})" if source in labels else source
        blocks.append(Gallery(title, tuple(pictures)))
    return tuple(blocks)


def _least_and_most_compressed(experiment: Experiment) -> set[str]:
    """The views in which nothing happens to a picture, and those with a JPEG of the lowest quality."""
    shown = (NONE, strongest_jpeg(experiment))
    return {cell.view(experiment.path).name for cell in experiment.cells if cell.perturbation_name in shown}
