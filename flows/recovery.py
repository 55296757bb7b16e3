"""Runs whose process or host died: told from runs that are merely slow, and put back into their queue.

Prefect 3.8 leaves a run in RUNNING for ever when its host dies, in PENDING when that happens before it starts, and ends
it as Crashed when only its process dies. A flow run sends a heartbeat event every `PREFECT_FLOWS_HEARTBEAT_FREQUENCY`
seconds, which the templates of the work pools set for all runs of a pool. Heartbeats only say that a run *was* alive:
they arrive late, even after its end, and not at all while the server is away. So what is done follows from the run's
own state, read again right before.

The slot that a dead run holds of its deployment's concurrency limit is freed with the transition itself: the server
revokes the lease of a run that leaves RUNNING, PENDING or CANCELLING (`ReleaseFlowConcurrencySlots`). A run that was
put back although it was alive, because its host was cut off, loses its lease like this and is ended by Prefect at the
next renewal; `flows.runner.yield_to_newer_attempt` keeps it from reporting that as the end of its successor.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from storage.errors import MissingInput, TelltaleError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

# How often a run is started in all, whoever puts it back: this flow, its parent, or the run itself.
ATTEMPTS = 4

# A worker of Prefect 3.8 that is offered a run which it still runs dies, and it asks for what is due within ten
# seconds: the processes of the attempt before must have ended. Another worker may be the first to ask, too.
PAUSE = timedelta(seconds=30)

HEARTBEAT_SETTING = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
HEARTBEAT = "prefect.flow-run.heartbeat"
SILENT_PERIODS = 3
WATCHED_PERIODS = 2
CRASHED_WITHIN = timedelta(days=1)
PUT_BACK = "put back: "
# Lanes end by themselves with the run that they work for.
LANES_END_WITHIN = timedelta(minutes=1)

# States that a dead run stays in for ever: told by its silence, or by how long it is there.
SILENT = ("RUNNING", "CANCELLING")
ACTIVE = (*SILENT, "PENDING")
ASK_EVERY_S = 5.0
OWN_HEARTBEAT_S = 90.0
PAGE = 200


class NoHeartbeats(TelltaleError):
    """Heartbeats do not reach the server, so that nothing can be said about any run."""


class NotPutBack(TelltaleError):
    """The server refused to put a run back."""


@dataclass(frozen=True)
class Facts:
    """What decides about a run: its state's type and since when, its starts so far, and who wants its result."""

    state: str
    since: datetime
    attempts: int
    # A lane is not repeated: its coordinator starts others, which take over what it has claimed.
    is_lane: bool = False
    # Not where the run that a lane works for has ended for good, or where the next run does the same.
    is_wanted: bool = True


@dataclass(frozen=True)
class Remedy:
    """The state that a dead run gets, and why."""

    state: Literal["AwaitingRetry", "Crashed", "Cancelled", "Cancelling"]
    reason: str


def decide(
    facts: Facts, last_heartbeat: datetime | None, now: datetime, silence: timedelta | None, pending: timedelta
) -> Remedy | None:
    """What to do with a run, or None: it is alive, has ended as it should, or somebody else takes care of it.

    Args:
        facts: as the server has them now.
        last_heartbeat: when the server received the run's newest heartbeat, if there was any.
        now: the server's time.
        silence: without a heartbeat for so long a run is dead; None where nobody knows how often it sends one.
        pending: a run that has been claimed for so long and did not start has died with its worker.
    """
    age = now - facts.since
    quiet = age if last_heartbeat is None else min(age, now - last_heartbeat)
    if facts.state in SILENT:
        if silence is None or quiet < silence:
            if facts.state == "RUNNING" and facts.is_lane and not facts.is_wanted:
                return Remedy("Cancelling", "the run that it works for has ended")
            return None
        reason = f"no heartbeat for {quiet.total_seconds():.0f} s"
        if facts.state == "CANCELLING":
            return Remedy("Cancelled", f"{reason}, it died while it was being cancelled")
    elif facts.state == "PENDING":
        if age < pending:
            return None
        reason = f"a worker claimed it {age.total_seconds():.0f} s ago and it did not start"
    elif facts.state == "CRASHED":
        # What has been given up is Crashed, too, and stays so.
        if facts.is_lane or not facts.is_wanted or facts.attempts >= ATTEMPTS or age > CRASHED_WITHIN:
            return None
        return Remedy("AwaitingRetry", f"it crashed {age.total_seconds():.0f} s ago")
    else:
        return None
    if facts.is_lane:
        return Remedy("Crashed", f"{reason}, and other lanes go on with what it was at")
    if not facts.is_wanted:
        return Remedy("Crashed", f"{reason}, and the next run does the same")
    if facts.attempts >= ATTEMPTS:
        return Remedy("Crashed", f"{reason}, and attempt {facts.attempts} of {ATTEMPTS} was the last")
    return Remedy("AwaitingRetry", reason)


