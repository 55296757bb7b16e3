"""Pictures of each source as a detector gets them."""

from __future__ import annotations

import io
from collections.abc import Sequence

from tasks.report.blocks import Block, Gallery, Picture, Text
from tasks.report.data import ReportData, position

# Pixels of a picture in a strip: larger ones are reduced to them, smaller ones doubled while they fit.
_SIDE = 144
_QUALITY = 82


def examples_blocks(data: ReportData) -> tuple[Block, ...]:
    """A strip for each source and resolution: the same picture in all its views."""
    if not len(data.examples):
        return (Text("No example pictures were kept in this run."),)
    sources = [source.name for source in data.experiment.sources]
    labels = {source.name: source.label for source in data.experiment.sources}
    pictures = {(row["source"], row["view"]): row["png"] for row in data.examples.iter_rows(named=True)}
    views = {cell: cell.view(data.experiment.path).name for cell in data.experiment.cells}
    blocks: list[Block] = [Text("One picture of each source in every view, as a detector gets it.")]
    for source in sorted(dict.fromkeys(source for source, _ in pictures), key=lambda name: position(sources, name)):
        strips = []
        for resolution in data.experiment.resolutions:
            found = [
                (cell.perturbation_name, pictures[source, view])
                for cell, view in views.items()
                if cell.resolution == resolution and (source, view) in pictures
            ]
            if found:
                words = f"{resolution}: {', '.join(name for name, _ in found)}"
                strips.append(Picture(words, f"a picture of {source} at {words}", _strip([png for _, png in found])))
        title = f"{source} ({labels[source]})" if source in labels else source
        blocks.append(Gallery(title, tuple(strips)))
    return tuple(blocks)


def webp(png: bytes, side: int) -> bytes:
    """A picture of at most so many pixels a side, as WebP."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _encoded(picture)


def _strip(pictures: Sequence[bytes]) -> bytes:
    """Pictures side by side as one WebP."""
    from PIL import Image

    shown = []
    for data in pictures:
        with Image.open(io.BytesIO(data)) as opened:
            picture = opened.convert("RGB")
        if 2 * max(picture.size) <= _SIDE:
            picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        shown.append(picture)
    strip = Image.new("RGB", (sum(one.width + 2 for one in shown) - 2, max(one.height for one in shown)), "white")
    left = 0
    for picture in shown:
        strip.paste(picture, (left, 0))
        left += picture.width + 2
    return _encoded(strip)


def _encoded(picture: object) -> bytes:
    target = io.BytesIO()
    picture.save(target, "WEBP", quality=_QUALITY, method=4)  # type: ignore[attr-defined]
    return target.getvalue()
