"""A detector is one file: its kind is read, planned, scored and calibrated without being named elsewhere."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError
from sklearn.metrics import roc_auc_score

from benchmarks.made_up import places_by_step, preset
from flows.preflight import missing_detectors, refuse_missing
from storage.errors import MissingInput, SpecError, WrongAnswers
from storage.local import LocalStore
from storage.objects import ROWS, Ref, notes_of, read_part, read_table
from storage.tables import SCORE_SCHEMA
from tasks.data.pictures import Pixels
from tasks.data.views import make_views
from tasks.detectors.base import KINDS, Detector
from tasks.detectors.calibration import calibrate_scores, calibrated, steadied
from tasks.detectors.pictures import Opened, Scoring, score_pictures
from tasks.detectors.svm import fit_platt
from tasks.pieces import RowPieces
from tasks.spec.detectors import Fit
from tasks.spec.splits import FixedSplits, Folds, Splits
from tasks.spec.views import View
from tests.unit.network_pictures import CANONICAL, VIEWS, picture, row, shard
from tests.unit.toy_detector import Blueness

FIT = Fit(detector="blue")
FIXED = FixedSplits()
PLACES = ("train", "val", "val", "val", "test", "test", "test", "test")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Blueness:
    monkeypatch.setitem(KINDS, "blueness", Blueness)
    return Blueness(name="blue")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def scored(
    store: LocalStore, detector: Any, splits: Splits = FIXED, places: Any = PLACES, name: str = "mixed"
) -> tuple[Ref, ...]:
    rows = [row(source, number, place) for source in ("coco", "stable") for number, place in enumerate(places)]
    return scored_rows(store, detector, rows, splits=splits, name=name)


def scored_rows(
    store: LocalStore, detector: Any, rows: list[Any], views: Any = VIEWS, splits: Splits = FIXED, name: str = "mixed"
) -> tuple[Ref, ...]:
    refs, _ = score_pictures.compute(
        store,
        detector=detector,
        files=None,
        fit=FIT,
        pictures=shard(store, rows, name),
        views=views,
        val_views=VIEWS[:2],
        splits=splits,
        device="cpu",
        source="coco",
        shard=0,
    )
    return tuple(refs)


def opening(decide: Callable[[Any], Any], batch: int = 1) -> Any:
    """A toy that decides otherwise: on a list of `batch` pictures."""

    class Other(Blueness):
        def opened(self, store: Any, files: Any, device: str) -> Opened:
            return Opened(lambda picture: picture.pixels, decide, batch)

    return Other(name="blue")


def blue(pixels: Pixels) -> float:
    return float(pixels[..., 2].mean() - pixels[..., 0].mean())


def frame(store: LocalStore, ref: Ref) -> pl.DataFrame:
    table = read_table(store, ref)
    assert table.schema.equals(SCORE_SCHEMA)
    return pl.DataFrame(pl.from_arrow(table))


def test_a_toy_is_read_and_written(toy: Blueness) -> None:
    adapter = TypeAdapter(tuple[Detector, ...])
    assert adapter.validate_python([{"kind": "blueness", "name": "blue"}]) == (toy,)
    assert adapter.validate_json(adapter.dump_json((toy,))) == (toy,)
    with pytest.raises(ValidationError, match="unknown kind of detector 'redness', expected one of"):
        adapter.validate_python([{"kind": "redness", "name": "red"}])


def test_a_toy_is_planned_in_every_cell_and_everything_before_it_stays(toy: Blueness) -> None:
    plain = places_by_step(preset("sample", {"mobile": None}))
    named = [*plain_detectors(), {"kind": "blueness", "name": "blue"}]
    found = places_by_step(preset("sample", {"mobile": None, "detectors": named}))
    cells = preset("sample").cells
    for step, places in plain.items():
        if step not in ("evaluate-cell", "compare-detectors", "explorer", "report", "views"):
            assert found[step] == places, step
    assert len(found["score/calibrated"]) == len(cells)
    assert {place.split("/")[3] for place in found["score/calibrated"]} == {"blue"}
    assert {place.split("/")[3] for place in found["score/pictures"]} == {"blue"}
    assert len(found["evaluate-cell"]) == len(cells)


def test_another_role_is_scored_anew_and_fitted_once() -> None:
    """The role is a column of scores and results: those of a detector do not serve a probe."""
    named = {"kind": "linear", "name": "mine", "extractor": {"kind": "probe"}}
    others = [{"kind": "linear", "name": "plain"}]
    one, other = (
        places_by_step(preset("sample", {"mobile": None, "detectors": [*others, named | {"role": role}]}))
        for role in ("detector", "probe")
    )
    assert one["train/svm"] == other["train/svm"]
    for step in ("score", "evaluate-cell"):
        assert one[step] != other[step]
    shared = {place for place in one["score"] if "/mine/" not in place}
    assert shared
    assert shared <= set(other["score"])


def plain_detectors() -> list[dict[str, Any]]:
    return [one.model_dump(mode="json") for one in preset("sample").all_detectors]


def seen(source: str, number: int, view: View) -> Pixels:
    data: bytes = row(source, number, "test")["image"]["bytes"]
    return make_views(data, f"{number:03d}", [view], CANONICAL)[view].pixels


def test_every_val_and_test_picture_is_scored_once_in_its_own_view(store: LocalStore, toy: Blueness) -> None:
    refs = scored(store, toy)
    for view, ref in zip(VIEWS, refs, strict=True):
        found = frame(store, ref)
        splits = ("val", "test") if view in VIEWS[:2] else ("test",)
        expected = {
            (source, f"{number:03d}"): blue(seen(source, number, view))
            for source in ("coco", "stable")
            for number, place in enumerate(PLACES)
            if place in splits
        }
        assert dict(zip(zip(found["source"], found["image_id"], strict=True), found["decision"], strict=True)) == (
            pytest.approx(expected)
        )
        assert found["p_fake"].is_null().all()
        assert Fit(**found.select(*Fit.model_fields).unique().row(0, named=True)) == FIT
        assert found["perturbation"].unique().to_list() == [view.perturbation_name]


def test_with_folds_each_picture_is_val_once_and_test_once(store: LocalStore, toy: Blueness) -> None:
    refs = scored(store, toy, Folds(count=4), places=(0, 1, 2, 3, 0, 1, 2, 3))
    found = frame(store, refs[0])
    for split in ("val", "test"):
        part = found.filter(pl.col("split") == split)
        assert part.select("source", "image_id").is_unique().all()
        assert len(part) == 16


def test_probabilities_are_calibrated_on_val_of_the_reference_alone(store: LocalStore, toy: Blueness) -> None:
    refs = scored(store, toy)
    reference, compressed = refs[1], refs[2]
    made, _ = calibrate_scores.compute(store, fit=FIT, view=VIEWS[2], scores=(compressed,), reference=(reference,))
    found, val = frame(store, made), frame(store, reference).filter(pl.col("split") == "val")
    assert set(found["split"]) == {"test"}
    known, labels = val["decision"].to_numpy(), val["label"].to_numpy().astype(np.int64)
    slope, offset = fit_platt(steadied(known, known), labels, np.ones(len(val)))
    expected = 1 / (1 + np.exp(-(slope * steadied(found["decision"].to_numpy(), known) + offset)))
    np.testing.assert_allclose(found["p_fake"].to_numpy(), expected, rtol=1e-6)
    assert roc_auc_score(found["label"], found["p_fake"]) == roc_auc_score(found["label"], found["decision"]) == 1.0


def test_the_order_of_shards_does_not_matter(store: LocalStore, toy: Blueness) -> None:
    one, two = (scored(store, toy, name=name, places=PLACES[start:])[0] for name, start in (("a", 0), ("b", 4)))
    made = [
        calibrate_scores.compute(store, fit=FIT, view=VIEWS[0], scores=refs, reference=(one,))[0]
        for refs in ((one, two), (two, one))
    ]
    assert made[0].digest != made[1].digest
    assert frame(store, made[0])["p_fake"].sort().equals(frame(store, made[1])["p_fake"].sort())


def test_val_pictures_of_one_class_are_refused(store: LocalStore, toy: Blueness) -> None:
    rows = [row("coco", 0, "val"), row("coco", 1, "test"), row("stable", 2, "test")]
    refs = scored_rows(store, toy, rows, VIEWS[:1], name="one")
    with pytest.raises(SpecError, match=r"blue: no fake that it scored in val \(rotation 0\) to calibrate on"):
        calibrate_scores.compute(store, fit=FIT, view=VIEWS[0], scores=refs, reference=refs)
    none = [row("coco", 1, "test"), row("stable", 2, "test")]
    untested = scored_rows(store, toy, none, VIEWS[:1], name="none")
    with pytest.raises(SpecError, match=r"rotation 0 has no val pictures"):
        calibrate_scores.compute(store, fit=FIT, view=VIEWS[0], scores=untested, reference=untested)


@pytest.mark.parametrize("decision", [float("nan"), float("inf")])
def test_a_picture_without_a_finite_number_has_no_score_and_takes_no_part(store: LocalStore, decision: float) -> None:
    bad = seen("coco", 4, VIEWS[1])

    def decide(pictures: Any) -> list[float]:
        return [decision if np.array_equal(pixels, bad) else blue(pixels) for pixels in pictures]

    refs = scored(store, opening(decide))
    found = frame(store, refs[1])
    assert found.filter(pl.col("decision").is_null()).select("source", "image_id").rows() == [("coco", "004")]
    assert notes_of(store, refs[1])["unscored"] == 1
    assert notes_of(store, refs[1])["reasons"] == {f"expected a finite number, got {decision}": 1}
    made, _ = calibrate_scores.compute(store, fit=FIT, view=VIEWS[1], scores=refs[1:2], reference=refs[1:2])
    whole = frame(store, made)
    assert whole["p_fake"].null_count() == 1
    assert len(whole) == len(found)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_picture_that_a_detector_fails_on_fails_alone(store: LocalStore, batch: int, toy: Blueness) -> None:
    bad = seen("stable", 5, VIEWS[0])

    def decide(pictures: Any) -> list[float]:
        if any(np.array_equal(pixels, bad) for pixels in pictures):
            raise IndexError("no such place")
        return [blue(pixels) for pixels in pictures]

    found = frame(store, scored(store, opening(decide, batch))[0])
    failed = found.filter(pl.col("decision").is_null())
    assert failed.select("source", "image_id").rows() == [("stable", "005")]
    whole = frame(store, scored(store, toy, name="other")[0])
    assert found.filter(pl.col("decision").is_not_null())["decision"].to_list() == (
        whole.filter(~((pl.col("source") == "stable") & (pl.col("image_id") == "005")))["decision"].to_list()
    )


def test_a_detector_that_fails_on_every_picture_is_given_up_with_the_reason(store: LocalStore) -> None:
    refs = scored(store, opening(lambda pictures: [][len(pictures)]))
    assert frame(store, refs[0])["decision"].null_count() == len(frame(store, refs[0]))
    message = r"blue: no photograph that it scored in val .*; it failed: IndexError: list index out of range \(14\)"
    with pytest.raises(SpecError, match=message):
        calibrate_scores.compute(store, fit=FIT, view=VIEWS[0], scores=refs[:1], reference=refs[:1])


def test_reasons_are_noted_with_the_view_that_they_are_of(store: LocalStore) -> None:
    def decide(pictures: Any) -> list[float]:
        if pictures[0].shape[0] < 64:
            raise ValueError("too small")
        return [blue(pixels) for pixels in pictures]

    refs = scored(store, opening(decide))
    by_view = {view.name: notes_of(store, ref)["reasons"] for view, ref in zip(VIEWS, refs, strict=True)}
    sides = {view.name: seen("coco", 4, view).shape[0] for view in VIEWS}
    assert {name for name, reasons in by_view.items() if reasons} == {name for name, side in sides.items() if side < 64}
    assert all(set(reasons) <= {"ValueError: too small"} for reasons in by_view.values())


@pytest.mark.parametrize("error", [MemoryError, ConnectionError, FileNotFoundError])
def test_what_says_something_of_the_machine_is_kept_of_no_picture(store: LocalStore, error: type[Exception]) -> None:
    def decide(pictures: Any) -> list[float]:
        raise error("not the picture's fault")

    with pytest.raises(error, match="not the picture's fault"):
        scored(store, opening(decide))


@pytest.mark.parametrize(
    ("declared", "known"),
    [
        (["MS COCO 2017 train"], "coco"),
        (["Stable Diffusion 1.4"], "stable-diffusion-1-4"),
        (["LAION"], None),
        ([], None),
    ],
)
def test_a_set_that_a_detector_may_know_is_found_by_its_name(declared: list[str], known: str | None) -> None:
    (said,) = Blueness(name="blue", trained_on=tuple(declared)).remarks(("coco", "stable-diffusion-1-4", "gan"))
    assert (f"it may know pictures of {known}." in said) == (known is not None)
    assert ("none of this experiment's sources" in said) == (known is None)


def test_another_number_of_scores_than_pictures_is_refused(store: LocalStore) -> None:
    with pytest.raises(SpecError, match=r"blue: expected 3 scores of as many pictures, got \(4,\)"):
        scored(store, opening(lambda pictures: [0.0] * (len(pictures) + 1), 3))


def test_telltales_own_errors_are_no_failures_of_a_picture(store: LocalStore) -> None:
    def decide(pictures: Any) -> list[float]:
        raise WrongAnswers("another machine")

    with pytest.raises(WrongAnswers, match="another machine"):
        scored(store, opening(decide))


def test_batches_are_the_same_after_a_break(store: LocalStore) -> None:
    """Pictures of one batch may decide each other's scores (dynamic quantisation does): so an attempt keeps to them."""

    def noted(calls: list[int], fails_at: int | None = None) -> Any:
        def decide(pictures: Any) -> list[float]:
            if len(calls) == fails_at:
                raise WrongAnswers("the machine goes down")
            calls.append(len(pictures))
            together = float(np.mean([blue(pixels) for pixels in pictures]))
            return [blue(pixels) + together for pixels in pictures]

        return opening(decide, batch=3)

    rows = [row(source, number, place) for source in ("coco", "stable") for number, place in enumerate(PLACES)]
    table = read_table(store, shard(store, rows, "mixed"))

    def attempt(detector: Any, clock: Callable[[], float]) -> dict[View, list[Any]]:
        kept = {view: RowPieces(store, f"kept-{n}", SCORE_SCHEMA, clock) for n, view in enumerate(VIEWS)}
        found = Scoring(detector.opened(store, None, "cpu"), FIT, VIEWS, VIEWS[:2], FIXED, kept).rows(table)
        return {view: sorted(rows, key=lambda one: (one["source"], one["image_id"])) for view, rows in found.items()}

    every: list[int] = []
    calls: list[int] = []
    again: list[int] = []
    whole = attempt(noted(every), lambda: 0.0)
    ticks = itertools.count(0, 10_000)  # every row is kept
    with pytest.raises(WrongAnswers):
        attempt(noted(calls, fails_at=5), lambda: next(ticks))
    assert attempt(noted(again), lambda: 0.0) == whole
    assert len(calls) == 5
    assert 0 < len(again) < len(every)


