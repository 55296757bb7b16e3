"""`telltale evaluate --on pools`: the evaluation as a run of the deployment `evaluate/all`, watched from here."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx

from deployments.experiment_options import Chosen
from deployments.home_folder import home, load_state, store_address
from deployments.interruption import Interruption
from deployments.services import ServerHandle, running_server
from deployments.terminal import Bars
from storage.errors import MissingInput, SpecError, StoreRefused, TelltaleError
from storage.opening import open_store
from storage.paths import absolute
from storage.store import STORE_SETTING
from tasks.artifacts import artifact_key
from tasks.progress import Progress

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from rich.console import Console

DEPLOYMENT = "evaluate/all"
POOLS = ("coordinator", "cpu", "gpu")
SERVE = "`make serve` starts a server with pools, workers and all deployments"
POLL_S = 2.0
LINE_S = 10.0
# A server that was started again is back within this time; the run does not need it meanwhile.
GONE_S = 120.0


class RunEnded(TelltaleError):
    """A run on pools that ended without a result."""


def pools_server() -> ServerHandle:
    """The server that runs, whose workers keep their results where this process looks for them.

    Raises:
        MissingInput: none runs.
        SpecError: its workers have another store.
    """
    server = running_server()
    if server is None:
        raise MissingInput(f"a Prefect server: {SERVE}; PREFECT_API_URL names another one")
    settings = load_state(home()).worker_settings
    theirs = settings.get(STORE_SETTING, store_address())
    if settings.get("PREFECT_API_URL") == server.api_url and theirs != store_address():
        raise SpecError(
            f"{STORE_SETTING} is {store_address()}, and the workers keep their results in {theirs}: set it to that, or "
            "stop and serve again"
        )
    return server


def refuse_missing_pools() -> None:
    """Raise what the server lacks of pools, workers and the deployment, with remedies.

    Raises:
        MissingInput: all of it at once.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from flows.preflight import missing_pools

    missing = list(missing_pools(POOLS))
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            missing.insert(0, f"the deployment {DEPLOYMENT}: {SERVE}")
    if missing:
        raise MissingInput(*missing)


def as_workers_find_it(asked: Chosen) -> Chosen:
    """With the file's absolute path: flow runs work in temporary folders."""
    is_file = asked.name.endswith((".yaml", ".yml"))
    return replace(asked, name=str(absolute(Path(asked.name)))) if is_file else asked


def evaluated_on_pools(console: Console, asked: Chosen, server: ServerHandle, interruption: Interruption) -> str:
    """The place in the store of what a run on the pools finds; one of the same that is under way is only watched.

    Raises:
        RunEnded: it failed, crashed, was cancelled or published nothing that is found here.
        SpecError: it failed for what it was asked, or for what its workers lack.
    """
    from prefect.client.orchestration import get_client

    asked = as_workers_find_it(asked)
    with get_client(sync_client=True) as client:
        run, found = _begun(client, asked)
        said = "is under way already and is only watched" if found else "begins on the pools"
        console.print(f"{run.name} {said}: {server.ui_url}/runs/flow-run/{run.id}", soft_wrap=True, highlight=False)
        interruption.said = (
            f"interrupted: the run {run.name} goes on, and the same command watches it again; "
            f"`PREFECT_API_URL={server.api_url} prefect flow-run cancel {run.id}` cancels it"
        )
        ended = watched(client, run, artifact_key("overview", asked.experiment.name), console)
        refuse_failed(ended, asked)
        return _place(client, ended, asked)


def _begun(client: SyncPrefectClient, asked: Chosen) -> tuple[FlowRun, bool]:
    """The run of this that is under way, else a new one; and which of both."""
    from prefect.client.schemas.filters import FlowRunFilter

    from flows.names import experiment_title

    deployment = client.read_deployment_by_name(DEPLOYMENT).id
    parameters = {
        "experiment": asked.name,
        "overrides": asked.overrides or None,
        "seed": asked.seed,
        "dispatch": "pools",
    }
    under_way = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED"]
    chosen = {"deployment_id": {"any_": [str(deployment)]}, "state": {"type": {"any_": under_way}}}
    for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(chosen)):
        # Those that a schedule has planned begin at its hour.
        if run.parameters == parameters and not run.auto_scheduled:
            return run, True
    name = experiment_title("evaluate", asked.name, asked.overrides, asked.seed)
    return client.create_flow_run_from_deployment(deployment, parameters=parameters, name=name), False


