"""Scores of exported networks, canonical pictures, and the card that says how often a network is wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from storage.errors import WrongAnswers
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, manifest_of, notes_of, read_part, read_table
from storage.tables import FAMILIARITY, FAMILIARITY_SCHEMA, IMAGE_SCHEMA, SCORE_SCHEMA
from tasks import pieces
from tasks.data.canonical import canonical_pictures
from tasks.data.perturbations.jpeg import jpeg
from tasks.data.pictures import decode_rgb
from tasks.data.views import make_views
from tasks.evaluation.cards import ScoredCell, complete_card, error_rates, fake_thresholds
from tasks.evaluation.classification import balanced_accuracy_threshold
from tasks.networks.answer import CellErrors
from tasks.networks.exported import CARD, MODEL, ExportedNetwork
from tasks.networks.scoring import gather_scores, score_network
from tasks.spec.detectors import Fit, Rejection
from tasks.spec.splits import FixedSplits, Folds
from tasks.spec.views import Cell
from tests.unit.network_pictures import CANONICAL, VIEWS, row, shard
from tests.unit.published_networks import card_of, tiny_model
from tests.unit.toy_perturbation import Flip

MODEL_BYTES = tiny_model()
FIT = Fit(detector="dense")
CELLS = (Cell(resolution="native"), Cell(resolution=32), Cell(resolution=32, perturbation=jpeg(20)))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def model(store: LocalStore, name: str = "m", **changes: Any) -> Ref:
    parts = {MODEL: MODEL_BYTES, CARD: json.dumps(card_of(MODEL_BYTES) | changes).encode()}
    return commit(store, f"objects/export/{name}", step="export", digest=name, recipe={}, parts=parts)


def arguments(store: LocalStore, rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return {
        "fit": FIT,
        "models": (model(store),),
        "pictures": shard(store, rows, "mixed"),
        "views": VIEWS,
        "val_views": VIEWS[:2],
        "splits": FixedSplits(),
        "unseen": False,
        "source": "coco",
        "shard": 0,
        **changes,
    }


def test_canonical_pictures_are_the_start_of_every_fair_view(store: LocalStore) -> None:
    rows = [row("coco", 0, "val"), row("coco", 1, "val", side=40)]
    broken = row("gan", 9, "val") | {"image": {"bytes": b"\xff\xd8\xff broken", "path": None}}
    parts = {ROWS: pa.Table.from_pylist([*rows, broken], schema=IMAGE_SCHEMA)}
    images = commit(store, "objects/shard/x", step="shard", digest="x", recipe={}, parts=parts)
    ref, _ = canonical_pictures.compute(store, images=images, canonical=CANONICAL, enlarge=False, source="x", shard=0)
    (made,) = read_table(store, ref).to_pylist()
    native = make_views(rows[0]["image"]["bytes"], "000", VIEWS[:1], CANONICAL)[VIEWS[0]]
    assert np.array_equal(decode_rgb(made["canonical"]), native.pixels)
    assert {name: notes_of(store, ref)[name] for name in ("left_out", "undecodable")} == {
        "left_out": 1,
        "undecodable": 1,
    }


def test_scores_are_what_the_exported_file_answers(store: LocalStore) -> None:
    rows = [row("coco", 0, "val"), row("gan", 1, "test"), row("stable", 2, "train")]
    refs, _ = score_network.compute(store, **arguments(store, rows))
    network = ExportedNetwork(MODEL_BYTES)
    for view, ref in zip(VIEWS, refs, strict=True):
        scores, familiarity = read_table(store, ref), read_table(store, ref, name=FAMILIARITY)
        assert scores.schema.equals(SCORE_SCHEMA)
        assert familiarity.schema.equals(FAMILIARITY_SCHEMA)
        # Nobody reads val pictures of a view that gives no threshold, and train pictures of none.
        expected = [("000", "val"), ("001", "test")] if view in VIEWS[:2] else [("001", "test")]
        found = sorted(zip(scores["image_id"].to_pylist(), scores["split"].to_pylist(), strict=True))
        assert found == expected
        (tested,) = (one for one in scores.to_pylist() if one["split"] == "test")
        pixels = make_views(rows[1]["image"]["bytes"], "001", [view], CANONICAL)[view].pixels
        answer = network.detect(pixels)
        assert tested["class_probabilities"] == pytest.approx(answer.probabilities.tolist(), abs=1e-7)
        assert tested["p_fake"] == pytest.approx(1 - answer.probabilities[0], abs=1e-7)
        logits = answer.logits.astype(float)
        assert tested["decision"] == pytest.approx(np.log(np.exp(logits[1:]).sum()) - logits[0], abs=1e-5)
        assert familiarity["max_probability"].to_pylist()[-1] <= 1


def test_a_network_that_this_machine_computes_otherwise_scores_nothing(store: LocalStore) -> None:
    said = card_of(MODEL_BYTES)["self_test"]
    wrong = model(store, "wrong", self_test=said | {"probabilities": said["probabilities"][::-1]})
    with pytest.raises(WrongAnswers, match="probabilities of the self-test"):
        score_network.compute(store, **arguments(store, [row("coco", 0, "val")], models=(wrong,)))
    assert not list(store.list("objects/score"))


def test_with_folds_each_rotation_scores_its_own_val_and_test_pictures(store: LocalStore) -> None:
    rows = [row("coco", fold, fold) for fold in range(3)]
    models = tuple(model(store, f"m{index}") for index in range(3))
    refs, _ = score_network.compute(store, **arguments(store, rows, models=models, splits=Folds(count=3)))
    found = {(one["image_id"], one["split"], one["fold"]) for one in read_table(store, refs[0]).to_pylist()}
    assert found == {
        *(("000", "test", 0), ("001", "test", 1), ("002", "test", 2)),
        *(("000", "val", 2), ("001", "val", 0), ("002", "val", 1)),
    }


def test_every_picture_of_an_unseen_source_is_tested_once(store: LocalStore) -> None:
    rows = [row("gan", number, "train") for number in range(9)]
    models = tuple(model(store, f"m{index}") for index in range(3))
    changes = {"models": models, "splits": Folds(count=3), "unseen": True}
    refs, _ = score_network.compute(store, **arguments(store, rows, **changes))
    scores = read_table(store, refs[0])
    assert sorted(scores["image_id"].to_pylist()) == [f"{number:03d}" for number in range(9)]
    assert set(scores["split"].to_pylist()) == {"test"}
    assert len(set(scores["fold"].to_pylist())) > 1


@pytest.mark.parametrize("breaks", [(1,), (4,), (9, 3)])
def test_scoring_that_breaks_off_asks_no_network_twice(
    tmp_path: Path, breaks: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ("val", "test", "test", "train")
    rows = [row(source, number, place) for source in ("coco", "gan") for number, place in enumerate(places)]
    whole, broken = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "broken")

    def contents(of: LocalStore, refs: Any) -> list[str]:
        return [manifest_of(of, ref).content for ref in refs]

    expected = contents(whole, score_network.compute(whole, **arguments(whole, rows))[0])
    assert not whole.list("checkpoints")
    monkeypatch.setattr(pieces, "PERIOD_S", 0.0)
    monkeypatch.setattr(ExportedNetwork, "_answer_self_test", lambda *_: None)
    detect, last = ExportedNetwork.detect, -1
    asked: list[int] = []

    def counting(network: ExportedNetwork, pixels: Any) -> Any:
        if len(asked) == last:
            raise KeyboardInterrupt
        asked.append(1)
        return detect(network, pixels)

    monkeypatch.setattr(ExportedNetwork, "detect", counting)
    wanted = arguments(broken, rows)
    for more in breaks:
        last = len(asked) + more
        with pytest.raises(KeyboardInterrupt):
            score_network.compute(broken, **wanted)
    last = -1
    some, _ = score_network.compute(broken, **{**wanted, "views": VIEWS[1:]})
    assert contents(broken, some) == expected[1:]
    found, _ = score_network.compute(broken, **wanted)
    assert contents(broken, found) == expected
    assert len(asked) == sum(ref.rows for ref in found)
    assert not broken.list("checkpoints")


def test_gathered_scores_do_not_depend_on_the_order_of_shards(store: LocalStore) -> None:
    one = score_network.compute(store, **arguments(store, [row("coco", 1, "test")]))[0][0]
    pictures = shard(store, [row("gan", 0, "test")], "other")
    two = score_network.compute(store, **arguments(store, [], pictures=pictures))[0][0]
    made = [gather_scores.compute(store, fit=FIT, view=VIEWS[0], scores=s)[0] for s in ((one, two), (two, one))]
    assert read_part(store, made[0], ROWS) == read_part(store, made[1], ROWS)
    assert read_table(store, made[0])["image_id"].to_pylist() == ["000", "001"]
    assert read_table(store, made[0], name=FAMILIARITY)["image_id"].to_pylist() == ["000", "001"]


def scores_frame(p_fake: list[float], label: list[int], split: str, first: int = 0) -> pl.DataFrame:
    count = len(p_fake)
    return pl.DataFrame(
        {
            "image_id": [f"{first + n}" for n in range(count)],
            "group_id": [f"g{first + n}" for n in range(count)],
            "source": ["gan" if one else "coco" for one in label],
            "label": pl.Series(label, dtype=pl.Int8),
            "split": [split] * count,
            "fold": pl.Series([0] * count, dtype=pl.Int16),
            "p_fake": p_fake,
        }
    )


def test_error_rates_count_both_kinds_of_errors_at_the_threshold() -> None:
    test = scores_frame([0.1, 0.7, 0.2, 0.9, 0.4, 0.8], [0, 0, 0, 1, 1, 1], "test")
    rates = error_rates(Cell(resolution=64, perturbation=jpeg(20)), test, {0: 0.5}, 0, 200)
    assert (rates["cell"], rates["resolution"], rates["jpeg_quality"]) == ("64/q20", "64", 20)
    assert "perturbation" not in rates
    assert rates["false_alarms"] == {"value": pytest.approx(1 / 3), "low": None, "high": None, "n": 3}
    assert rates["missed"]["value"] == pytest.approx(1 / 3)
    many = scores_frame([0.1] * 15 + [0.7] * 5 + [0.9] * 20, [0] * 20 + [1] * 20, "test")
    rates = error_rates(Cell(resolution=64), many, {0: 0.5}, 0, 500)
    alarms = rates["false_alarms"]
    assert alarms["low"] < alarms["value"] == 0.25 < alarms["high"]
    assert (rates["missed"]["value"], rates["missed"]["low"], rates["missed"]["high"]) == (0, 0, 0)


def test_error_rates_say_what_else_than_jpeg_happened_and_no_quality() -> None:
    test = scores_frame([0.1, 0.9], [0, 1], "test")
    rates = error_rates(Cell(resolution="native", perturbation=Flip(axis=1)), test, {0: 0.5}, 0, 200)
    assert (rates["cell"], rates["resolution"]) == ("native/flip-1", "native")
    assert rates["perturbation"] == {"kind": "flip", "axis": 1}
    assert "jpeg_quality" not in rates
    assert CellErrors.model_validate_json(json.dumps(rates)).name == "native/flip-1"


def test_thresholds_come_from_uncompressed_val_pictures_of_the_published_rotation() -> None:
    p_fake, label = [0.2, 0.3, 0.6, 0.7], [0, 0, 1, 1]
    val = scores_frame(p_fake, label, "val")
    elsewhere = scores_frame([0.9, 0.1], [0, 1], "val", first=10).with_columns(pl.lit(1, pl.Int16).alias("fold"))
    frame = pl.concat([val, elsewhere, scores_frame([0.99, 0.01], [0, 1], "test", first=20)])
    found = fake_thresholds([Cell(resolution=64), Cell(resolution=64, perturbation=jpeg(20))], [frame, frame])
    assert found == {"64": balanced_accuracy_threshold(np.array(label), np.array(p_fake))}


def test_a_card_holds_what_a_person_must_know(store: LocalStore) -> None:
    places = ["val"] * 4 + ["test"] * 12
    rows = [row(source, number, place) for source in ("coco", "gan") for number, place in enumerate(places)]
    refs, _ = score_network.compute(store, **arguments(store, rows))
    known = pl.DataFrame(pl.from_arrow(read_table(store, refs[0], name=FAMILIARITY))).filter(pl.col("split") == "val")
    ref, _ = complete_card.compute(
        store,
        name="dense",
        exported=model(store),
        cells=tuple(ScoredCell(cell=cell, scores=scores) for cell, scores in zip(CELLS, refs, strict=True)),
        rejection=Rejection(score="energy", kept=0.75),
        sources={"coco": "coco", "gan": "gan"},
        canonical_side=48,
        seed=0,
        resamples=100,
    )
    card = json.loads(read_part(store, ref, CARD))
    assert (card["name"], card["canonical_side"], card["classes"]) == ("dense", 48, ["real", "gan", "stable"])
    assert set(card["decision"]["fake_thresholds"]) == {"native", "32"}
    rejection = card["decision"]["rejection"]
    assert (rejection["score"], rejection["kept"]) == ("energy", 0.75)
    assert (known["energy"] >= rejection["threshold"]).mean() == pytest.approx(0.75)
    assert [(one["resolution"], one["jpeg_quality"]) for one in card["error_rates"]] == [
        ("native", None),
        ("32", None),
        ("32", 20),
    ]
    assert all(one["missed"]["n"] == 12 and one["missed"]["low"] is not None for one in card["error_rates"])
