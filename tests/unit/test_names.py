"""Names of flow runs: four runs of one experiment can be told apart, and a name never fails a run."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from deployments.bootstrap import deployments
from flows.names import experiment_title, run_name


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness():
        yield


def name_of(parameters: dict[str, Any]) -> str:
    """What Prefect calls a run with these parameters."""

    @flow(flow_run_name=run_name("evaluate"), validate_parameters=False)
    def body(experiment: Any = "sample", overrides: Any = None, seed: Any = None) -> None:
        pass

    state = body(**parameters, return_state=True)
    assert state.is_completed()
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        return str(client.read_flow_run(state.state_details.flow_run_id).name)


def test_a_run_is_named_by_what_was_changed_and_by_a_digest_of_everything() -> None:
    names = [
        name_of({}),
        name_of({"overrides": {"sources.gan.count": 50}}),
        name_of({"overrides": {"sources": {"gan": {"count": 50}}}}),
        name_of({"seed": 7}),
    ]
    plain, dotted, nested, seeded = names
    assert re.fullmatch(r"evaluate sample [0-9a-f]{8}", plain)
    assert re.fullmatch(r"evaluate sample \(sources\.gan\.count=50\) [0-9a-f]{8}", dotted)
    assert nested == dotted
    assert re.fullmatch(r"evaluate sample \(seed=7\) [0-9a-f]{8}", seeded)
    assert len({name[-8:] for name in names}) == 3


def test_the_experiments_own_value_changes_no_digest() -> None:
    name = experiment_title("evaluate", "sample", {"sources.gan.count": 50})
    again = experiment_title("evaluate", "sample", {"sources.gan.count": 50.0})
    assert name[-8:] == again[-8:]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"experiment": "smaple"}, "evaluate smaple"),
        ({"experiment": "/nowhere/mine.yaml"}, "evaluate mine"),
        ({"overrides": {"sources.gan.count": "many"}}, "evaluate sample (sources.gan.count=many)"),
        ({"overrides": {"no.such": {}}}, "evaluate sample (no.such={})"),
        ({"overrides": [1, 2]}, "evaluate"),
        ({"experiment": 3}, "evaluate 3"),
        ({"experiment": "a\x1b[31m\nb"}, "evaluate a [31m b"),
    ],
)
def test_a_broken_experiment_gets_a_plain_name(parameters: dict[str, Any], name: str) -> None:
    assert name_of(parameters) == name


def test_an_experiment_whose_variables_are_not_set_here_has_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELLTALE_COCO", raising=False)
    assert re.fullmatch(r"embed coco [0-9a-f]{8}", experiment_title("embed", "coco"))


def test_many_changes_are_cut_and_still_told_apart_by_the_digest() -> None:
    changes = {"description": "x" * 200, "sources.gan.count": 50}
    name = experiment_title("evaluate", "sample", changes)
    assert len(name) <= 100
    assert "…" in name
    assert name[-8:] != experiment_title("evaluate", "sample", {**changes, "sources.gan.count": 51})[-8:]


def test_a_file_is_called_as_its_experiment(tmp_path: Path) -> None:
    preset = Path(__file__).parents[2] / "tasks" / "experiments" / "sample.yaml"
    file = tmp_path / "mine.yaml"
    file.write_text(preset.read_text(encoding="utf-8").replace("name: sample\n", "name: autumn\n"), encoding="utf-8")
    assert experiment_title("evaluate", str(file)).startswith("evaluate autumn ")


def test_every_deployed_flow_of_an_experiment_is_named_so() -> None:
    import importlib

    for entrypoint, _ in deployments():
        module, name = entrypoint.rsplit(".", 1)
        deployed = getattr(importlib.import_module(module), name)
        taken = set(deployed.parameters.properties)
        if {"experiment", "overrides", "seed"} <= taken:
            assert callable(deployed.flow_run_name), entrypoint
