"""Audits: which stages there are, who can be asked at each, and what a step from one to the next is worth."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import made_up
from benchmarks.made_up import planned
from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, notes_of, read_table
from storage.tables import FAKE, IMAGE_SCHEMA, REAL, SCORE_SCHEMA
from tasks.data.windows import Counted, count_windows, why_not_fitted
from tasks.detectors.calibration import NothingToCalibrateOn, calibrate_scores
from tasks.detectors.linear import Linear
from tasks.evaluation.audit import (
    AUDIT_STAGES,
    CHANGE,
    CONTAINER_QUALITY,
    SAME_CONTAINER,
    SAME_HISTORY,
    SAME_SIZE,
    WHOLE_CELLS,
    Absent,
    StageScores,
    audit_stages,
    audited_whole,
    audited_windows,
)
from tasks.evaluation.protocols import detectors_of, grid_of, mixes_of, needed_features
from tasks.presets import parse_experiment
from tasks.spec.detectors import Fit
from tasks.spec.experiment import Experiment, Mix
from tasks.spec.splits import FixedSplits, Folds
from tasks.spec.views import Cell, View

FOLDERS = {"city": "real", "country": "real", "a": "fake", "b": "fake", "c": "fake"}
DOCUMENT: dict[str, Any] = {
    "name": "made-up",
    "path": "crop",
    "sources": [{"kind": "folder", "name": name, "path": name, "label": label} for name, label in FOLDERS.items()],
    "splits": {"kind": "folds", "count": 3},
    "resolutions": [64, 128],
    "qualities": [None, 60],
    "detectors": [
        {"kind": "linear", "name": "traces", "extractor": {"kind": "spectrum"}, "windows": 3, "left_out": True},
        {"kind": "linear", "name": "over-all", "extractor": {"kind": "spectrum"}, "fitted_in": "augmented"},
        {"kind": "linear", "name": "probe", "role": "probe", "extractor": {"kind": "probe"}, "fitted_in": "each-cell"},
    ],
    "audited": ["a", "b"],
}  # fmt: skip
TABLE = {"kind": "scores", "name": "elsewhere", "table": "scores.csv"}


@pytest.fixture
def experiment() -> Experiment:
    return parse_experiment(DOCUMENT)


def mix_of(experiment: Experiment, name: str) -> Mix:
    (mix,) = (one for one in experiment.audited_mixes if one.name == name)
    return mix


def test_windows_are_uncompressed_of_the_largest_side_with_one_generator_alone(experiment: Experiment) -> None:
    derived = audited_windows(experiment, mix_of(experiment, "b"), "as-is")
    assert [source.name for source in derived.sources] == ["city", "country", "b"]
    assert derived.cells == (Cell(resolution=128),)
    assert not derived.matches_history
    grid = grid_of(derived, lambda named: named)
    entries = [(entry.fit, entry.cell) for one in detectors_of(derived) for entry in one.entries(grid)]
    assert len(entries) == len(experiment.detectors), "one fit of each, in one cell"


def test_on_matched_windows_a_generator_meets_its_own_version_of_all_photographs(experiment: Experiment) -> None:
    derived = audited_windows(experiment, mix_of(experiment, "b"), "matched")
    (mix,) = mixes_of(derived, Fit(detector="traces"))
    assert mix.real == ("city-as-b", "country-as-b")


def test_whole_pictures_are_seen_at_once_and_what_is_fitted_is_fitted_on_each_cells_own(experiment: Experiment) -> None:
    derived = audited_whole(experiment, mix_of(experiment, "a"))
    assert derived.cells == tuple(WHOLE_CELLS.values())
    assert WHOLE_CELLS[SAME_CONTAINER].jpeg_quality == CONTAINER_QUALITY
    grid = grid_of(derived, lambda named: named)
    for detector in detectors_of(derived):
        assert isinstance(detector, Linear)
        for entry in detector.entries(grid):
            view = View(path="raw", resolution="native", perturbation=entry.cell.perturbation)
            assert detector.trains(entry, grid).views == (view,)
            assert detector.view(entry.cell, grid) == view


def test_of_whole_pictures_only_what_detectors_read_is_computed(experiment: Experiment) -> None:
    derived = audited_whole(experiment, mix_of(experiment, "a"))
    needed = needed_features(derived, lambda named: named, ())
    assert {extractor.name for _, extractor in needed} == {"spectrum", "probe"}, "no distances of VGG16's features"
    assert {source for source, _ in needed} == {"city", "country", "a"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audited": ["d"]}, "audited: unknown fake source 'd'"),
        ({"audited": ["city"]}, "audited: unknown fake source 'city'"),
        ({"history": "as-is"}, "audited: it is of the path crop with history: matched"),
        (
            {"path": "fair", "detectors": [{"kind": "linear", "name": "svm"}]},
            "audited: it is of the path crop with history: matched",
        ),
        (
            {"mixes": [{"name": "a-city", "real": ["city"], "fakes": ["a"]}]},
            "audited: expected a mix of a alone with all photographs",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_audited_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_experiment(DOCUMENT | changes)


def test_an_experiment_without_audits_is_written_as_before(experiment: Experiment) -> None:
    without = parse_experiment({name: value for name, value in DOCUMENT.items() if name != "audited"})
    assert "audited" not in without.model_dump()
    assert experiment.model_dump()["audited"] == ("a", "b")


def audits_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The arguments of the step for each generator, planned over made-up inputs."""
    elements = itertools.chain.from_iterable(planned(parse_experiment(document), 40))
    found = [element.arguments for element in elements if element.step.name == "audit"]
    return {arguments["mix"].name: dict(arguments) for arguments in found}


