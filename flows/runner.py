"""The task runner of every flow, and what a flow does when the GPU that it runs on fails."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from tasks.device import DeviceLost
from tasks.threads import parallel_tasks

logger = logging.getLogger(__name__)

ATTEMPTS = 4
# Long enough for another worker of the pool to be the first to ask.
PAUSE = timedelta(seconds=30)


def tasks_side_by_side() -> Any:
    """Threads for as many tasks at once as this process may compute with: torch and NumPy release the interpreter."""
    return ThreadPoolTaskRunner(max_workers=parallel_tasks())


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
    from prefect.context import FlowRunContext
    from prefect.exceptions import Abort
    from prefect.states import AwaitingRetry, State

    try:
        yield
    except DeviceLost as error:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None or context.flow_run.deployment_id is None:
            raise
        with get_client(sync_client=True) as client:
            run = client.read_flow_run(context.flow_run.id)
            if run.run_count >= ATTEMPTS:
                raise
            again: State[Any] = AwaitingRetry(scheduled_time=datetime.now(UTC) + PAUSE, message=f"put back: {error}")
            client.set_flow_run_state(run.id, again)
        logger.warning("attempt %d of %d lost its device, the run is put back: %s", run.run_count, ATTEMPTS, error)
        # Ends this process without a state of its own: the worker sees that it ended as it should.
        raise Abort("the run was put back into its queue") from error