def put_back(client: "SyncPrefectClient", run: "FlowRun", reason: str) -> bool:
    """Put a run back into its queue, as it is, for in `PAUSE`; False if it has changed since `run` was read.

    Raises:
        NotPutBack: the server refused it.
    """
    return apply(client, run, Remedy("AwaitingRetry", reason))


def apply(client: "SyncPrefectClient", run: "FlowRun", remedy: Remedy) -> bool:
    """Give a run the remedy's state, unless it has another state by now than when `run` was read.

    Raises:
        NotPutBack: the server refused it.
    """
    from prefect.client.schemas import State
    from prefect.client.schemas.responses import SetStateStatus
    from prefect.states import AwaitingRetry, Cancelled, Cancelling, Crashed

    seen, found = run.state, client.read_flow_run(run.id).state
    if seen is None or found is None or seen.id != found.id:
        return False
    state: State[Any]
    if remedy.state == "AwaitingRetry":
        state = AwaitingRetry(scheduled_time=datetime.now(UTC) + PAUSE, message=PUT_BACK + remedy.reason)
    else:
        states = {"Crashed": Crashed, "Cancelled": Cancelled, "Cancelling": Cancelling}
        state = states[remedy.state](message=remedy.reason)
    answer = client.set_flow_run_state(run.id, state)
    if answer.status != SetStateStatus.ACCEPT:
        raise NotPutBack(
            f"{run.name} ({run.id}) stays {found.name}: {getattr(answer.details, 'reason', answer.status)}"
        )
    return True


def attempts(client: "SyncPrefectClient", run: "FlowRun") -> int:
    """How often a run has been started or tried to: what dies before it starts is not counted by the server."""
    put_backs = sum((state.message or "").startswith(PUT_BACK) for state in client.read_flow_run_states(run.id))
    return max(run.run_count, put_backs + 1)


def facts(client: "SyncPrefectClient", run: "FlowRun", unwanted: UUID | None = None) -> Facts:
    """What is known of a run with a state; nobody wants runs of the deployment `unwanted` to be repeated."""
    assert run.state is not None
    lane = run.parent_task_run_id is not None
    return Facts(
        state=run.state.type.value,
        since=run.state.timestamp,
        attempts=attempts(client, run),
        is_lane=lane,
        is_wanted=_is_worked_for(client, run) if lane else unwanted is None or run.deployment_id != unwanted,
    )


def _is_worked_for(client: "SyncPrefectClient", run: "FlowRun") -> bool:
    """Whether the run that started a lane goes on, or may be put back, or has ended only just now."""
    from prefect.exceptions import ObjectNotFound

    assert run.parent_task_run_id is not None
    try:
        task = client.read_task_run(run.parent_task_run_id)
        parent = client.read_flow_run(task.flow_run_id) if task.flow_run_id is not None else None
    except ObjectNotFound:
        return False
    if parent is None or parent.state is None:
        return False
    lately = server_time(client) - parent.state.timestamp < LANES_END_WITHIN
    return lately or parent.state.is_crashed() or not parent.state.is_final()


def dead_runs(
    client: "SyncPrefectClient", silences: Mapping[str, timedelta | None], pending: timedelta, asking: "FlowRun"
) -> Iterator[tuple["FlowRun", Remedy]]:
    """Runs on these pools that are not what they seem, each judged only when it is asked for, and their remedies.

    Args:
        client: of the server.
        silences: for each pool, after how long without a heartbeat its runs are dead; None: they never count as dead.
        pending: after how long a run that was claimed should have started.
        asking: the run that asks; its deployment's other runs are not repeated, as the next one does the same.
    """
    for run in candidates(client, list(silences), server_time(client)):
        if run.id == asking.id:
            continue
        now = server_time(client)
        silence = silences.get(run.work_pool_name or "")
        heard = last_heartbeat(client, run.id, now)
        remedy = decide(facts(client, run, unwanted=asking.deployment_id), heard, now, silence, pending)
        if remedy is not None:
            yield run, remedy


def is_silent(run: "FlowRun") -> bool:
    """Whether a run that `dead_runs` found is judged by its silence, not by its state."""
    return run.state is not None and run.state.type.value in SILENT


