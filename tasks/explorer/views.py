"""A closer look at some pictures: what detectors were shown of them in every cell, and where networks look."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.objects import ROWS, Ref, opened_part, read_table
from storage.store import Store
from tasks.data.encoding import encode_webp
from tasks.data.pictures import Pixels
from tasks.data.views import has_window, make_views
from tasks.explorer.activation import evidence, shaded
from tasks.explorer.mistakes import Mistaken, surest_mistakes
from tasks.explorer.pictures import ShownScores
from tasks.explorer.thumbnails import thumbnail
from tasks.networks.exported import ExportedNetwork
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Spec
from tasks.spec.views import Canonical, Cell, Path, View

# So many pictures of a run, however many it tests: what they cost is a small part of the smallest experiment's work.
MOST_PICTURES = 100
# And so many maps of all networks together.
MOST_MAPS = 100
_QUALITY = 80  # libwebp's: what JPEG has left in a view stays visible
_ROWS_AT_ONCE = 16

VIEW_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("image_id", pa.string()),
        ("cell", pa.string()),  # its view in this cell; null of a map
        ("detector", pa.string()),  # the map of this network; null of a view
        ("picture", pa.binary()),  # a WebP file
    ]
)


class ViewedSource(Spec):
    """What rows are called, and its pictures' shards, with the thumbnails that say which picture is in which."""

    name: str
    images: tuple[Ref, ...]
    thumbnails: tuple[Ref, ...]
    canonical: Canonical


class ViewedNetwork(Spec):
    """A network that is a detector of the run: its exported files, one for each rotation."""

    detector: str
    models: tuple[Ref, ...]


@step(
    "views",
    version=1,
    label=lambda *, experiment, **_: experiment,
    unkeyed=("experiment",),
    libraries=("pillow", "pillow-heif", "simplejpeg", "onnxruntime"),
)
def make_shown_views(
    run: StepRun,
    *,
    experiment: str,
    said: tuple[ShownScores, ...],
    sources: tuple[ViewedSource, ...],
    cells: tuple[Cell, ...],
    path: Path,
    networks: tuple[ViewedNetwork, ...],
    trained_in: View,
) -> Output:
    """`VIEW_SCHEMA` of the surest mistakes: their view in every cell, the first window of several, of at most 128
    pixels a side; and the map of every network among whose surest mistakes one is, in the view that they were
    `trained_in`.

    Pictures are the same that detectors were shown; larger ones are reduced.
    """
    chosen = surest_mistakes(run.store, said, MOST_PICTURES)
    models = {one.detector: one.models for one in networks}
    asked = [(one, name) for one in chosen for name in models if name in one.detectors]
    maps = set(asked[:MOST_MAPS])

    @functools.cache
    def network(detector: str, fold: int) -> ExportedNetwork:
        return ExportedNetwork.load(run.store, models[detector][fold])

    progress = run.progress(len(chosen))
    rows: list[dict[str, Any]] = []
    for source, one, file in _files(run.store, sources, chosen):
        progress.advance()
        fitting = {cell.name: view for cell in cells if _fits(view := cell.view(path), file)}
        looking = [name for name in models if (one, name) in maps and _fits(trained_in, file)]
        wanted = [*fitting.values(), *([trained_in] if looking else [])]
        made = make_views(file["image"]["bytes"], one.image_id, wanted, source.canonical)
        of = {"source": one.source, "image_id": one.image_id}
        rows += [of | {"cell": cell, "picture": _webp(made[view].pixels)} for cell, view in fitting.items()]
        for detector in looking:
            pixels = made[trained_in].pixels
            places = evidence(network(detector, one.fold).detect(pixels))
            rows.append(of | {"detector": detector, "picture": _webp(shaded(thumbnail(pixels), places))})
    counted = {"pictures": len(chosen), "maps": sum(1 for row in rows if "detector" in row)}
    return Output({ROWS: pa.Table.from_pylist(rows, schema=VIEW_SCHEMA)}, counted)


def _fits(view: View, file: Mapping[str, Any]) -> bool:
    return view.path != "crop" or has_window(file["width"], file["height"], view)


def _webp(rgb: Pixels) -> bytes:
    return encode_webp(thumbnail(rgb), _QUALITY)


def _files(
    store: Store, sources: Sequence[ViewedSource], chosen: Sequence[Mistaken]
) -> Iterator[tuple[ViewedSource, Mistaken, Mapping[str, Any]]]:
    """The chosen pictures with their files; of all shards only those are read that hold one."""

    @functools.cache
    def names(thumbnails: Ref) -> frozenset[str]:
        return frozenset(read_table(store, thumbnails, columns=["image_id"])["image_id"].to_pylist())

    for source in sources:
        wanted = {one.image_id: one for one in chosen if one.source == source.name}
        for images, thumbnails in zip(source.images, source.thumbnails, strict=True):
            if names(thumbnails).isdisjoint(wanted):
                continue
            with opened_part(store, images) as file:
                columns = ["image", "image_id", "width", "height"]
                for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False):
                    for row in batch.to_pylist():
                        if row["image_id"] in wanted:
                            yield source, wanted[row["image_id"]], row
