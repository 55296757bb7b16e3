"""What a published network counts in pictures as they are delivered, once per shard and delivery."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from storage.objects import ROWS, Ref
from storage.tables import FEATURE_COLUMNS, IMAGE_SCHEMA, features_table
from tasks.data.canonical import picture_rows
from tasks.data.deliveries import delivered
from tasks.data.pictures import decode_rgb
from tasks.data.views import window_place
from tasks.features.cooccurrence import MIN_SIDE, cooccurrences
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Name, Spec
from tasks.spec.published import Delivery

# The part with those pictures that are too small for a window after their delivery.
TOO_SMALL = "too-small.parquet"


class DeliveredPictures(Spec):
    """The windows of a source's shard after a delivery, and what the pictures are.

    `photographs` is the source of photographs, whatever history they have here; None of generated pictures.
    `generator` made them, or is whose history the photographs have; None of photographs as they came.
    """

    delivery: Name
    photographs: Name | None
    generator: Name | None
    windows: Ref


@step(
    "deliver",
    version=1,
    label=lambda *, source, delivery, shard, **_: f"{source}-{delivery.name}-{shard:05d}",
    unkeyed=("source", "shard"),
    libraries=("numpy", "pillow", "pillow-heif", "simplejpeg"),
)
def delivered_windows(
    run: StepRun, *, pictures: Ref, delivery: Delivery, side: int, windows: int, source: str, shard: int
) -> Output:
    """Sparse co-occurrences of so many windows of each picture of a `cropped` shard after a delivery: features.

    Windows of a picture are rows of the same name. Where they lie is drawn by hash of its id, anew for each delivery's
    size. Pictures that are smaller than a window are in the part `TOO_SMALL`.
    """
    progress = run.progress(pictures.rows)
    names: list[dict[str, object]] = []
    small: list[dict[str, object]] = []
    found: list[np.ndarray] = []
    for row in picture_rows(run.store, pictures):
        progress.advance()
        identity = {name: row[name] for name in FEATURE_COLUMNS}
        pixels = delivered(decode_rgb(row["canonical"]), row["image_id"], delivery)
        height, width = pixels.shape[:2]
        if min(height, width) < side:
            small.append(identity)
            continue
        for index in range(windows):
            top, left = window_place(row["image_id"], index, height, width, side)
            names.append(identity)
            found.append(cooccurrences(pixels[top : top + side, left : left + side], is_sparse=True))
    schema = pa.schema([IMAGE_SCHEMA.field(name) for name in FEATURE_COLUMNS])
    dimension = len(cooccurrences(np.zeros((MIN_SIDE, MIN_SIDE, 3), np.uint8)))
    embedding = np.stack(found) if found else np.zeros((0, dimension), np.float32)
    parts = {
        ROWS: features_table(pa.Table.from_pylist(names, schema=schema), embedding),
        TOO_SMALL: pa.Table.from_pylist(small, schema=schema),
    }
    return Output(parts, {"pictures": pictures.rows, "too_small": len(small)})