def test_every_detector_and_probe_is_asked_at_every_stage_of_every_audited_generator() -> None:
    audits = audits_of(DOCUMENT)
    assert set(audits) == {"a", "b"}
    for found in audits.values():
        asked = [(one.stage, one.fit.detector) for one in found["scored"]]
        assert asked == [(stage, name) for stage in AUDIT_STAGES for name in ("traces", "over-all", "probe")]
        assert found["absent"] == ()


def test_an_audit_does_not_depend_on_what_else_is_audited() -> None:
    both, alone = audits_of(DOCUMENT)["b"], audits_of(DOCUMENT | {"audited": ["b"]})["b"]
    assert [one.scores.digest for one in both["scored"]] == [one.scores.digest for one in alone["scored"]]


def test_a_table_of_scores_has_the_last_stage_and_is_absent_before() -> None:
    found = audits_of(DOCUMENT | {"detectors": [*DOCUMENT["detectors"], TABLE]})["a"]
    assert [one.stage for one in found["scored"] if one.fit.detector == "elsewhere"] == [SAME_HISTORY]
    assert [one.stage for one in found["absent"]] == list(AUDIT_STAGES[:-1])
    assert {one.reason for one in found["absent"]} == {"it says nothing of pictures that it was not given"}


def test_without_another_detector_than_a_table_no_stage_is_computed() -> None:
    found = audits_of(DOCUMENT | {"detectors": [TABLE]})["a"]
    assert [one.stage for one in found["scored"]] == [SAME_HISTORY]


def test_a_set_none_of_whose_pictures_has_a_window_is_absent_there(monkeypatch: pytest.MonkeyPatch) -> None:
    small = [place | {"windows": 0, "clean": 0} for place in made_up._NOTES["windows"]["places"]]
    monkeypatch.setitem(made_up._NOTES, "windows", {"places": small})
    found = audits_of(DOCUMENT)["a"]
    assert {one.stage for one in found["scored"]} == set(WHOLE_CELLS)
    assert len({(one.stage, one.fit.detector) for one in found["absent"]}) == 2 * 3
    (reason,) = {one.reason for one in found["absent"]}
    assert reason.startswith("none of the ")
    assert reason.endswith(" pictures of a has a window of 128 pixels")


def test_a_set_whose_groups_are_fewer_than_the_folds_is_absent_with_the_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [dict(place, pictures=0) if place["fold"] == 1 else place for place in made_up._NOTES["windows"]["places"]]
    monkeypatch.setitem(made_up._NOTES, "windows", {"places": places})
    found = audits_of(DOCUMENT)["a"]
    assert {one.stage for one in found["absent"]} == set(WHOLE_CELLS)
    assert {one.reason for one in found["absent"]} == {"no photograph is val in rotation 0"}


