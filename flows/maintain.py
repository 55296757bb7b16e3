"""Keeping the store clean, and runs going."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from prefect import flow
from prefect.logging import get_run_logger

from flows import recovery
from flows.preflight import POOLS
from flows.runner import own_run
from storage.errors import TelltaleError
from storage.opening import open_store
from storage.sweep import (
    find_debris,
    find_old_claims,
    find_old_plans,
    find_unfinished_writes,
    find_unreferenced,
    remove,
    remove_old_plans,
    remove_unfinished_writes,
    remove_unreferenced,
    step_of,
)
from tasks.artifacts import show_markdown

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

MAINTENANCE = "maintain"
DAY_S = 86_400
LISTED = 200
# Hosts' clocks differ a little.
JUST_ENDED = timedelta(minutes=5)

# What would go: a kind of thing, the step that it belongs to, its bytes.
_Amount = tuple[str, str, int]


@flow(name="maintain", flow_run_name="sweep what is older than {days} days", persist_result=False)
def sweep(days: int = 7, unreferenced: bool = False, dry_run: bool = False) -> int:
    """Say what of the store can go, then remove it: debris and, on request, objects that no run refers to.

    Debris are parts without a manifest, old checkpoints, claims and plans, and writes that broke off. A plan goes as a
    whole, once nothing of it was changed for so long. Before anything is removed, the log and an artifact say what will
    be, with counts and bytes by step.

    Args:
        days: only what was last changed longer ago is removed; what a running step writes is younger.
        unreferenced: also remove finished objects to which neither a run's index nor a younger object refers, directly
            or through others. Refused while flow runs are at work, as they may be reading what they found. Only those
            of this Prefect server are seen: with several servers on one store, leave it off.
        dry_run: only say what would be removed.

    Returns:
        How many keys were removed.

    Raises:
        TelltaleError: `unreferenced` while flow runs are at work.
    """
    store = open_store()
    began = datetime.now(UTC)
    moment = began.timestamp() - days * DAY_S
    if unreferenced and not dry_run:
        _refuse_beside_runs(began)
    debris = find_debris(store, moment)
    claims = find_old_claims(store, moment)
    plans = find_old_plans(store, moment)
    unfinished = find_unfinished_writes(store, moment)
    objects = find_unreferenced(store, moment) if unreferenced else []
    amounts: list[_Amount] = [("debris", step_of(listed.key), listed.bytes) for listed in debris]
    amounts += [("claim", step_of(listed.key), listed.bytes) for listed in claims]
    amounts += [("plan", step_of(plan.place), plan.bytes) for plan in plans]
    amounts += [("broken-off write", step_of(name), size) for name, size in unfinished]
    amounts += [("unreferenced object", found.step, found.bytes) for found in objects]
    keys = [
        *(listed.key for listed in (*debris, *claims)),
        *(plan.place for plan in plans),
        *(name for name, _ in unfinished),
        *(found.uri for found in objects),
    ]
    where = f"{store.url}, last changed over {days} days ago"
    _show(f"{'Would be' if dry_run else 'To be'} removed from {where}", amounts, keys)
    if dry_run:
        return 0

    removed = remove(store, (*debris, *claims), moment) + remove_old_plans(store, plans, moment)
    removed += remove_unfinished_writes(store, [name for name, _ in unfinished])
    stopped: Sequence[str] = ()
    if objects:
        gone, stopped = remove_unreferenced(store, objects, lambda: runs_at_work(began))
        removed += gone
    heading = f"Removed {removed.keys:,} keys, {removed.bytes:,} bytes"
    if stopped:
        heading += ", and stopped before the other unreferenced objects: these runs began"
    _show(f"{heading}. Found before in {where}", amounts, [*stopped, *keys])
    return removed.keys


def _refuse_beside_runs(since: datetime) -> None:
    busy = runs_at_work(since)
    if busy:
        raise TelltaleError(
            f"unreferenced objects are not removed beside flow runs that may be reading them: {', '.join(busy)}; "
            f"sweep again {JUST_ENDED.seconds // 60} minutes after they have ended, or cancel those that died"
        )


def runs_at_work(since: datetime) -> list[str]:
    """Names of flow runs that are at work, or ended after `since` (or just before); maintenance does not count.

    A run that waits for its start or for a retry does not count: it looks everything up when it begins.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterEndTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    busy = [StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING]
    at_work = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=busy)))
    ended = FlowRunFilter(end_time=FlowRunFilterEndTime.model_validate({"after_": since - JUST_ENDED}))
    with get_client(sync_client=True) as client:
        ours = {each.id for each in client.read_flows(flow_filter=FlowFilter(name=FlowFilterName(any_=[MAINTENANCE])))}
        runs = [run for chosen in (at_work, ended) for run in client.read_flow_runs(flow_run_filter=chosen)]
    return sorted({f"{run.name} ({run.id})" for run in runs if run.flow_id not in ours})


