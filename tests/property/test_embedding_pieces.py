"""Whenever an embedding breaks off, and whoever works beside it: the same batches, so the same features."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.local import LocalStore
from storage.tables import IMAGE_SCHEMA
from tasks.data.encoding import encode_png
from tasks.features.base import Extractor
from tasks.features.shards import ViewFeatures, embed_images
from tasks.pieces import PERIOD_S, Pieces
from tasks.spec.views import Canonical, View

CANONICAL = Canonical(side=16, qualities=((90, 1),))
VIEWS = (
    View(path="fair", resolution="native"),
    View(path="raw", resolution=16),
    View(path="raw", resolution="native"),
)
SIDES = {"usable": 24, "small": 12, "broken": 24}


class Killed(Exception):
    """What ends a worker."""


@cache
def file(kind: str, number: int) -> bytes:
    side = SIDES[kind]
    png = encode_png(np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8))
    return png[:40] if kind == "broken" else png


def table(kinds: Sequence[str]) -> pa.Table:
    known: dict[str, list[Any]] = {
        "image": [{"bytes": file(kind, number), "path": None} for number, kind in enumerate(kinds)],
        "image_id": [f"{number}" for number in range(len(kinds))],
        "width": [SIDES[kind] for kind in kinds],
        "height": [SIDES[kind] for kind in kinds],
    }
    columns = [pa.array(known.get(field.name, [None] * len(kinds)), field.type) for field in IMAGE_SCHEMA]
    return pa.table(columns, schema=IMAGE_SCHEMA)


def extractor(batch: int, before: Callable[[], None] = lambda: None) -> Extractor:
    """Features of a picture that depend on its whole batch."""

    def computed(items: Sequence[np.ndarray]) -> np.ndarray:
        before()
        stacked = np.stack(items)
        return np.concatenate([stacked, stacked.cumsum(axis=0)], axis=1)

    return Extractor(lambda data, view, picture: picture.pixels[0, :2].ravel().astype("f4"), computed, batch, 12)


Known = dict[View, tuple[list[int], bytes, tuple[int, int, int]]]


def described(images: pa.Table, views: Sequence[View], enlarge: bool, begun: dict[View, ViewFeatures]) -> Known:
    made = embed_images(images, views, begun[views[0]].extractor, CANONICAL, enlarge=enlarge, begun=begun)
    return {
        view: (of.rows, of.matrix().tobytes(), (of.left_out, of.enlarged, of.undecodable)) for view, of in made.items()
    }


attempts = st.lists(
    st.tuples(
        st.lists(st.sampled_from(VIEWS), min_size=1, unique=True),
        st.integers(0, 12),  # batches until it ends
        st.lists(st.sampled_from([0.0, PERIOD_S / 2, PERIOD_S]), min_size=1, max_size=5),  # between looks at the clock
    ),
    max_size=5,
)


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from(["usable", "usable", "usable", "small", "broken"]), max_size=14),
    st.integers(1, 5),
    st.booleans(),
    attempts,
    st.booleans(),
    st.none() | st.integers(0, 10),
)
def test_batches_are_the_same_however_often_and_wherever_an_embedding_broke_off(
    kinds: list[str],
    batch: int,
    enlarge: bool,
    breaks: list[tuple[list[View], int, list[float]]],
    nested: bool,
    damaged: int | None,
) -> None:
    images = table(kinds)
    whole = {view: ViewFeatures(extractor(batch)) for view in VIEWS}
    expected = described(images, VIEWS, enlarge, whole)

    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))

        def attempt(numbered: list[tuple[list[View], int, list[float]]]) -> None:
            """The first of these attempts; with `nested` each other one runs within a batch of the one before it."""
            (views, last, steps), *others = numbered
            clock = itertools.accumulate(itertools.cycle(steps))
            counted = itertools.count()

            def before() -> None:
                number = next(counted)
                if nested and others and number == last // 2:
                    attempt(others)
                if number == last:
                    raise Killed

            begun = {
                view: ViewFeatures(extractor(batch, before), Pieces(store, str(VIEWS.index(view)), lambda: next(clock)))
                for view in views
            }
            try:
                for known in begun.values():
                    known.resume()
                assert described(images, views, enlarge, begun) == {view: expected[view] for view in views}
            except Killed:
                pass

        for number in range(len(breaks)):
            if not nested:
                attempt(breaks[number : number + 1])
        if nested and breaks:
            attempt(breaks)
        keys = [key for view in range(len(VIEWS)) for key in store.list(str(view))]
        if damaged is not None and damaged < len(keys):
            store.write(keys[damaged], store.read(keys[damaged])[:-1])
        attempt([(list(VIEWS), -1, [PERIOD_S])])
        resumed = {view: ViewFeatures(extractor(batch), Pieces(store, str(VIEWS.index(view)))) for view in VIEWS}
        for known in resumed.values():
            known.resume()
            assert len(known.rows) % batch == 0
        assert described(images, VIEWS, enlarge, resumed) == expected