def test_windows_are_counted_by_fold_and_history(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    sizes = [(0, 64, 80, 96), (0, 64, 80, 75), (0, 63, 80, 96), (1, 80, 64, None)]
    rows = [
        dict.fromkeys(IMAGE_SCHEMA.names) | {"fold": fold, "width": width, "height": height, "jpeg_quality": quality}
        for fold, width, height, quality in sizes
    ]
    shard = put(store, "objects/shard/x/0", pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA))
    found, _ = count_windows.compute(store, images=(shard,), source="x", side=64)
    assert notes_of(store, found)["places"] == [
        {"split": None, "fold": 0, "pictures": 3, "windows": 2, "clean": 1},
        {"split": None, "fold": 1, "pictures": 1, "windows": 1, "clean": 1},
    ]
    assert Counted.of(store, found, REAL, "clean").total == 2


@pytest.mark.parametrize(
    ("real", "fake", "splits", "reason"),
    [
        ([(None, 0, 1), (None, 1, 1), (None, 2, 1)], [(None, 0, 1), (None, 1, 1), (None, 2, 1)], Folds(count=3), ""),
        (
            [(None, 0, 1), (None, 1, 1), (None, 2, 1)],
            [(None, 0, 1), (None, 1, 1)],
            Folds(count=3),
            "no generated picture is train in rotation 0",
        ),
        ([("train", None, 1), ("val", None, 1)], [("train", None, 1), ("val", None, 1)], FixedSplits(), ""),
        (
            [("train", None, 1)],
            [("train", None, 1), ("val", None, 1)],
            FixedSplits(),
            "no photograph is val in rotation 0",
        ),
    ],
)
def test_a_detector_needs_both_classes_in_train_and_val(real: Any, fake: Any, splits: Any, reason: str) -> None:
    assert why_not_fitted([Counted(REAL, tuple(real)), Counted(FAKE, tuple(fake))], splits) == reason


FIT = Fit(detector="traces")
MIX = Mix(name="a", real=("city",), fakes=("a",))


def put(store: LocalStore, place: str, table: pa.Table, notes: Any = None) -> Ref:
    digest = place.rpartition("/")[2]
    return commit(store, place, step="made-up", digest=digest, recipe={}, parts={ROWS: table}, notes=notes or {})


def scores(names: dict[str, int], shift: float, count: int = 30, known: bool = True) -> pl.DataFrame:
    """Scores of test pictures of some sources with their labels; fakes are higher by a shift."""
    rows = []
    for source, label in names.items():
        # A version of a photograph has its group and its id.
        plain = source.partition("-")[0]
        noise = np.random.default_rng([*plain.encode()]).normal(size=count)
        for number in range(count):
            p_fake = float(1 / (1 + np.exp(-noise[number] - shift * label)))
            row = {"image_id": f"{number:02d}", "group_id": f"{plain}-{number}", "source": source, "label": label}
            row |= {"split": "test", "fold": 0, "p_fake": p_fake if known else None}
            rows.append(dict.fromkeys(SCORE_SCHEMA.names) | row)
    return pl.DataFrame(pl.from_arrow(pa.Table.from_pylist(rows, schema=SCORE_SCHEMA)))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def audited(store: LocalStore, frames: dict[str, pl.DataFrame], absent: tuple[Absent, ...] = ()) -> pl.DataFrame:
    """The step's rows, of frames by stage."""

    def stages() -> Iterator[StageScores]:
        for number, (stage, frame) in enumerate(frames.items()):
            there = MIX.model_copy(update={"real": ("city-as-a",)}) if stage == SAME_HISTORY else MIX
            ref = put(store, f"objects/score/x/{number}", frame.to_arrow().cast(SCORE_SCHEMA), {"reasons": {"odd": 9}})
            yield StageScores(stage=stage, cell=Cell(resolution=64), fit=FIT, mix=there, scores=ref)

    scored = tuple(stages())
    found, _ = audit_stages.compute(store, mix=MIX, scored=scored, absent=absent, seed=0, resamples=200)
    return pl.DataFrame(pl.from_arrow(read_table(store, found)))


