"""A closer look: which mistakes are chosen, that views are those that detectors were shown, and networks' maps."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image

from storage.local import LocalStore
from storage.objects import Ref, commit, manifest_of, read_table
from storage.tables import SCORE_SCHEMA
from tasks.data.canonical import canonical_pictures, picture_rows
from tasks.data.encoding import encode_webp
from tasks.data.pictures import decode_rgb
from tasks.data.views import shown_picture
from tasks.explorer import views as shown_views
from tasks.explorer.activation import AGAINST, FOR, STRONGEST, evidence, shaded
from tasks.explorer.mistakes import Mistaken, surest_mistakes
from tasks.explorer.pictures import ShownScores
from tasks.explorer.views import VIEW_SCHEMA, ViewedNetwork, ViewedSource, make_shown_views
from tasks.networks.exported import CARD, MODEL, Detection, ExportedNetwork
from tasks.spec.detectors import Role
from tasks.spec.views import Canonical, Cell
from tests.unit import shown_pictures as shown
from tests.unit.published_networks import card_of, tiny_model
from tests.unit.shown_pictures import CELLS, PLAIN, Q20

CANONICAL = Canonical(side=64, qualities=((90, 1),))
TRAINED_IN = PLAIN.view("fair")
NETWORK = ViewedNetwork(detector="other", models=())


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def said(
    store: LocalStore, detector: str, p: dict[tuple[str, int], float], cell: Cell = PLAIN, role: Role = "detector"
) -> ShownScores:
    """What a detector says of photographs of a town and of generated pictures; every fold's threshold is a half."""
    rows = [
        {"image_id": f"{source}-{number}", "fold": number % 2, "split": "test", "p_fake": value, "source": source}
        for (source, number), value in p.items()
    ]
    rows += [
        {"image_id": f"val-{name}-{fold}", "fold": fold, "split": "val", "p_fake": value, "source": name}
        for fold in (0, 1)
        for name, value in (("town", 0.5 - 1e-9), ("gan", 0.5))
    ]
    filled = [dict.fromkeys(SCORE_SCHEMA.names) | row | {"label": int(row["source"] == "gan")} for row in rows]
    table = pa.Table.from_pylist(filled, schema=SCORE_SCHEMA)
    ref = shown.put(store, f"score/{detector}-{cell.perturbation_name}", table)
    return ShownScores(detector=detector, title=detector, role=role, cell=cell, scores=ref, reference=ref)


def names(found: tuple[Mistaken, ...]) -> list[str]:
    return [one.image_id for one in found]


def test_the_surest_mistakes_of_every_detector_come_before_the_second_ones_of_any(store: LocalStore) -> None:
    first = said(store, "first", {("town", 0): 0.9, ("town", 1): 0.7, ("town", 2): 0.1, ("gan", 0): 0.4})
    second = said(store, "second", {("town", 2): 0.6, ("gan", 0): 0.8, ("gan", 1): 0.1, ("gan", 2): 0.2})
    found = surest_mistakes(store, (first, second), 100)
    assert names(found) == ["town-0", "gan-0", "town-2", "gan-1", "town-1", "gan-2"]
    assert names(surest_mistakes(store, (first, second), 3)) == ["town-0", "gan-0", "town-2"]


def test_a_picture_is_chosen_once_with_all_who_are_sure_of_it_and_its_rotation(store: LocalStore) -> None:
    both = {("town", 1): 0.9}
    found = surest_mistakes(store, (said(store, "a", both), said(store, "a", both, Q20), said(store, "b", both)), 1)
    assert found == (Mistaken("town", "town-1", 1, ("a", "b")),)


def test_probes_and_right_answers_are_no_mistakes_and_neither_is_what_has_no_score(store: LocalStore) -> None:
    right = said(store, "right", {("town", 0): 0.49, ("gan", 0): 0.5, ("gan", 1): float("nan")})
    probe = said(store, "probe", {("town", 0): 0.9}, role="probe")
    assert surest_mistakes(store, (right, probe), 100) == ()


def sources_of(store: LocalStore, count: int) -> tuple[ViewedSource, ...]:
    return shown.viewed_sources(store, count)


def rows_of(store: LocalStore, scores: tuple[ShownScores, ...], **changes: Any) -> tuple[list[dict[str, Any]], Ref]:
    arguments: dict[str, Any] = {
        "experiment": "towns",
        "said": scores,
        "sources": sources_of(store, 4),
        "cells": CELLS,
        "path": "fair",
        "networks": (),
        "trained_in": TRAINED_IN,
    }
    ref, _ = make_shown_views.compute(store, **(arguments | changes))
    assert isinstance(ref, Ref)
    table = read_table(store, ref)
    assert table.schema.equals(VIEW_SCHEMA)
    return table.to_pylist(), ref


