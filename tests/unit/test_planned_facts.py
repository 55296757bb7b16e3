"""A coordinator without data: everything that planning an experiment asks of workers is known beforehand."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import evaluate, shard
from flows.preflight import missing_photographs, missing_weights, refuse_missing, wanted_facts
from storage.errors import MissingInput
from storage.objects import Ref
from tasks.data import histories, windows
from tasks.facts import Fact, Facts, as_json, facts_known
from tasks.presets import PRESETS, load_experiment
from tasks.recipe import Step
from tasks.spec.experiment import Experiment

NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))
SHA256 = "0123456789abcdef" * 4
NOTES = {
    "warnings": [],
    "shared": {"count": 0, "first": []},
    "qualities": [],
    "sources": {},
    "groups_merged_away": 0,
    "small": {},
    "unnamed": [],
}
ANSWERS: dict[str, Any] = {
    "missing_photographs": [],
    "missing_weights": [],
    "missing_detectors": [],
    "missing_gpu_detectors": [],
    "coco_content": SHA256,
    "column_content": SHA256,
    "inception_weights": SHA256,
    "diffusion_model": SHA256,
    "vgg16_digest": f"sha256:{SHA256}",
    "mobilenet_digest": f"sha256:{SHA256}",
    "files_of_cpu_workers": SHA256,
    "function_of_cpu_workers": {"distribution": "theirs", "version": "1.0", "digest": SHA256},
    "function_of_gpu_workers": {"distribution": "theirs", "version": "1.1", "digest": SHA256},
    "backbone_found": {"digest": f"sha256:{SHA256}", "hub": None, "version": "5.20"},
}

# What no preset has.
BACKBONE = {
    "kind": "backbone",
    "library": "transformers",
    "model": "${TELLTALE_CLIP}",
    "input": {"side": 224, "resize": "stretch", "filter": "bicubic", "mean": [0, 0, 0], "std": [1, 1, 1]},
}
OTHERS = {
    "detectors": [
        {"kind": "linear", "name": "plain"},
        {"kind": "linear", "name": "clip", "extractor": BACKBONE, "loss": "logistic"},
    ]
}

# Detectors that are brought, with what only workers have of them.
BROUGHT = [
    {"kind": "linear", "name": "svm"},
    {"kind": "callable", "name": "theirs", "function": "theirs:score"},
    {"kind": "callable", "name": "theirs-on-a-gpu", "function": "theirs:score", "runs_on": "gpu"},
    {
        "kind": "hub",
        "name": "classifier",
        "model": "${MODELS:-/models}/classifier",
        "fake": ["artificial"],
        "input": {"side": 224, "resize": "stretch", "filter": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
    },
    {
        "kind": "onnx",
        "name": "onnx",
        "model": "${MODELS:-/models}/detector.onnx",
        "fake": [1],
        "output": "logits",
        "answer": "softmax",
        "input": {"side": 224, "resize": "stretch", "filter": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
    },
    {"kind": "scores", "name": "elsewhere", "table": "${TELLTALE_SCORES}/scores.csv"},
]

EXPERIMENTS = [
    load_experiment(name, changes, seed)
    for name in NAMES
    for changes, seed in (({"shard_size": 50}, 0), ({"inception": "${TELLTALE_INCEPTION:-}"}, 7))
]
WITH_BROUGHT = load_experiment("sample", {"detectors": BROUGHT, "mobile": None}, 8)
WITH_BACKBONE = load_experiment("subset", OTHERS, 1)
EXPERIMENTS += [WITH_BROUGHT, WITH_BACKBONE]


class Asked(dict[str, Any]):
    """Answers that remember for which they were looked at."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__(answers)
        self.seen: set[str] = set()

    def __getitem__(self, digest: str) -> Any:
        self.seen.add(digest)
        return super().__getitem__(digest)