def test_a_picture_is_scored_once_in_a_view_whatever_rotations_it_is_in(store: LocalStore) -> None:
    calls = []

    def decide(pictures: Any) -> list[float]:
        calls.append(len(pictures))
        return [blue(pixels) for pixels in pictures]

    found = frame(store, scored(store, opening(decide), Folds(count=4), places=(0, 1, 2, 3, 0, 1, 2, 3))[0])
    assert len(found) == 32
    assert sum(calls) == 16 * len(VIEWS)


def test_a_toy_tells_blue_pictures(toy: Blueness) -> None:
    assert blue(picture("stable", 1)) > blue(picture("coco", 1)) > blue(picture("gan", 1))


def test_parts_are_equal_whatever_is_computed_beside_them(store: LocalStore, toy: Blueness, tmp_path: Path) -> None:
    other = LocalStore(tmp_path / "other")
    rows = [row(source, number, place) for source in ("coco", "stable") for number, place in enumerate(PLACES)]
    alone = scored_rows(other, toy, rows, VIEWS[1:2])
    assert read_part(other, alone[0], ROWS) == read_part(store, scored(store, toy)[1], ROWS)


def test_what_a_toy_lacks_is_said_before_any_work(toy: Blueness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Blueness, "missing", lambda self: [f"a blue pencil for {self.name}: buy one"])
    named = preset("sample", {"mobile": None, "detectors": [{"kind": "blueness", "name": "blue"}]})
    assert missing_detectors(named) == ("a blue pencil for blue: buy one",)
    with pytest.raises(MissingInput, match="a blue pencil for blue"):
        refuse_missing(named, ("cpu", "gpu"))
    refuse_missing(named, ("cpu",))


