"""Image shards of a few small files, and the step that describes them."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from PIL import Image

from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit
from storage.tables import IMAGE_SCHEMA
from tasks.data.encoding import encode_jpeg
from tasks.data.perturbations.jpeg import Jpeg
from tasks.features.shards import embed_shard
from tasks.features.vgg16 import Vgg16Spec
from tasks.spec.views import Canonical, View

CANONICAL = Canonical(side=48, qualities=((75, 1), (90, 2)))
FAIR, FAIR_Q20 = View(path="fair", resolution=32), View(path="fair", resolution=32, perturbation=Jpeg(quality=20))
RAW, RAW_NATIVE = View(path="raw", resolution=32), View(path="raw", resolution="native")
VIEWS = (FAIR, FAIR_Q20, RAW, RAW_NATIVE)
VGG16 = Vgg16Spec(layer="pool5-avg", side=32, weights="random:0", batch=2)


def jpeg(side: int, seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return encode_jpeg(np.array(Image.fromarray(coarse).resize((side + 16, side))), 90)


def png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def image_table(files: list[tuple[bytes, int, int]]) -> pa.Table:
    """A shard of files with their declared width and height."""
    count = len(files)
    known = {
        "image": [{"bytes": data, "path": None} for data, _, _ in files],
        "image_id": [f"image-{index}" for index in range(count)],
        "group_id": [f"group-{index}" for index in range(count)],
        "source": ["coco"] * count,
        "label": [0] * count,
        "split": ["train"] * count,
        "width": [width for _, width, _ in files],
        "height": [height for _, _, height in files],
    }
    columns = [pa.array(known.get(field.name, [None] * count), field.type) for field in IMAGE_SCHEMA]
    return pa.table(columns, schema=IMAGE_SCHEMA)


def seven_pictures() -> pa.Table:
    """Five usable pictures of 64 pixels, one of 40 and one that breaks off."""
    usable = [(jpeg(64, seed), 80, 64) for seed in range(5)]
    return image_table([*usable[:2], (png(40), 40, 40), (jpeg(64)[:200], 80, 64), *usable[2:]])


def shard(store: LocalStore, table: pa.Table) -> Ref:
    return commit(store, "images/coco", step="shard", digest="0" * 64, recipe={}, parts={ROWS: table})


def embed(store: LocalStore, images: Ref, views: tuple[View, ...] = VIEWS, **changes: object) -> tuple[Ref, ...]:
    arguments: dict[str, object] = {
        "images": images,
        "views": views,
        "extractor": VGG16,
        "weights": None,
        "canonical": CANONICAL,
        "enlarge": False,
        "source": "coco",
        "shard": 3,
        "device": "cpu",
        "rows": "all",
    }
    refs: tuple[Ref, ...] = embed_shard.compute(store, **(arguments | changes))[0]
    return refs
