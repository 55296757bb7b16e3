"""`telltale evaluate --on pools`: what is missing, how a run is watched, and what is said of one that fails."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import State
from prefect.states import AwaitingRetry, Cancelled, Completed, Crashed, Failed, Pending, Running
from rich.console import Console
from typer.testing import CliRunner

from deployments import on_pools
from deployments.cli import app
from deployments.experiment_options import Chosen, chosen
from deployments.failures import exit_status
from deployments.home_folder import State as HomeState
from deployments.home_folder import save_state
from deployments.interruption import Interruption
from deployments.on_pools import RunEnded, as_workers_find_it, evaluated_on_pools, refuse_failed, watched
from deployments.services import ServerHandle
from flows.overview import Line, overview_markdown
from flows.publish import REPORT_OF
from storage.errors import SpecError, TelltaleError
from storage.local import LocalStore

SERVER = ServerHandle("http://127.0.0.1:1/api", "http://127.0.0.1:1", {})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TELLTALE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return tmp_path / "home"


def asked_for(name: str = "sample") -> Chosen:
    return chosen(name, None, None, None, None, None, None)


def run_in(state: State[Any], **more: Any) -> Any:
    return SimpleNamespace(id=uuid4(), name="evaluate sample", state=state, **more)


class Client:
    """A server with one run, which is in the next of these states whenever it is asked; an error is raised."""

    def __init__(self, *states: State[Any] | Exception, artifacts: Callable[[], list[Any]] = list) -> None:
        self.states = list(states)
        self.under_way: list[Any] = []
        self.made: list[dict[str, Any]] = []
        self._artifacts = artifacts

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_flow_run(self, run: Any) -> Any:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return SimpleNamespace(id=run, name="evaluate sample", state=state)

    def read_artifacts(self, artifact_filter: Any, limit: int) -> list[Any]:
        return self._artifacts()

    def read_deployment_by_name(self, name: str) -> Any:
        return SimpleNamespace(id=uuid4())

    def read_flow_runs(self, flow_run_filter: Any) -> list[Any]:
        return self.under_way

    def create_flow_run_from_deployment(self, deployment: Any, parameters: dict[str, Any], name: str) -> Any:
        self.made.append(parameters)
        return run_in(Pending(), parameters=parameters)


def watch(client: Client, step_s: float = 5.0) -> tuple[Any, list[str]]:
    """The run in the end, and the lines that were printed while a clock went on by so much with every question."""
    now = [0.0]

    def clock() -> float:
        now[0] += step_s
        return now[0]

    output = io.StringIO()
    console = Console(file=output, width=40)
    run = watched(client, run_in(Pending()), "overview-sample", console, lambda _: None, clock)  # type: ignore[arg-type]
    return run, output.getvalue().splitlines()


def said(*words: str, status: int) -> str:
    result = CliRunner().invoke(app, ["evaluate", *words, "--on", "pools"])
    assert (result.exit_code, result.stdout) == (status, ""), result.output
    (line,) = result.stderr.splitlines()
    return line


def test_without_a_server_it_is_said_how_to_get_one_and_none_is_started(home: Path) -> None:
    line = said("sample", status=2)
    assert line.startswith("error: missing: a Prefect server: `make serve` starts a server with pools, workers and all")
    assert not home.exists()


def test_workers_with_another_store_are_refused_before_they_compute_into_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.services.answers", lambda url: True)
    home.mkdir()
    theirs = {"TELLTALE_STORE": "/elsewhere", "PREFECT_API_URL": "http://127.0.0.1:4200/api"}
    save_state(home, HomeState(port=4200, worker_settings=theirs))
    line = said("sample", status=2)
    assert "the workers keep their results in /elsewhere: set it to that" in line


def test_states_and_what_is_done_are_lines_of_a_log() -> None:
    lines = [
        Line("embed", "cpu", 1_000, 3_000, 1.0, 0, 1),
        Line("embed", "gpu", 1, 3, 1.0, 0, 1),
        Line("shard", "cpu", 2, 2, 1.0, 0, 0),
        Line("score", "cpu", 0, 9, 1.0, 0, 0),
    ]
    text = overview_markdown("evaluate", lines, [], "Running", [], tasks=["no worker of the pool gpu_1 is online"])

    def shown() -> list[Any]:
        return [SimpleNamespace(data=text, description="")]

    # Each look takes eight seconds by this clock: a line is due at the second one.
    run, printed = watch(Client(Pending(), Running(), Running(), Completed(), artifacts=shown), step_s=4.0)
    assert run.state.is_completed()
    assert printed == [
        "evaluate sample: Pending",
        "note: no worker of the pool gpu_1 is online",
        "evaluate sample: Running",
        "1003 of 3014 pieces of work are done: embed 1001 of 3003",
    ]


def test_a_server_that_is_away_for_a_while_is_asked_again_and_given_up_after_two_minutes() -> None:
    gone = httpx.ConnectError("refused")
    run, _ = watch(Client(Running(), gone, gone, Completed()))
    assert run.state.is_completed()
    with pytest.raises(RunEnded, match="has not answered for 2 minutes; the run evaluate sample may go on"):
        watch(Client(Running(), gone), step_s=61.0)


@pytest.mark.parametrize(
    ("state", "status", "reason"),
    [
        (
            Failed(message="Flow run encountered an exception: MissingInput: missing: VGG16\nweights"),
            2,
            "VGG16 weights",
        ),
        (Failed(message="Flow run encountered an exception: SpecError: nothing: at all"), 2, "failed: nothing: at all"),
        (Failed(message="Flow run encountered an exception: Undetectable: no detector"), 1, "failed: no detector"),
        (Failed(message=None), 1, "failed: it says nothing"),
        (Crashed(message="exit status 137\nmore"), 1, "crashed: exit status 137; started again it goes on"),
        (Cancelled(), 1, "was cancelled; what it has finished is kept"),
    ],
)
def test_a_run_that_ends_otherwise_is_one_sentence_and_a_status(state: State[Any], status: int, reason: str) -> None:
    with pytest.raises(TelltaleError) as raised:
        refuse_failed(run_in(state), asked_for())
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)
    assert exit_status(raised.value) == status


def test_a_file_that_the_workers_do_not_find_is_said_to_belong_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(Path(__file__).parents[2].joinpath("tasks/experiments/sample.yaml").read_text())
    asked = as_workers_find_it(asked_for("mine.yaml"))
    assert asked.name == str(tmp_path / "mine.yaml")
    failed: State[Any] = Failed(message=f"Flow run encountered an exception: SpecError: no file {asked.name}")
    with pytest.raises(SpecError, match="it has to lie there under the same path"):
        refuse_failed(run_in(failed), asked)
    assert as_workers_find_it(asked_for("sample")).name == "sample"


def evaluated(client: Client, monkeypatch: pytest.MonkeyPatch, interruption: Interruption) -> tuple[str, str]:
    monkeypatch.setattr("prefect.client.orchestration.get_client", lambda **_: client)
    monkeypatch.setattr(on_pools, "POLL_S", 0.0)
    output = io.StringIO()
    place = evaluated_on_pools(Console(file=output, width=400), asked_for(), SERVER, interruption)
    return place, output.getvalue()


def report_of(place: str) -> Callable[[], list[Any]]:
    return lambda: [SimpleNamespace(data="", description=f"{REPORT_OF}{place}")]


def test_the_place_is_the_one_that_the_run_shows_and_a_run_under_way_is_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LocalStore(tmp_path / "store").write("runs/evaluate/sample-1/index.json", b"{}")
    client, interruption = Client(Completed(), artifacts=report_of("runs/evaluate/sample-1")), Interruption()
    place, printed = evaluated(client, monkeypatch, interruption)
    assert place == "runs/evaluate/sample-1"
    assert "begins on the pools" in printed
    (parameters,) = client.made
    assert parameters == {"experiment": "sample", "overrides": None, "seed": None, "dispatch": "pools"}
    assert "goes on, and the same command watches it again; `PREFECT_API_URL=" in interruption.said

    planned = run_in(AwaitingRetry(), parameters=parameters, auto_scheduled=True)
    other = run_in(Running(), parameters=parameters | {"seed": 1}, auto_scheduled=False)
    client.under_way = [planned, other]
    evaluated(client, monkeypatch, interruption)
    assert len(client.made) == 2
    client.under_way.append(run_in(Running(), parameters=parameters, auto_scheduled=False))
    _, printed = evaluated(client, monkeypatch, interruption)
    assert "is under way already and is only watched" in printed
    assert len(client.made) == 2


@pytest.mark.parametrize(
    ("artifacts", "reason"),
    [
        (
            report_of("runs/evaluate/sample-2"),
            "sample-2 is not in file://.*: set TELLTALE_STORE to the store of the wor",
        ),
        (list, "is finished and shows no report"),
    ],
)
def test_results_that_are_not_found_here_are_an_error(
    artifacts: Callable[[], list[Any]], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunEnded, match=reason):
        evaluated(Client(Completed(), artifacts=artifacts), monkeypatch, Interruption())
