"""Lanes: the one deployment per pool by which every plan's elements are made."""

import importlib.metadata
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from prefect import flow

from flows import preflight  # noqa: F401 - its facts are asked here
from flows.runner import attempt, leave, own_run, tasks_side_by_side, was_taken_over
from storage.digest import digest_of
from storage.opening import open_store
from storage.plans import PlanFolder
from storage.store import Store, known_store
from tasks.device import compute_device, hourly_price
from tasks.elements import import_steps
from tasks.facts import library_version
from tasks.kept_networks import networks_kept
from tasks.lanes import CannotOffer, Compute, Hung, Lane, Offer
from tasks.recipe import RETRIES, STEPS, Pool, Step, may_pass
from tasks.threads import parallel_tasks

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

logger = logging.getLogger(__name__)

End = Literal["Completed", "Crashed", "Cancelled"]

# A run that has waited for so long in a queue of higher priority finds no free worker.
URGENT_AFTER_S = 10
# How long the server may take for what a lane can do without.
ANSWERED_WITHIN_S = 10


@flow(name="work", task_runner=tasks_side_by_side(), persist_result=False)
def work(plan: str, pool: Pool, index: int) -> int:
    """Make elements of a plan until there are none: evaluations that run on pools start as many as find a place.

    Args:
        plan: the plan's name in the store, below `plans/`.
        pool: whose elements it makes.
        index: the lane's number, from 0.

    Returns:
        How many objects it made.
    """
    with attempt(), known_store(), _put_back_if_refused(), _ended_at_once(), networks_kept():
        store = open_store()
        folder = PlanFolder(store, plan)
        title = str(folder.header()["title"])
        device = compute_device() if pool == "gpu" else "cpu"
        lane = Lane(
            folder,
            pool,
            lane_name(index, own_run()),
            index,
            offer(device),
            made_by_tasks(store),
            slots=parallel_tasks() if device == "cpu" else 1,
            yields=_somebody_urgent_waits,
            tell=lambda step: _rename(f"{step} {title} · {pool} lane {index + 1}"),
        )
        lane.run()
        if lane.is_busy:
            over = folder.ended() or {"state": "completed"}
            how: End = "Cancelled" if over["state"] == "cancelled" else "Completed"
            _end_process(how, f"the plan was {over['state']} while the lane was at work for it")
        elif (run := _deployed()) is not None:
            _conclude(run, "Completed", None)
        return lane.computed


def offer(device: str) -> Offer:
    """What this process brings to a plan."""
    import_steps()
    libraries = {library for step in STEPS.values() for library in step.libraries}
    return Offer(
        worker=os.environ.get("PREFECT__WORKER_NAME") or f"process {os.getpid()} on {socket.gethostname()}",
        device=device,
        versions={library: _installed(library) for library in sorted(libraries)},
        telltale=telltale_version(),
        price=hourly_price(device),
    )


def telltale_version() -> str:
    """The package's version, and a digest of all steps' versions, by which two checkouts of it are told apart."""
    import_steps()
    steps = digest_of({name: step.version for name, step in STEPS.items()})
    return f"{importlib.metadata.version('telltale')}+{steps[:8]}"


def _installed(library: str) -> str | None:
    try:
        return library_version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def made_by_tasks(store: Store) -> Compute:
    """Make calls as task runs of this flow where they are shown, else plainly; what may pass is tried again."""

    def compute(step: Step, arguments: Mapping[str, Any], shown: bool) -> Any:
        if shown:
            return step.task(arguments).submit(arguments).result()
        return patiently(lambda: step.compute(store, **arguments)[0])

    return compute


def patiently(make: Callable[[], Any], sleep: Callable[[float], None] = time.sleep) -> Any:
    """What `make` returns; tried again as a Prefect task is when the store or the network fails."""
    for tries in range(RETRIES + 1):
        try:
            return make()
        except Exception as error:
            if tries == RETRIES or not may_pass(error):
                raise
            logger.warning("tried again: %s: %s", type(error).__name__, error)
            sleep(2.0**tries)
    raise AssertionError("unreachable")


def lane_name(index: int, run: "FlowRun | None") -> str:
    """The name of a lane in its plan: another attempt of its run is another one."""
    return f"{index:04d}-{run.id}-{run.run_count}" if run else f"{index:04d}-{socket.gethostname()}-{os.getpid()}"


