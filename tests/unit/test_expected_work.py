"""How much an evaluation has to describe, before anything is described."""

from pathlib import Path

import pytest

from storage.local import LocalStore
from tasks.evaluation.expected_work import Described, ExpectedWork, expected_work
from tasks.presets import load_experiment
from tasks.spec.experiment import Experiment

SIZE = (200, 150)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def experiment() -> Experiment:
    return load_experiment("sample", {"resolutions": [64]})


def views(work: ExpectedWork) -> dict[str, int]:
    return {one.extractor: one.views for one in work.described}


def test_twice_the_pictures_are_twice_the_work_and_nothing_is_written(
    store: LocalStore, experiment: Experiment
) -> None:
    few = expected_work(store, experiment, {"photographs": 10}, SIZE)
    many = expected_work(store, experiment, {"photographs": 20}, SIZE)
    assert few.views > 0
    assert views(many) == {name: 2 * count for name, count in views(few).items()}
    assert few.left_out == ("gan", "tiny-diffusion")
    assert few.seconds is not None
    assert 0 < few.seconds[0] < few.seconds[1]
    assert not store.list("")


def test_a_quality_more_is_a_view_more_of_every_picture(store: LocalStore, experiment: Experiment) -> None:
    more = load_experiment("sample", {"resolutions": [64], "qualities": [*experiment.qualities, 30]})
    before, after = (expected_work(store, one, {"photographs": 10}, SIZE) for one in (experiment, more))
    assert views(after)["probe"] == views(before)["probe"] + 10


def test_sources_that_are_there_count_by_their_own_number(store: LocalStore, experiment: Experiment) -> None:
    alone = expected_work(store, experiment, {"photographs": 10}, SIZE)
    both = expected_work(store, experiment, {"photographs": 10, "gan": 5}, SIZE)
    assert views(both)["probe"] == 1.5 * views(alone)["probe"]
    assert both.left_out == ("tiny-diffusion",)


def test_where_weights_would_have_to_be_fetched_no_time_is_said(store: LocalStore) -> None:
    brought: dict[str, object] = {"kind": "backbone", "library": "onnx", "model": "own.onnx"}
    brought["input"] = {"side": 32, "resize": "stretch", "filter": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    overrides = {"detectors": [{"kind": "linear", "name": "own", "extractor": brought}], "mobile": None}
    work = expected_work(store, load_experiment("sample", overrides), {"photographs": 10}, SIZE)
    assert work.seconds is None
    assert work.document["seconds"] is None
    assert "about" not in work.sentence


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.01, "1 to 2 seconds"), (20.4, "10 to 26 seconds"), (600, "5 to 12 minutes"), (86400, "12 to 30 hours")],
)
def test_the_time_is_a_range_of_few_figures(seconds: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    work = ExpectedWork((Described("probe", 1200, seconds / 2), Described("spectrum", 34, seconds / 2)), ())
    assert work.sentence == (
        f"1,234 views are described (probe 1,200, spectrum 34), in about {said} on this processor: an estimate from "
        "one picture; fitting and testing come on top"
    )
