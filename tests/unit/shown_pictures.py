"""A few tested pictures with what two detectors and a probe say of them, as objects of a store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from storage.objects import ROWS, Ref, commit
from storage.store import Store
from storage.tables import IMAGE_SCHEMA, PAIR_SCHEMA, SCORE_SCHEMA, features_table
from tasks.data.encoding import encode_jpeg
from tasks.data.perturbations.jpeg import jpeg
from tasks.explorer.pictures import ShownScores, ShownSource
from tasks.explorer.thumbnails import make_thumbnails
from tasks.explorer.views import ViewedSource, make_shown_views
from tasks.spec.detectors import Fit, Role
from tasks.spec.experiment import Mix
from tasks.spec.views import Canonical, Cell

PLAIN, Q20 = Cell(resolution=64), Cell(resolution=64, perturbation=jpeg(20))
CELLS = (PLAIN, Q20)
FOLDS = 2
MIX = Mix(name="gan", real=("town",), fakes=("gan",))


def put(store: Store, place: str, table: pa.Table) -> Ref:
    """A finished object of one table; its digest is its place."""
    return commit(store, f"objects/{place}", step=place.split("/")[0], digest=place, recipe={}, parts={ROWS: table})


def file_of(number: int, width: int = 200, height: int = 100) -> bytes:
    """A JPEG file of smooth noise."""
    rng = np.random.default_rng(number)
    return encode_jpeg(
        np.kron(rng.integers(0, 256, (height // 10, width // 10, 3), np.uint8), np.ones((10, 10, 1), np.uint8)), 90
    )


def images(store: Store, source: str, count: int, **changes: Any) -> Ref:
    """An image shard of `count` pictures `SOURCE-0`...; two each are one group."""
    rows = [
        {
            "image": {"bytes": file_of(number), "path": f"{source}/{number}.jpg"},
            "image_id": f"{source}-{number}",
            "group_id": f"{source}-group-{number // 2}",
            "source": source,
            "label": 0 if source == "town" else 1,
            "fold": number % FOLDS,
            "prompt": None if source == "town" else f"<b>a town</b> at night, {number}",
            "categories": ["car", "tree"],
            "width": 200,
            "height": 100,
            "format": "JPEG",
            "jpeg_quality": 90,
            "licence": "CC0",
            "sha256": f"{number:064x}",
        }
        | changes
        for number in range(count)
    ]
    return put(store, f"images/{source}", pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA))


def p_fake(detector: str, cell: Cell, source: str, number: int) -> float | None:
    """What a detector says of a picture; one picture it could not score in the compressed cell."""
    if detector == "svm" and cell == Q20 and (source, number) == ("gan", 3):
        return None
    base = 0.2 if source == "town" else 0.8
    turn = {"svm": 0.03, "other": -0.05, "sizes": 0.0}[detector]
    return round(base + turn * number - (0.1 if cell == Q20 else 0.0), 6)


def scores(store: Store, detector: str, cell: Cell, count: int, role: Role = "detector") -> Ref:
    """Scores of all pictures by one rotation each, and of as many val pictures on both sides of a half."""
    rows: list[dict[str, Any]] = []
    for source, label in (("town", 0), ("gan", 1)):
        for number in range(count):
            row = {
                "image_id": f"{source}-{number}",
                "group_id": f"{source}-group-{number // 2}",
                "source": source,
                "label": label,
                "fold": number % FOLDS,
                **Fit(detector=detector, role=role).model_dump(),
                "path": "fair",
                "resolution": "64",
                "perturbation": cell.perturbation_name,
            }
            rows.append(row | {"split": "test", "p_fake": p_fake(detector, cell, source, number)})
            val = {
                "split": "val",
                "image_id": f"val-{source}-{number}",
                "p_fake": 0.4 + 0.2 * label + 0.01 * row["fold"],
            }
            rows.append(row | val)
    filled = [dict.fromkeys(SCORE_SCHEMA.names) | row for row in rows]
    return put(store, f"score/{detector}-{cell.perturbation_name}", pa.Table.from_pylist(filled, schema=SCORE_SCHEMA))


def said(store: Store, count: int) -> tuple[ShownScores, ...]:
    """What two detectors and a probe say in both cells."""
    found = []
    fits: tuple[tuple[str, Role], ...] = (("svm", "detector"), ("other", "detector"), ("sizes", "probe"))
    for name, role in fits:
        made = {cell: scores(store, name, cell, count, role) for cell in CELLS}
        about = {"detector": name, "title": f"a {name}", "role": role, "reference": made[PLAIN]}
        found += [ShownScores.model_validate(about | {"cell": cell, "scores": made[cell]}) for cell in CELLS]
    return tuple(found)


def sources(store: Store, count: int) -> tuple[ShownSource, ...]:
    """Photographs and a generator's pictures, with their thumbnails."""
    found = []
    for label, source in enumerate(("town", "gan")):
        (ref,), _ = _computed(store, make_thumbnails, images=images(store, source, count), source=source, shard=0)
        found.append(ShownSource(name=source, of=source, label=label, thumbnails=(ref,)))
    return tuple(found)


def viewed_sources(store: Store, count: int) -> tuple[ViewedSource, ...]:
    """The same with their image shards."""
    return tuple(
        ViewedSource(
            name=one.name,
            images=(images(store, one.name, count),),
            thumbnails=one.thumbnails,
            canonical=Canonical(side=64, qualities=((90, 1),)),
        )
        for one in sources(store, count)
    )


def views(store: Store, count: int) -> Ref:
    """The views of everybody's mistakes, without a network."""
    arguments = {"said": said(store, count), "sources": viewed_sources(store, count), "cells": CELLS, "path": "fair"}
    ref, _ = _computed(
        store, make_shown_views, experiment="towns", networks=(), trained_in=PLAIN.view("fair"), **arguments
    )
    found: Ref = ref[0]
    return found


def features(store: Store, count: int) -> Ref:
    """Features (N, 3) that differ by class first, then by number."""
    identity = [
        (f"{source}-{number}", source, label) for label, source in enumerate(("town", "gan")) for number in range(count)
    ]
    columns = pa.table(
        {
            "image_id": [one[0] for one in identity],
            "group_id": [one[0] for one in identity],
            "source": [one[1] for one in identity],
            "label": pa.array([one[2] for one in identity], pa.int8()),
            "split": pa.nulls(len(identity), pa.string()),
            "fold": pa.array([0] * len(identity), pa.int16()),
        }
    )
    matrix = np.array([[10 * label, int(one.split("-")[1]), 0] for one, _, label in identity], np.float32)
    return put(store, "embed/all", features_table(columns, matrix))


def pairs(store: Store) -> Ref:
    """One paired test."""
    row = {
        "resolution": "64",
        "perturbation": "none",
        "mix": "gan",
        "detector": "other",
        "than_detector": "svm",
        "than_perturbation": "none",
        "metric": "auroc",
        "difference": -0.1,
        "low": -0.2,
        "high": 0.0,
        "p": 0.04,
    }
    return put(
        store,
        "compare-detectors/64",
        pa.Table.from_pylist([dict.fromkeys(PAIR_SCHEMA.names) | row], schema=PAIR_SCHEMA),
    )


def _computed(store: Store, step: Any, **arguments: Any) -> Any:
    refs, cached = step.compute(store, **arguments)
    return ((refs,) if isinstance(refs, Ref) else refs), cached
