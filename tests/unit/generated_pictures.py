"""Photographs with captions, and what the shipped tiny model is asked to make of them."""

from typing import Any

import numpy as np
import pyarrow as pa

from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, read_table
from storage.tables import IMAGE_SCHEMA
from tasks.data.pictures import decode_rgb
from tasks.generators.shards import keyed_diffusion
from tasks.spec.generators import DiffusionSpec

TINY = DiffusionSpec(model="tiny", steps=2, side=64, batch=2)


def photographs(store: LocalStore, rows: list[dict[str, Any]]) -> Ref:
    parts = {ROWS: pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)}
    return commit(store, "objects/shard/p", step="shard", digest="0123456789abcdef", recipe={}, parts=parts)


def photograph(number: int, **known: Any) -> dict[str, Any]:
    return {"image_id": f"coco:{number}", "group_id": f"coco:{number}", "source": "coco", "split": "val"} | known


def diffusion_arguments(images: Ref, limit: int | None = None, **changed: Any) -> dict[str, Any]:
    spec = TINY.model_copy(update=changed)
    return {
        "images": images,
        "source": "sd",
        "model": spec.model,
        "diffusion": keyed_diffusion(spec),
        "limit": limit,
        "device": "cpu",
    }


def rows_of(store: LocalStore, ref: Ref) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(store, ref).to_pylist()
    return rows


def assert_same_pictures(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Equal rows, whose pictures are equal within one level."""
    encoded = ("image", "sha256", "phash")
    for row, other in zip(rows, expected, strict=True):
        assert {k: v for k, v in row.items() if k not in encoded} == {
            k: v for k, v in other.items() if k not in encoded
        }
        difference = decode_rgb(row["image"]["bytes"]).astype(int) - decode_rgb(other["image"]["bytes"])
        assert np.abs(difference).max() <= 1
