"""Runs a stage inline or as a deployment on its pool, and never reports more than was finished."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import UUID

from storage.errors import ChildRunFailed
from tasks.recipe import NotFinished, only_finished

T = TypeVar("T")

Dispatch = Literal["inline", "pools"]

POLL_S = 1.0


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

    When the parent is cancelled or fails while waiting, children that still run are cancelled.

    Raises:
        ChildRunFailed: names every child that ended otherwise, with its state's message.
    """
    from prefect.client.orchestration import get_client
    from prefect.deployments import run_deployment

    running: dict[UUID, Child] = {}
    failed: list[str] = []
    with get_client(sync_client=True) as client:
        try:
            for child in children:
                # No waiting here (timeout 0): Prefect's own waiting neither raises nor cancels.
                run = run_deployment(
                    name=child.deployment,
                    parameters=child.parameters,
                    flow_run_name=child.run_name,
                    work_queue_name=child.queue,
                    timeout=0,
                )
                running[run.id] = child  # type: ignore[union-attr]
            while running:
                for run_id in list(running):
                    state = client.read_flow_run(run_id).state
                    if state is not None and state.is_final():
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


def _cancel(run_ids: Sequence[UUID]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    with get_client(sync_client=True) as client:
        for run_id in run_ids:
            client.set_flow_run_state(run_id, Cancelling(message="the parent run was cancelled or failed"))