def candidates(client: "SyncPrefectClient", pools: Sequence[str], now: datetime) -> list["FlowRun"]:
    """Runs of deployments on these pools that are at work or crashed within a day; parents before their children."""
    active = _read_runs(client, pools, {"state": {"type": {"any_": list(ACTIVE)}}})
    since = (now - CRASHED_WITHIN).isoformat()
    crashed = _read_runs(client, pools, {"state": {"type": {"any_": ["CRASHED"]}}, "end_time": {"after_": since}})
    # A run may change between the two questions.
    runs = {run.id: run for run in (*active, *crashed) if run.state is not None}
    return sorted(runs.values(), key=lambda run: run.created or now)


def _read_runs(client: "SyncPrefectClient", pools: Sequence[str], chosen: Mapping[str, Any]) -> Iterator["FlowRun"]:
    from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter

    runs = FlowRunFilter.model_validate({**chosen, "deployment_id": {"is_null_": False}})
    where = WorkPoolFilter.model_validate({"name": {"any_": list(pools)}})
    offset = 0
    while page := client.read_flow_runs(flow_run_filter=runs, work_pool_filter=where, limit=PAGE, offset=offset):
        yield from page
        offset += len(page)


def last_heartbeat(client: "SyncPrefectClient", run_id: UUID, now: datetime) -> datetime | None:
    """When the server received a run's newest heartbeat; the clocks of workers do not matter."""
    from prefect.events.filters import EventFilter

    page = client.read_events(
        EventFilter.model_validate(
            {
                # Without bounds of its own the filter ends at this machine's time.
                "occurred": {"since": now - timedelta(days=7), "until": now + timedelta(days=1)},
                "event": {"name": [HEARTBEAT]},
                "resource": {"id": [f"prefect.flow-run.{run_id}"]},
            }
        ),
        limit=1,
    )
    return page.events[0].received if page.events else None


def server_time(client: "SyncPrefectClient") -> datetime:
    """The server's clock, which dates states and received events."""
    return parsedate_to_datetime(client.request("GET", "/health").headers["date"])


def heartbeat_period() -> timedelta:
    """This process's `PREFECT_FLOWS_HEARTBEAT_FREQUENCY`.

    Raises:
        MissingInput: it is not set.
    """
    setting = os.environ.get(HEARTBEAT_SETTING, "")
    if not setting.isdecimal() or int(setting) == 0:
        raise MissingInput(
            f"{HEARTBEAT_SETTING} (expected seconds, got {setting!r}): without it nobody can tell a dead run from a"
            " slow one; `make serve` and `python -m deployments.bootstrap register` set it for all work pools"
        )
    return timedelta(seconds=int(setting))


def periods(client: "SyncPrefectClient", pools: Sequence[str]) -> dict[str, timedelta | None]:
    """How often runs of each pool send heartbeats, as the pool's template says; None where it does not say."""
    from prefect.exceptions import ObjectNotFound

    found: dict[str, timedelta | None] = {}
    for name in pools:
        try:
            template = client.read_work_pool(name).base_job_template
        except ObjectNotFound:
            continue
        fixed = template.get("job_configuration", {}).get("env")
        default = template.get("variables", {}).get("properties", {}).get("env", {}).get("default")
        # As a worker does it.
        environment = {**(fixed if isinstance(fixed, dict) else {}), **(default or {})}
        setting = str(environment.get(HEARTBEAT_SETTING, ""))
        found[name] = timedelta(seconds=int(setting)) if setting.isdecimal() else None
    return found


def await_own_heartbeat(client: "SyncPrefectClient", run_id: UUID, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until a heartbeat of the run that asks has arrived: the proof that those of others can arrive.

    Raises:
        NoHeartbeats: it does not.
    """
    for _ in range(int(OWN_HEARTBEAT_S)):
        if last_heartbeat(client, run_id, server_time(client)) is not None:
            return
        sleep(1.0)
    raise NoHeartbeats(
        f"this run's own heartbeat did not reach the server within {OWN_HEARTBEAT_S:.0f} s, so that others' silence"
        " says nothing, and nothing was put back: is a websocket to the server blocked, or are its event services off?"
    )


def watch(
    client: "SyncPrefectClient",
    wait: timedelta,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait so long with the server answering all the while: no run could be heard while it was away."""
    began = clock()
    while (left := wait.total_seconds() - (clock() - began)) > 0:
        sleep(min(left, ASK_EVERY_S))
        asked = clock()
        server_time(client)
        if clock() - asked > ASK_EVERY_S:
            began = clock()