@pytest.fixture(autouse=True)
def _coordinator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without data and variables, on which every step's objects are made up."""
    for name in [name for name in os.environ if name.startswith("TELLTALE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TELLTALE_CACHE", str(tmp_path / "no cache"))
    monkeypatch.setattr(Step, "submit", submit)
    monkeypatch.setattr(shard, "refuse_shared_files", lambda *given: None)
    monkeypatch.setattr(shard, "assignment_warnings", lambda notes: [])
    monkeypatch.setattr(shard, "notes_of", lambda store, ref: NOTES)
    encodings = {"jpegs": [[75, "420", 1], [96, "420", 1]], "clean": [[640, 99]]}
    monkeypatch.setattr(histories, "notes_of", lambda store, ref: encodings)
    counts = {"split": None, "pictures": 9, "windows": 9, "clean": 9}
    places = [counts | {"fold": fold} for fold in range(5)]
    monkeypatch.setattr(windows, "notes_of", lambda store, ref: {"places": places})


def submit(step: Step, **arguments: Any) -> SimpleNamespace:
    """Stands for `Step.submit`: objects of a hundred rows."""
    refs = tuple(
        Ref(uri=uri, digest=uri.rpartition("/")[2], rows=100, bytes=1) for uri in step.places(step.bound(arguments))
    )
    return SimpleNamespace(result=lambda: refs if step.makes_several else refs[0])


def answer(fact: Fact[..., Any], arguments: tuple[Any, ...]) -> Any:
    named = fact.name in ("folder_content", "model_of_gpu_workers")
    return [as_json(arguments[0]), SHA256] if named else ANSWERS[fact.name]


def plan(experiment: Experiment, facts: Facts) -> None:
    with facts_known(facts):
        refuse_missing(experiment, ("cpu", "gpu"))
        evaluate.evaluation_of(experiment)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: f"{one.name} {one.seed}")
def test_planning_asks_what_is_wanted_and_nothing_else_of_a_machine(experiment: Experiment, tmp_path: Path) -> None:
    wanted = wanted_facts(experiment)
    answers = Asked({fact.digest(*arguments): answer(fact, arguments) for fact, arguments in wanted})

    def refuse(fact: Fact[..., Any], arguments: tuple[Any, ...]) -> None:
        pytest.fail(f"{fact.name} was not among the facts that are wanted: {arguments}")

    plan(experiment, Facts(answers, ask=refuse))
    assert answers.seen == set(answers)
    assert not (tmp_path / "no cache").exists()


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: f"{one.name} {one.seed}")
def test_a_worker_reads_every_question_back_from_json(experiment: Experiment) -> None:
    for fact, arguments in wanted_facts(experiment):
        assert fact.arguments(fact.question(*arguments)) == arguments


def test_what_workers_lack_is_said_with_its_remedies_at_once() -> None:
    experiment = load_experiment("subset")
    answers = {
        missing_photographs.digest(experiment): ["photographs: put them there"],
        missing_weights.digest(experiment): ["weights: name a file", "photographs: put them there"],
    }
    with facts_known(Facts(answers)), pytest.raises(MissingInput) as raised:
        refuse_missing(experiment, ("cpu", "gpu"))
    assert raised.value.missing == ("photographs: put them there", "weights: name a file")


def test_facts_are_asked_where_the_data_are() -> None:
    pools = {fact.name: fact.pool for experiment in EXPERIMENTS for fact, _ in wanted_facts(experiment)}
    assert pools == {
        "missing_photographs": "cpu",
        "coco_content": "cpu",
        "folder_content": "cpu",
        "column_content": "cpu",
        "missing_weights": "gpu",
        "missing_detectors": "cpu",
        "missing_gpu_detectors": "gpu",
        "vgg16_digest": "gpu",
        "mobilenet_digest": "gpu",
        "diffusion_model": "gpu",
        "inception_weights": "gpu",
        "backbone_found": "gpu",
        "model_of_gpu_workers": "gpu",
        "files_of_cpu_workers": "cpu",
        "function_of_cpu_workers": "cpu",
        "function_of_gpu_workers": "gpu",
    }
