"""Runs a stage inline or as a deployment on its pool, and never reports more than was finished."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import UUID, uuid4

import httpx

from flows.recovery import ATTEMPTS, attempts, put_back
from storage.errors import ChildRunFailed
from tasks.recipe import NotFinished, only_finished

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

T = TypeVar("T")

Dispatch = Literal["inline", "pools"]

logger = logging.getLogger(__name__)

POLL_S = 1.0
# How long the Prefect server may be away, as while it is restarted or moved, before its absence is a failure.
AWAY_S = 900.0
AWAY_POLL_S = 5.0


@dataclass(frozen=True)
class Child:
    """A run of a deployment: its deployment's name, its parameters, and what the UI calls it."""

    deployment: str
    parameters: dict[str, Any]
    run_name: str

    @property
    def queue(self) -> str | None:
        """Work that a person waits for goes before what a schedule started; None: the deployment's own queue."""
        from prefect.context import FlowRunContext

        context = FlowRunContext.get()
        scheduled = context is None or context.flow_run is None or context.flow_run.auto_scheduled
        return "interactive" if self.deployment.startswith("generate/") and not scheduled else None


def run_stage(dispatch: Dispatch, compute: Callable[[], T], children: Callable[[], Sequence[Child]]) -> T:
    """Return what `compute` returns: refs of finished objects.

    Inline, `compute` runs its tasks in the current flow. On pools, its children make what is missing first, and
    `compute` then only finds: the manifests, not the children's return values, are the truth.
    """
    if dispatch == "pools":
        try:
            with only_finished():
                compute()
        except NotFinished:
            run_children(children())
    return compute()


def run_children(children: Sequence[Child]) -> None:
    """Start all children on their pools, wait for all, and raise unless every one completed.

    A child that crashes, as its process or worker died, is put back into its queue; after the last of `ATTEMPTS` it
    counts as failed. When the parent is cancelled or fails while waiting, children that still run are cancelled.

    Raises:
        ChildRunFailed: names every child that ended otherwise, with its state's message.
    """
    from prefect.client.orchestration import get_client

    running: dict[UUID, Child] = {}
    failed: list[str] = []
    with get_client(sync_client=True) as client:
        try:
            for child in children:
                running[_start(child)] = child
            while running:
                for run_id in list(running):
                    run = while_away(partial(client.read_flow_run, run_id))
                    state = run.state
                    if state is None or not state.is_final():
                        continue
                    if state.is_crashed() and while_away(partial(_goes_on, client, run)):
                        continue
                    child = running.pop(run_id)
                    if not state.is_completed():
                        failed.append(f"{child.run_name} ({child.deployment}): {state.name}: {state.message}")
                if running:
                    time.sleep(POLL_S)
        except BaseException:
            _cancel(list(running))
            raise
    if failed:
        raise ChildRunFailed(f"{len(failed)} of {len(children)} child runs did not complete: " + "; ".join(failed))


def while_away(ask: Callable[[], T]) -> T:
    """What the server answers; it is asked again for `AWAY_S` while it is away or broken.

    Prefect's client asks again by itself, with growing pauses, but gives up at once where it never had an answer.
    """
    since: float | None = None
    while True:
        try:
            return ask()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                raise
            since = time.monotonic() if since is None else since
            if time.monotonic() - since > AWAY_S:
                raise
            logger.warning("the Prefect server does not answer, it is asked again: %s", error)
            time.sleep(AWAY_POLL_S)


def _start(child: Child) -> UUID:
    from prefect.deployments import run_deployment

    # With a key of its own, a child whose start was only not confirmed is not started twice.
    key = str(uuid4())
    # No waiting here (timeout 0): Prefect's own waiting neither raises nor cancels.
    run = while_away(
        lambda: run_deployment(
            name=child.deployment,
            parameters=child.parameters,
            flow_run_name=child.run_name,
            work_queue_name=child.queue,
            timeout=0,
            idempotency_key=key,
        )
    )
    return run.id  # type: ignore[union-attr]


def _goes_on(client: "SyncPrefectClient", run: "FlowRun") -> bool:
    """Whether a crashed child was put back, or somebody else has given it another state meanwhile."""
    if attempts(client, run) >= ATTEMPTS:
        return False
    assert run.state is not None
    if put_back(client, run, f"its parent saw it crash: {run.state.message}"):
        logger.warning("%s crashed and is put back: %s", run.name, run.state.message)
    return True


def _cancel(run_ids: Sequence[UUID]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    try:
        with get_client(sync_client=True) as client:
            for run_id in run_ids:
                client.set_flow_run_state(run_id, Cancelling(message="the parent run was cancelled or failed"))
    except httpx.HTTPError as error:
        # Why the parent ends matters more; what its children finish is found later.
        logger.warning("children may go on running, as the Prefect server does not answer: %s", error)