def test_a_change_is_the_difference_of_two_stages_and_paired_on_the_same_pictures(store: LocalStore) -> None:
    before, after = scores({"city": REAL, "a": FAKE}, 2.0), scores({"city-as-a": REAL, "a": FAKE}, 0.5)
    found = audited(store, {SAME_SIZE: before, SAME_HISTORY: after})
    aurocs = [roc_auc_score(frame["label"], frame["p_fake"]) for frame in (before, after)]
    assert found.filter(metric="auroc")["value"].to_list() == pytest.approx(aurocs)
    (change,) = found.filter(metric=CHANGE).iter_rows(named=True)
    assert change["protocol"] == SAME_HISTORY
    assert change["value"] == pytest.approx(aurocs[1] - aurocs[0])
    assert (change["n_real"], change["n_fake"]) == (30, 30), "a photograph is itself, whatever its version is called"
    widths = [row["high"] - row["low"] for row in found.filter(metric="auroc").iter_rows(named=True)]
    assert change["low"] < change["value"] < change["high"]
    assert change["high"] - change["low"] < sum(widths)


def test_equal_scores_do_not_change_by_anything(store: LocalStore) -> None:
    same = scores({"city": REAL, "a": FAKE}, 1.0)
    found = audited(store, dict.fromkeys((SAME_CONTAINER, SAME_SIZE), same))
    assert found.filter(metric=CHANGE).select("value", "low", "high").row(0) == (0, 0, 0)


def test_a_change_counts_the_pictures_that_both_stages_show(store: LocalStore) -> None:
    everything = scores({"city": REAL, "a": FAKE}, 1.0)
    fewer = everything.filter((pl.col("source") == "a") | (pl.col("image_id") < "12"))
    found = audited(store, {SAME_CONTAINER: everything, SAME_SIZE: fewer})
    (change,) = found.filter(metric=CHANGE).iter_rows(named=True)
    assert (change["n_real"], change["n_fake"]) == (12, 12)
    (before, after) = found.filter(metric="auroc").iter_rows(named=True)
    assert ((before["n_real"], before["n_fake"]), (after["n_real"], after["n_fake"])) == ((30, 30), (12, 12))
    assert change["value"] == pytest.approx(after["value"] - before["value"])


def test_what_is_absent_has_its_reason_and_the_stage_after_it_no_change(store: LocalStore) -> None:
    same = scores({"city": REAL, "a": FAKE}, 1.0)
    absent = Absent(stage=SAME_SIZE, cell=Cell(resolution=64), fit=FIT, reason="no windows")
    found = audited(store, {SAME_CONTAINER: same, SAME_HISTORY: same}, (absent,))
    assert found.filter(protocol=SAME_SIZE).select("value", "reason").rows() == [(None, "no windows")]
    assert not len(found.filter(metric=CHANGE))


def test_a_detector_that_scored_nothing_is_absent_with_why(store: LocalStore) -> None:
    found = audited(store, {SAME_SIZE: scores({"city": REAL, "a": FAKE}, 1.0, known=False)})
    assert found.select("value", "reason").rows() == [(None, "it could not score any picture of a, city: odd (9)")]


def test_a_detector_that_takes_no_whole_picture_has_no_probabilities_and_ends_no_run(store: LocalStore) -> None:
    frame = scores({"city": REAL, "a": FAKE}, 1.0, known=False)
    ref = put(store, "objects/score/x/0", frame.to_arrow().cast(SCORE_SCHEMA))
    arguments: dict[str, Any] = {"fit": FIT, "scores": (ref,), "reference": (ref,)}
    found, _ = calibrate_scores.compute(store, view=View(path="raw", resolution="native"), **arguments)
    assert notes_of(store, found)["unscored"] == len(frame)
    with pytest.raises(NothingToCalibrateOn):
        calibrate_scores.compute(store, view=View(path="crop", resolution=64), **arguments)
