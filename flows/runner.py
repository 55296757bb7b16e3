"""The task runner of every flow, and when a flow's process leaves its run to another: a lost GPU, a newer attempt."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
from prefect.task_runners import ThreadPoolTaskRunner

from flows.recovery import ATTEMPTS, PAUSE, PUT_BACK
from storage.store import known_store
from tasks.device import DeviceLost
from tasks.threads import parallel_tasks

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

logger = logging.getLogger(__name__)


def tasks_side_by_side() -> Any:
    """Threads for as many tasks at once as this process may compute with: torch and NumPy release the interpreter."""
    return ThreadPoolTaskRunner(max_workers=parallel_tasks())


@contextmanager
def attempt() -> Iterator[None]:
    """Around the body of every flow: leaves its run to the attempt that goes on with it, or asks for one.

    What follows on others' work waits for a store that is away: it has answered to them, so its address is right.
    """
    store = known_store() if _follows() else nullcontext()
    with yield_to_newer_attempt(), put_back_if_device_lost(), store:
        yield


def own_run() -> "FlowRun | None":
    """The flow run that this is part of, as it was when its process began; None outside of one."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return context.flow_run if context is not None else None


def leave(client: "SyncPrefectClient", run: "FlowRun", message: str) -> None:
    """Put a run of this process back into its queue: it is in no final state, and another process takes it on."""
    from prefect.client.schemas import State
    from prefect.states import AwaitingRetry

    again: State[Any] = AwaitingRetry(scheduled_time=datetime.now(UTC) + PAUSE, message=message)
    client.set_flow_run_state(run.id, again)


def _follows() -> bool:
    """Whether this run has a parent, which has found the store, or was started before."""
    run = own_run()
    return run is not None and (run.parent_task_run_id is not None or run.run_count > 1)


@contextmanager
def put_back_if_device_lost() -> Iterator[None]:
    """Within a flow that a worker runs: when its device is lost the run goes back into its queue, as it is.

    Retrying the task would be in vain, as a process that has seen a driver's error computes nothing on a GPU any more.
    A new process of this or another worker finds the finished shards, and the pieces of the one that failed. The run
    is in no final state meanwhile, so that whoever waits for it goes on waiting.

    Raises:
        DeviceLost: the last of `ATTEMPTS` failed, too, or no worker runs this flow.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Abort

    try:
        yield
    except DeviceLost as error:
        mine = own_run()
        if mine is None or mine.deployment_id is None:
            raise
        with get_client(sync_client=True) as client:
            run = client.read_flow_run(mine.id)
            if run.run_count >= ATTEMPTS:
                raise
            leave(client, run, f"{PUT_BACK}{error}")
        logger.warning("attempt %d of %d lost its device, the run is put back: %s", run.run_count, ATTEMPTS, error)
        # Ends this process without a state of its own: the worker sees that it ended as it should.
        raise Abort("the run was put back into its queue") from error


@contextmanager
def yield_to_newer_attempt() -> Iterator[None]:
    """Within a flow that a worker runs: how this attempt fails does not matter once another one has taken over.

    A host that was cut off comes back, and its runs have been put back meanwhile (`flows.recovery`). Prefect ends them,
    as their slots are gone, or they fail, as they could not reach the store; to report that would end the run that
    another worker goes on with. What this attempt finished lies in the store in any case.
    """
    from prefect.exceptions import Abort

    try:
        yield
    except Abort:
        raise
    except BaseException as error:
        mine = own_run()
        if mine is None or mine.deployment_id is None:
            raise
        if not was_taken_over(mine):
            raise
        logger.warning("attempt %d is over, another one has taken its run over", mine.run_count)
        # Ends this process without a state of its own, as above.
        raise Abort("another attempt of this run has taken over") from error


def was_taken_over(mine: Any) -> bool:
    """Whether a run has been put back or started anew since this process read it; no, where the server is away."""
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            run = client.read_flow_run(mine.id)
    except httpx.HTTPError:
        return False
    waits = run.state is not None and (run.state.is_scheduled() or run.state.is_pending())
    return waits or run.run_count > mine.run_count
