"""Small pictures of three kinds that a network can learn in seconds, as image shards and as what it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit
from storage.tables import IMAGE_SCHEMA
from tasks.data.canonical import canonical_pictures
from tasks.data.encoding import encode_jpeg
from tasks.data.perturbations.jpeg import jpeg
from tasks.data.pictures import Pixels
from tasks.data.views import fair_canonical_jpeg
from tasks.networks.fitting import Data
from tasks.networks.mobilenet import Setting
from tasks.networks.training_pictures import Pictures
from tasks.spec.splits import FixedSplits
from tasks.spec.views import Canonical, View

CLASSES = ("real", "gan", "stable")
CANONICAL = Canonical(side=48, qualities=((80, 1), (90, 1)))
VIEWS = (
    View(path="fair", resolution="native"),
    View(path="fair", resolution=32),
    View(path="fair", resolution=32, perturbation=jpeg(20)),
)
SETTING = Setting(
    classes=CLASSES,
    rotation=0,
    splits=FixedSplits(),
    views=VIEWS,
    device="cpu",
    seed=0,
)
_TINTS = {"coco": (0, 40, 0), "flickr": (0, 40, 0), "gan": (60, 0, 0), "stable": (0, 0, 60)}


def picture(source: str, seed: int, side: int = 56) -> Pixels:
    """uint8 (side, side + 8, 3): a random pattern with the source's tint."""
    coarse = np.random.default_rng(seed).integers(60, 190, (7, 8, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(coarse).resize((side + 8, side), Image.Resampling.BICUBIC))
    return (smooth.astype(int) + _TINTS[source]).clip(0, 255).astype(np.uint8)


def row(source: str, number: int, place: str | int | None, side: int = 56) -> dict[str, Any]:
    """A row of an image shard; `place` is its split or its fold."""
    return {
        "image": {"bytes": encode_jpeg(picture(source, number, side), 90), "path": None},
        "image_id": f"{number:03d}",
        "group_id": f"group-{number}",
        "source": source,
        "label": int(source in CLASSES),
        "split": place if isinstance(place, str) else None,
        "fold": place if isinstance(place, int) else None,
        "width": side + 8,
        "height": side,
    }


def shard(store: LocalStore, rows: Sequence[dict[str, Any]], name: str, enlarge: bool = False) -> Ref:
    """The canonical pictures of an image shard with these rows."""
    parts = {ROWS: pa.Table.from_pylist(list(rows), schema=IMAGE_SCHEMA)}
    images = commit(store, f"objects/shard/{name}", step="shard", digest=name, recipe={}, parts=parts)
    made: Ref
    made, _ = canonical_pictures.compute(
        store, images=images, canonical=CANONICAL, enlarge=enlarge, source=name, shard=0
    )
    return made


def shards(store: LocalStore, train: int = 6, val: int = 4, test: int = 1) -> tuple[Ref, ...]:
    """One shard per source of `CLASSES`, with so many pictures per split."""
    places = ["train"] * train + ["val"] * val + ["test"] * test
    return tuple(
        shard(store, [row(source, number, place) for number, place in enumerate(places)], source)
        for source in ("coco", "gan", "stable")
    )


def pictures(counts: Sequence[int], first: int = 0) -> Pictures:
    """So many pictures of each of `CLASSES`, without a store."""
    chosen = [
        (source, number, kind)
        for kind, (source, count) in enumerate(zip(("coco", "gan", "stable"), counts, strict=True))
        for number in range(first, first + count)
    ]
    return Pictures(
        ids=tuple(f"{number:03d}" for _, number, _ in chosen),
        sources=tuple(source for source, _, _ in chosen),
        groups=tuple(f"group-{number}" for _, number, _ in chosen),
        classes=np.array([kind for _, _, kind in chosen], dtype=np.int64),
        canonical=tuple(
            fair_canonical_jpeg(picture(source, number), str(number), CANONICAL) for source, number, _ in chosen
        ),
    )


def data(train: Sequence[int] = (6, 5, 4), val: Sequence[int] = (4, 3, 3), views: Sequence[View] = VIEWS[:1]) -> Data:
    return Data(pictures(train), pictures(val, first=100), tuple(views), side=32)
