"""One example picture of every source in every view, for the report."""

import io

import pyarrow as pa

from storage.digest import hash_fraction
from storage.objects import ROWS, Ref, read_table
from tasks.data.encoding import encode_png
from tasks.data.views import has_window, make_views
from tasks.recipe import Output, StepRun, step
from tasks.spec.views import Canonical, View

EXAMPLE_SCHEMA = pa.schema([("source", pa.string()), ("view", pa.string()), ("png", pa.binary())])
LARGEST_SIDE = 256


@step(
    "examples",
    version=2,
    label=lambda sources, **_: "-".join(sources)[:60],
    libraries=("pillow", "pillow-heif", "simplejpeg"),
)
def example_pictures(
    run: StepRun,
    *,
    sources: tuple[str, ...],
    shards: tuple[Ref, ...],
    views: tuple[View, ...],
    canonical: Canonical,
    seed: int,
) -> Output:
    """One picture per source, drawn by hash from its first shard, in every view; PNG of at most 256 pixels a side.

    `shards` runs in parallel with `sources`. A source without a picture that has every window has no rows.
    """
    rows = []
    for source, shard in zip(sources, shards, strict=True):
        table = read_table(run.store, shard, columns=["image", "image_id", "width", "height"])
        ids = table["image_id"].to_pylist()
        sizes = list(zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True))
        of_windows = [view for view in views if view.path == "crop"]
        large = [row for row, size in enumerate(sizes) if all(has_window(*size, view) for view in of_windows)]
        if not large:
            continue
        chosen = min(large, key=lambda index: hash_fraction("example", seed, ids[index]))
        data = table["image"][chosen].as_py()["bytes"]
        for view, picture in make_views(data, ids[chosen], views, canonical).items():
            rows.append({"source": source, "view": view.name, "png": _shown(encode_png(picture.pixels))})
    return Output({ROWS: pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA)})


def _shown(png: bytes) -> bytes:
    """Reduce what is larger than the report shows; smaller pictures keep every pixel."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        if max(picture.size) <= LARGEST_SIDE:
            return png
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
        sink = io.BytesIO()
        picture.save(sink, "PNG")
        return sink.getvalue()
