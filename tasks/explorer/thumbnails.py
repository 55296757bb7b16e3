"""Small pictures of what is tested, and what is known of each: what a person looks at."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import BadImage
from storage.objects import ROWS, Ref, read_table
from storage.tables import IMAGE_SCHEMA
from tasks.data.encoding import encode_webp
from tasks.data.pictures import Pixels, decode_rgb
from tasks.data.resizing import resized, sides_within
from tasks.recipe import Output, StepRun, step

LONGEST_SIDE = 128  # of a thumbnail, pixels
_QUALITY = 70  # libwebp's; three kilobytes each

# What is told of a picture beside its scores. `file` is its name, `bytes` the size of its file.
FACT_COLUMNS = ("width", "height", "format", "jpeg_quality", "prompt", "caption", "categories", "licence", "sha256")
THUMBNAIL_SCHEMA = pa.schema(
    [
        *(IMAGE_SCHEMA.field(name) for name in ("image_id", "group_id", "label")),
        ("file", pa.string()),
        ("bytes", pa.int64()),
        *(IMAGE_SCHEMA.field(name) for name in FACT_COLUMNS),
        ("thumbnail", pa.binary()),  # a WebP file; null where the picture cannot be decoded
    ]
)


@step(
    "thumbnails",
    version=1,
    label=lambda *, source, shard, **_: f"{source}-{shard:05d}",
    unkeyed=("source", "shard"),
    libraries=("pillow", "pillow-heif", "simplejpeg"),
)
def make_thumbnails(run: StepRun, *, images: Ref, source: str, shard: int) -> Output:
    """A thumbnail and the facts of every picture of an image shard that may be tested: `THUMBNAIL_SCHEMA`."""
    wanted = [name for name in THUMBNAIL_SCHEMA.names if name in IMAGE_SCHEMA.names]
    table = read_table(run.store, images, columns=["image", "split", *wanted])
    # With rotating folds every picture is tested once, and has no split.
    table = table.filter(pc.fill_null(pc.equal(table["split"], "test"), True))
    progress = run.progress(table.num_rows)
    files = pc.struct_field(table["image"], "bytes")
    thumbnails: list[bytes | None] = []
    for file in files:
        thumbnails.append(thumbnail_or_none(file.as_py()))
        progress.advance()
    columns = {name: table[name] for name in wanted} | {
        "file": pc.struct_field(table["image"], "path"),
        "bytes": pc.binary_length(files).cast(pa.int64()),
        "thumbnail": pa.array(thumbnails, pa.binary()),
    }
    rows = pa.table({name: columns[name] for name in THUMBNAIL_SCHEMA.names}, schema=THUMBNAIL_SCHEMA)
    return Output({ROWS: rows}, {"undecodable": thumbnails.count(None)})


def thumbnail_or_none(data: bytes) -> bytes | None:
    """A picture's thumbnail as a WebP file; None where it cannot be decoded."""
    try:
        return encode_webp(thumbnail(decode_rgb(data, at_least=LONGEST_SIDE)), _QUALITY)
    except BadImage:
        return None


def thumbnail(rgb: Pixels) -> Pixels:
    """A picture reduced so that no side is longer than `LONGEST_SIDE`; a smaller one keeps every pixel."""
    height, width = sides_within(rgb.shape[0], rgb.shape[1], LONGEST_SIDE)
    return resized(rgb, height, width)