def watched(
    client: SyncPrefectClient,
    run: FlowRun,
    overview: str,
    console: Console,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> FlowRun:
    """The run when it has ended; meanwhile its states and its overview are shown.

    Raises:
        RunEnded: the server has not answered for two minutes.
    """
    heard = clock()
    said: str | None = ""
    with _shown(console, clock) as show:
        while True:
            try:
                run = client.read_flow_run(run.id)
                markdown = _overview(client, run.id, overview)
                heard = clock()
            except httpx.TransportError as error:
                if clock() - heard > GONE_S:
                    reason = f"the Prefect server has not answered for {GONE_S / 60:.0f} minutes"
                    raise RunEnded(f"{reason}; the run {run.name} may go on without being watched") from error
                sleep(POLL_S)
                continue
            state = run.state
            if state is not None and state.is_final():
                return run
            if state is not None and state.name != said:
                said = state.name
                console.print(f"{run.name}: {said}", soft_wrap=True, highlight=False, markup=False)
            show(markdown)
            sleep(POLL_S)


def _overview(client: SyncPrefectClient, run: UUID, key: str) -> str:
    from prefect.client.schemas.filters import ArtifactFilter

    chosen = {"key": {"any_": [key]}, "flow_run_id": {"any_": [str(run)]}}
    found = client.read_artifacts(artifact_filter=ArtifactFilter.model_validate(chosen), limit=1)
    return str(found[0].data) if found else ""


@contextmanager
def _shown(console: Console, clock: Callable[[], float]) -> Iterator[Callable[[str], None]]:
    """What shows an overview: a bar for each step in a terminal, else a line every ten seconds."""
    from flows.overview import progress_of

    bars = Bars(console) if console.is_terminal else None
    told: set[str] = set()
    last = clock()

    def show(markdown: str) -> None:
        nonlocal last
        steps, sentences = progress_of(markdown)
        for sentence in sentences:
            if sentence not in told:
                told.add(sentence)
                console.print(f"note: {sentence}", soft_wrap=True, highlight=False, markup=False)
        if bars is not None:
            for step, (done, total) in steps.items():
                bars.update(Progress(step, total, unit="pieces", done=done))
        elif steps and clock() - last >= LINE_S:
            last = clock()
            console.print(_line(steps), soft_wrap=True, highlight=False, markup=False)

    with bars.rich if bars is not None else nullcontext():
        yield show


def _line(steps: Mapping[str, tuple[int, int]]) -> str:
    done, total = (sum(counts) for counts in zip(*steps.values(), strict=True))
    at_work = ", ".join(f"{step} {count} of {of}" for step, (count, of) in steps.items() if 0 < count < of)
    return f"{done} of {total} pieces of work are done" + (f": {at_work}" if at_work else "")


def refuse_failed(run: FlowRun, asked: Chosen) -> None:
    """Raise what a run that did not complete says of itself."""
    if run.state is None or run.state.is_completed():
        return
    said = (run.state.message or "it says nothing").strip()
    what = f"the run {run.name}"
    if run.state.is_cancelled():
        raise RunEnded(f"{what} was cancelled; what it has finished is kept")
    if run.state.is_crashed():
        raise RunEnded(f"{what} crashed: {said.splitlines()[0]}; started again it goes on where it stopped")
    raised = re.match(r"(\w+): (.+)", said.removeprefix("Flow run encountered an exception: "), re.DOTALL)
    kind, reason = (raised[1], raised[2]) if raised else ("", said)
    on_workers = ""
    if asked.name in reason:
        on_workers = " (the worker of the pool coordinator reads this file: it has to lie there under the same path)"
    wrong = {error.__name__ for error in (SpecError, MissingInput, StoreRefused)}
    raise (SpecError if kind in wrong else RunEnded)(f"{what} failed: {' '.join(reason.split())}{on_workers}")


def _place(client: SyncPrefectClient, run: FlowRun, asked: Chosen) -> str:
    """Where the run's results lie, by what it shows of its report."""
    from prefect.client.schemas.filters import ArtifactFilter

    from flows.publish import REPORT_OF

    key = artifact_key("report", asked.experiment.name)
    chosen: dict[str, Any] = {"key": {"any_": [key]}, "flow_run_id": {"any_": [str(run.id)]}}
    found = client.read_artifacts(artifact_filter=ArtifactFilter.model_validate(chosen), limit=1)
    place = (found[0].description or "").removeprefix(REPORT_OF) if found else ""
    if not place:
        raise RunEnded(f"the run {run.name} is finished and shows no report; `telltale runs` lists what the store has")
    store = open_store()
    if store.size(f"{place}/index.json") is None:
        raise RunEnded(
            f"the run is finished, and {place} is not in {store.url}: set {STORE_SETTING} to the store of the workers"
        )
    return place