@contextmanager
def asked_once() -> Iterator[None]:
    """Within this block the server is asked once, not for minutes: a lane can do without the answer, and must beat."""
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: ANSWERED_WITHIN_S}):
        yield


def _rename(name: str) -> bool:
    """Say in the UI what the lane is at; whether the server knows."""
    import httpx
    from prefect.client.orchestration import get_client

    run = own_run()
    if run is not None:
        try:
            with asked_once(), get_client(sync_client=True) as client:
                client.update_flow_run(run.id, name=name)
        except httpx.HTTPError:
            return False
    return True


@contextmanager
def _put_back_if_refused() -> Iterator[None]:
    """A worker that cannot offer what the plan needs puts the lane back, for another one."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Abort

    try:
        yield
    except CannotOffer as error:
        run = _deployed()
        if run is None:
            raise
        with get_client(sync_client=True) as client:
            leave(client, run, f"refused: {error}")
        raise Abort("the lane is left to another worker") from error


@contextmanager
def _ended_at_once() -> Iterator[None]:
    """What a lane is at when it hangs or is told to end is left to others: its process does not wait for it."""
    from prefect.exceptions import TerminationSignal

    try:
        yield
    except (Hung, TerminationSignal) as error:
        _end_process("Crashed", str(error) or "its process was told to end")
        raise


def _end_process(how: End, message: str) -> None:
    """End this process, if it is a worker's, and say how: threads that compute cannot be ended but with it."""
    run = _deployed()
    if run is not None:
        # The process around this one says Crashed of one that ends with an error, unless the server knows an end.
        os._exit(0 if _conclude(run, how, message) else 1)


def _deployed() -> "FlowRun | None":
    """This process's flow run, where a worker started it."""
    run = own_run()
    return None if run is None or run.deployment_id is None else run


def _conclude(run: "FlowRun", how: End, message: str | None) -> bool:
    """Tell the server how a lane ended; whether it knows.

    A run that is being cancelled can but become Cancelled: while nobody says so, Prefect waits for its process, which
    is no more, for minutes. One that another attempt has taken over stays as it is.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import State
    from prefect.client.schemas.responses import SetStateStatus
    from prefect.states import Cancelled, Completed, Crashed

    ends = {"Completed": Completed, "Crashed": Crashed, "Cancelled": Cancelled}
    state: State[Any] = ends[how](message=message)
    try:
        with asked_once(), get_client(sync_client=True) as client:
            if was_taken_over(run):
                return True
            answer = client.set_flow_run_state(run.id, state)
            if answer.status == SetStateStatus.ACCEPT:
                return True
            now = client.read_flow_run(run.id).state
            if now is not None and now.is_cancelling():
                cancelled: State[Any] = Cancelled(message=message)
                return client.set_flow_run_state(run.id, cancelled).status == SetStateStatus.ACCEPT
            return now is not None and now.is_final()
    except httpx.HTTPError:
        logger.warning("the server is not told that this lane has ended", exc_info=True)
        return False


def _somebody_urgent_waits() -> bool:
    """Whether a run waits in a queue of this lane's pool that goes before the lane's own."""
    import httpx
    from prefect.client.orchestration import get_client

    run = own_run()
    if run is None or run.work_pool_name is None:
        return False
    try:
        with asked_once(), get_client(sync_client=True) as client:
            return _waits_before(client, run)
    except httpx.HTTPError:
        return False


def _waits_before(client: "SyncPrefectClient", run: "FlowRun") -> bool:
    from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter, WorkQueueFilter

    queues = client.read_work_queues(work_pool_name=run.work_pool_name)
    own = next((queue.priority for queue in queues if queue.name == run.work_queue_name), None)
    before = [queue.name for queue in queues if own is not None and queue.priority < own]
    if not before:
        return False
    late = datetime.now(UTC) - timedelta(seconds=URGENT_AFTER_S)
    waiting = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(
            {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": late.isoformat()}}
        ),
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [run.work_pool_name]}}),
        work_queue_filter=WorkQueueFilter.model_validate({"name": {"any_": before}}),
        limit=1,
    )
    return bool(waiting)