def _show(heading: str, amounts: Sequence[_Amount], lines: Sequence[str]) -> None:
    """Say what a sweep found in the log and in the artifact `sweep`; names are shown as they are, not as Markdown."""
    counts: Counter[tuple[str, str]] = Counter((kind, step) for kind, step, _ in amounts)
    sizes: Counter[tuple[str, str]] = Counter()
    for kind, step, size in amounts:
        sizes[kind, step] += size
    logger = get_run_logger()
    logger.info("%s: %d things, %d bytes", heading, len(amounts), sum(sizes.values()))
    rows = ["| what | step | count | bytes |", "|---|---|---:|---:|"]
    for kind, step in sorted(counts):
        logger.info("%s of %s: %d, %d bytes", kind, step, counts[kind, step], sizes[kind, step])
        rows.append(f"| {kind} | `{_plain(step)}` | {counts[kind, step]:,} | {sizes[kind, step]:,} |")
    listed = [_plain(line) for line in lines[:LISTED]]
    if len(lines) > LISTED:
        listed.append(f"and {len(lines) - LISTED} more")
    markdown = "\n".join([f"{_plain(heading)}.", "", *rows, "", "```text", *listed, "```"])
    show_markdown("sweep", markdown, "what the sweep found and removed")


def _plain(text: str) -> str:
    """A text on one line that ends no code span and no table cell."""
    return " ".join(text.split()).replace("`", "'").replace("|", "/")


@flow(name="maintain", flow_run_name="recover runs that died", persist_result=False)
def recover(silence_s: float | None = None, watch_s: float | None = None, pending_minutes: float = 10) -> int:
    """Put runs back into their queues that died with their process, worker or host.

    Of the runs of deployments on our pools it puts back what is RUNNING without a heartbeat for three periods, what was
    claimed by a worker and did not start, and what crashed; at most `recovery.ATTEMPTS` starts each. Lanes that died
    become Crashed, as others go on with what they were at; living ones of a run that has ended are cancelled. A run
    that was being cancelled becomes Cancelled.

    Args:
        silence_s: seconds without a heartbeat after which a run is dead; three periods of its pool where not given.
        watch_s: seconds for which the server must have answered all the while before anything is put back for its
            silence; two periods where not given.
        pending_minutes: how long a run may be about to start, downloads of images on a cluster included.

    Returns:
        How many runs got another state.

    Raises:
        MissingInput: `PREFECT_FLOWS_HEARTBEAT_FREQUENCY` is not set.
        NoHeartbeats: this run's own heartbeat does not arrive, so that the silence of others says nothing.
    """
    from prefect.client.orchestration import get_client

    period = recovery.heartbeat_period()
    wait = recovery.WATCHED_PERIODS * period if watch_s is None else timedelta(seconds=watch_s)
    own = own_run()
    assert own is not None
    logger = get_run_logger()
    done: list[tuple[FlowRun, recovery.Remedy]] = []
    with get_client(sync_client=True) as client:
        silences = _silences(client, silence_s)
        pending = timedelta(minutes=pending_minutes)
        if any(recovery.is_silent(run) for run, _ in recovery.dead_runs(client, silences, pending, own)):
            recovery.await_own_heartbeat(client, own.id)
            recovery.watch(client, wait)
        for run, remedy in recovery.dead_runs(client, silences, pending, own):
            if recovery.apply(client, run, remedy):
                logger.warning("%s (%s) is now %s: %s", run.name, run.id, remedy.state, remedy.reason)
                done.append((run, remedy))
    logger.info("%d runs had died", len(done))
    if done:
        _show_recovered(done)
    return len(done)


def _silences(client: "SyncPrefectClient", silence_s: float | None) -> dict[str, timedelta | None]:
    """After how long without a heartbeat a run of each pool is dead; None, with a warning, where nobody knows."""
    silences: dict[str, timedelta | None] = {}
    for pool, period in recovery.periods(client, POOLS).items():
        if silence_s is not None:
            silences[pool] = timedelta(seconds=silence_s)
        elif period is not None:
            silences[pool] = recovery.SILENT_PERIODS * period
        else:
            silences[pool] = None
            get_run_logger().warning(
                "the template of work pool %s does not set %s, so that its dead runs cannot be told from slow ones",
                pool,
                recovery.HEARTBEAT_SETTING,
            )
    return silences


def _show_recovered(done: "Sequence[tuple[FlowRun, recovery.Remedy]]") -> None:
    """The artifact `recovered`: each run that got another state, and why."""
    rows = ["| run | id | pool | now | reason |", "|---|---|---|---|---|"]
    rows += [
        f"| `{_plain(run.name)}` | `{run.id}` | {run.work_pool_name} | {remedy.state} | `{_plain(remedy.reason)}` |"
        for run, remedy in done
    ]
    show_markdown("recovered", "\n".join(rows), "runs that had died, and what became of them")
