"""What an evaluation plans: controls of all linear detectors, and nothing that nobody reads."""

import itertools
from typing import Any

import pytest

from benchmarks.made_up import planned
from flows.evaluate import evaluation_of
from tasks.elements import Element
from tasks.presets import parse_experiment
from tasks.recipe import Step
from tasks.spec.experiment import Experiment

TRACES = {"kind": "linear", "name": "traces", "extractor": {"kind": "spectrum"}, "windows": 3}
OTHER = {"name": "other", "loss": "discriminant", "svm": {"c_values": [0.01, 0.1]}, "fitted_in": "augmented"}
PROBE = {"kind": "linear", "name": "sizes", "role": "probe", "extractor": {"kind": "probe"}}


def experiment(**changes: Any) -> Experiment:
    document: dict[str, Any] = {
        "name": "traces",
        "path": "crop",
        "sources": [
            {"kind": "folder", "name": "town", "path": "town", "label": "real"},
            {"kind": "folder", "name": "first", "path": "first", "label": "fake"},
            {"kind": "folder", "name": "second", "path": "second", "label": "fake"},
        ],
        "splits": {"kind": "folds", "count": 3},
        "resolutions": [256, 64],
        "qualities": [None, 60],
        "augmented_qualities": [None, 60],
        "extractor": {"kind": "vgg16", "weights": "random:0"},
        "detectors": [TRACES, TRACES | OTHER, PROBE],
    }
    return parse_experiment(document | changes)


def elements(of: Experiment, step: str) -> list[Element]:
    return [one for one in itertools.chain.from_iterable(planned(of, 200)) if one.step.name == step]


def test_every_linear_detector_has_a_control_of_its_own_in_the_smallest_resolution() -> None:
    controls = {one.arguments["head"].fit.label: one.arguments for one in elements(experiment(), "control/shuffled")}
    assert list(controls) == ["traces", "other"]
    traces, other = controls["traces"]["head"], controls["other"]["head"]
    assert (traces.extractor.kind, traces.loss, other.loss) == ("spectrum", "hinge", "discriminant")
    assert [(view.resolution, view.jpeg_quality, view.windows) for view in traces.views] == [(64, None, 3)]
    assert [(view.resolution, view.jpeg_quality, view.windows) for view in other.views] == [(64, None, 3), (64, 60, 3)]
    assert traces.real == ("town-as-first", "town-as-second")
    assert {arguments["repeats"] for arguments in controls.values()} == {20}


def test_controls_are_fitted_on_what_the_detector_is_fitted_on() -> None:
    def read(step: str) -> dict[Any, list[str]]:
        return {
            one.arguments["head"]: [ref.digest for ref in one.arguments["features"]]
            for one in elements(experiment(), step)
        }

    trained, controls = read("train/svm"), read("control/shuffled")
    assert controls == {head: trained[head] for head in controls}


def test_an_experiment_says_how_often_labels_are_shuffled() -> None:
    often = elements(experiment(control_repeats=100), "control/shuffled")
    assert {one.arguments["repeats"] for one in often} == {100}
    assert "control_repeats" not in experiment(control_repeats=20).model_dump(mode="json")


def test_what_stands_beside_matched_results_has_features_of_detectors_alone() -> None:
    """The generators' quality, for which the experiment's own extractor describes them, is measured once."""
    embedded = elements(experiment(), "embed")
    own = [one.arguments for one in embedded if one.arguments["extractor"].kind == "vgg16"]
    assert {arguments["source"] for arguments in own} == {"town-as-first", "town-as-second", "first", "second"}
    of_detectors = {one.arguments["source"] for one in embedded if one.arguments["extractor"].kind == "spectrum"}
    assert {"town", "once-first"} <= of_detectors
    assert all(arguments["canonical"].history is not None for arguments in own)


def test_encodings_are_asked_for_once_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[list[str]] = []
    original = Step.submit

    def submit(self: Step, **arguments: Any) -> Any:
        if self.name == "encodings":
            passes[-1].append(arguments["source"])
        return original(self, **arguments)

    def compute(of: Experiment) -> Any:
        # Planning goes through the code again and again, each time further.
        passes.append([])
        return evaluation_of(of)

    monkeypatch.setattr(Step, "submit", submit)
    list(planned(experiment(), 200, compute))
    assert passes[-1] == ["town", "first", "second"]