def pixels_of(webp: bytes) -> npt.NDArray[np.float64]:
    with Image.open(io.BytesIO(webp)) as picture:
        assert picture.format == "WEBP"
        return np.asarray(picture.convert("RGB"), dtype=np.float64)


def test_views_are_the_pictures_that_detectors_were_shown_in_every_cell(store: LocalStore) -> None:
    rows, ref = rows_of(store, (said(store, "svm", {("town", 3): 0.9, ("gan", 1): 0.2}),))
    assert [(row["source"], row["image_id"], row["cell"], row["detector"]) for row in rows] == [
        ("town", "town-3", "64/none", None),
        ("town", "town-3", "64/q20", None),
        ("gan", "gan-1", "64/none", None),
        ("gan", "gan-1", "64/q20", None),
    ]
    images = sources_of(store, 4)[1].images[0]
    made, _ = canonical_pictures.compute(
        store, images=images, canonical=CANONICAL, enlarge=False, source="gan", shard=0
    )
    canonical = next(row for row in picture_rows(store, made) if row["image_id"] == "gan-1")
    for row, cell in zip(rows[2:], CELLS, strict=True):
        seen = shown_picture(decode_rgb(canonical["canonical"]), canonical, cell.view("fair")).pixels
        assert row["picture"] == encode_webp(seen, 80)
    plain, compressed = (pixels_of(row["picture"]) for row in rows[2:])
    assert np.abs(plain - compressed).mean() > 1
    assert manifest_of(store, ref).notes == {"pictures": 2, "maps": 0}


def test_no_more_pictures_and_maps_are_made_than_is_stated(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_views, "MOST_PICTURES", 3)
    monkeypatch.setattr(shown_views, "MOST_MAPS", 1)
    wrong = said(store, "other", {("town", number): 0.9 for number in range(4)})
    network = NETWORK.model_copy(update={"models": (model(store),) * 2})
    rows, ref = rows_of(store, (wrong,), networks=(network,))
    assert len({row["image_id"] for row in rows}) == 3
    assert manifest_of(store, ref).notes == {"pictures": 3, "maps": 1}


def test_a_picture_without_a_window_has_no_view_there(store: LocalStore) -> None:
    larger = Cell(resolution=128)
    scores = (said(store, "svm", {("town", 0): 0.9}),)
    rows, _ = rows_of(store, scores, path="crop", cells=(PLAIN, larger))
    assert [row["cell"] for row in rows] == ["64/none"]


def model(store: LocalStore) -> Ref:
    data = tiny_model()
    parts = {MODEL: data, CARD: json.dumps(card_of(data)).encode()}
    return commit(store, "objects/export/m", step="export", digest="m", recipe={}, parts=parts)


def test_a_network_has_maps_of_its_own_surest_mistakes_alone_in_the_view_of_its_training(store: LocalStore) -> None:
    exported = model(store)
    network = NETWORK.model_copy(update={"models": (exported, exported)})
    scores = (said(store, "svm", {("town", 0): 0.9}), said(store, "other", {("gan", 1): 0.1}))
    rows, ref = rows_of(store, scores, networks=(network,))
    assert [(row["image_id"], row["detector"]) for row in rows if row["cell"] is None] == [("gan-1", "other")]
    assert manifest_of(store, ref).notes == {"pictures": 2, "maps": 1}
    plain = next(row for row in rows if row["image_id"] == "gan-1" and row["cell"] == "64/none")
    shown_to_it = pixels_of(plain["picture"]).astype(np.uint8)
    places = evidence(ExportedNetwork.load(store, exported).detect(shown_to_it))
    assert np.abs(pixels_of(rows[-1]["picture"]) - shaded(shown_to_it, places)).mean() < 12


def detection(activation: list[list[list[float]]], logits: list[float]) -> Detection:
    nothing = np.zeros(3, np.float32)
    return Detection(np.array(logits, np.float32), nothing, nothing, np.array(activation, np.float32))


def test_evidence_is_for_the_likeliest_generator_against_a_photograph() -> None:
    activation = [[[1.0, 0.0]], [[9.0, 9.0]], [[0.0, 4.0]]]
    assert evidence(detection(activation, [0.5, 1.0, 2.0])).tolist() == [[-0.25, 1.0]]
    assert evidence(detection([[[1.0]], [[1.0]]], [0.0, 0.0])).tolist() == [[0.0]]


def test_places_that_say_nothing_keep_the_picture_and_sure_ones_are_coloured() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert np.array_equal(shaded(grey, np.zeros((2, 2))), grey)
    for value, colour in ((1.0, FOR), (-1.0, AGAINST)):
        mixed = np.rint((1 - STRONGEST) * 100 + STRONGEST * np.array(colour, dtype=np.float64))
        assert np.array_equal(shaded(grey, np.full((2, 2), value)), np.broadcast_to(mixed, (8, 8, 3)))