def decisions(rng: np.random.Generator, split: str, count: int = 200) -> pl.DataFrame:
    labels = np.arange(count) % 2
    return pl.DataFrame(
        {
            "detector": ["blue"] * count,
            "fold": pl.Series([0] * count, dtype=pl.Int16),
            "split": [split] * count,
            "source": ["coco" if label == 0 else "gan" for label in labels],
            "label": pl.Series(labels, dtype=pl.Int8),
            "decision": rng.normal(size=count) + labels,
            "p_fake": pl.Series([None] * count, dtype=pl.Float64),
        }
    )


@pytest.mark.parametrize(
    "scale",
    [
        lambda x: x, lambda x: 1e300 * x, lambda x: 1e-300 * x, lambda x: x + 1e6, lambda x: np.exp(2 * x),
        lambda x: np.sinh(30 * x), lambda x: 1 / (1 + np.exp(-x)), lambda x: x**3,
    ],
    ids=["plain", "huge", "tiny", "shifted", "exp", "sinh", "share", "cube"],
)  # fmt: skip
def test_the_scale_of_a_detector_changes_no_order_of_its_probabilities(scale: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(0)
    plain = [decisions(rng, split) for split in ("val", "test")]
    val, test = (part.with_columns(decision=pl.Series(scale(part["decision"].to_numpy()))) for part in plain)
    found = calibrated(test, val)
    assert found["p_fake"].is_between(0, 1, closed="none").all()
    expected = roc_auc_score(test["label"], test["decision"])
    assert roc_auc_score(found["label"], found["p_fake"]) == pytest.approx(expected, abs=1e-12)


def test_log_odds_are_calibrated_as_by_platt_alone() -> None:
    rng = np.random.default_rng(1)
    val, test = decisions(rng, "val", 2000), decisions(rng, "test")
    found = calibrated(test, val)["p_fake"].to_numpy()
    known, labels = val["decision"].to_numpy(), val["label"].to_numpy().astype(np.int64)
    slope, offset = fit_platt(known, labels, np.ones(len(val)))
    plain = 1 / (1 + np.exp(-(slope * test["decision"].to_numpy() + offset)))
    np.testing.assert_allclose(found, plain, atol=0.01)


def test_decision_values_that_probabilities_cannot_tell_apart_are_refused() -> None:
    val, test = decisions(np.random.default_rng(2), "val"), decisions(np.random.default_rng(3), "test", 4)
    for values in ([1e15, 1e15 + 1, 1e15 + 2, 1e15 + 3], [1e-27, 2e-27, 1e30, 1e35]):
        with pytest.raises(SpecError, match="blue: its decision values span too much to be told apart"):
            calibrated(test.with_columns(decision=pl.Series(values)), val)


def test_an_experiment_may_have_no_detector_on_its_own_extractor(toy: Blueness) -> None:
    """How far fakes are from photographs is measured on its features all the same."""
    named = [{"kind": "blueness", "name": "blue"}]
    found = places_by_step(preset("sample", {"mobile": None, "detectors": named}))
    assert found["quality"] == places_by_step(preset("sample", {"mobile": None}))["quality"]
