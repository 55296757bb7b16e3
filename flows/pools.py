"""An evaluation on pools: this run coordinates, lanes on the cpu and gpu pools make what is missing."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import httpx

from flows.coordinator import Coordinator, LaneState
from flows.names import Request
from flows.overview import Lane, Line, Overview, Problem, Shown
from flows.preflight import online_workers
from flows.runner import own_run, was_taken_over
from flows.work import asked_once, lane_name, telltale_version
from storage.claims import ENDED, SILENCE_S
from storage.errors import PlanFailed
from storage.opening import open_store
from storage.plans import PlanFolder
from tasks.recipe import Pool

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

T = TypeVar("T")

logger = logging.getLogger(__name__)

MOST_LANES = 200
PAGE = 200
WATCH_S = 10.0
# So many lanes in a row that end in an error and have made nothing say that the next would, too.
VAIN_LANES = 6
# How a lane's end reads whose process was told to end, as when its worker is stopped: by itself, and by its worker.
TOLD_TO_END = ("told to end", "status code: -15")
# How long a lane that a worker has taken counts as one that waits; then others are started.
CLAIMED_FOR = timedelta(minutes=1)


def computed_on_pools(
    request: Request,
    experiment: str,
    compute: Callable[[], T],
    pools: Sequence[Pool],
) -> T:
    """Have lanes make what is missing of an evaluation, and return what its code returns.

    Raises:
        MissingInput: what the pools' workers lack.
        PlanFailed: it cannot be finished.
    """
    title = f"{request.flow} {experiment}"
    folder = _folder(request, title)
    lanes = Lanes(folder, title)
    coordinator = Coordinator(folder, compute, pools, lanes, watch=lambda _: overview.refresh())
    lanes.heard = coordinator.lanes
    overview = Overview(experiment, request.title, lambda: shown(coordinator, time.monotonic()), period=WATCH_S)
    try:
        with overview:
            result = coordinator.run()
    except BaseException as error:
        if _nobody_goes_on(error):
            folder.end("failed" if isinstance(error, Exception) else "cancelled", f"{type(error).__name__}: {error}")
            lanes.end("the run that they worked for has ended")
        raise
    folder.end("completed")
    lanes.end("there is nothing left to do")
    return result


def shown(coordinator: Coordinator[Any], now: float) -> Shown:
    """What people see of a plan: its steps, its lanes, and what failed."""
    plan = coordinator.plan
    at_work = Counter(
        (work["step"], state.status["pool"])
        for state in coordinator.lanes.values()
        if state.is_alive(now)
        for work in state.status["work"]
    )
    failed = Counter(failure.document["step"] for failure in coordinator.failures)
    lines = []
    for step, pool in plan.total:
        times = coordinator.steps.get((step, pool))
        last = now if times is None or at_work[step, pool] or times.ended is None else times.ended
        lines.append(
            Line(
                step=step,
                pool=pool,
                done=plan.done[step, pool],
                total=plan.total[step, pool],
                seconds=0.0 if times is None else times.seconds,
                failed=failed[step],
                at_work=at_work[step, pool],
                elapsed=0.0 if times is None else last - times.began,
            )
        )
    prices = [state.status["price"] for state in coordinator.lanes.values() if state.status["price"] is not None]
    return Shown(
        lines=lines,
        lanes=[_lane(state, now) for _, state in sorted(coordinator.lanes.items())],
        problems=[
            Problem(failure.element, f"{failure.error}: {failure.message}", lane=f"{failure.worker} on {failure.host}")
            for failure in coordinator.failures
        ],
        tasks=[*coordinator.hindrances.values(), *coordinator.waiting],
        gpu_price=max(prices, default=None),
    )


def _lane(state: LaneState, now: float) -> Lane:
    status = state.status
    work = status["work"][0] if status["work"] else None
    silent = 0.0 if status["state"] in ENDED else now - state.heard
    return Lane(
        name=f"{status['pool']} lane {status['index'] + 1}",
        worker=status["worker"],
        host=status["host"],
        device=status["device"],
        state="silent" if silent >= SILENCE_S else status["state"],
        at=work["name"] if work else "",
        done=work["done"] if work else 0,
        total=work["total"] if work else 0,
        silent=silent,
        refusal=status["reason"] if status["state"] == "refused" else "",
    )


def _folder(request: Request, title: str) -> PlanFolder:
    """The plan of this run: the one that an earlier attempt of it left unfinished, or the next."""
    mine = own_run()
    run = str(uuid4() if mine is None else mine.id)
    asked = {"title": title, "request": asdict(request), "telltale": telltale_version()}
    store = open_store()
    number = 0
    while True:
        folder = PlanFolder(store, f"{run}-{number}")
        if folder.ended() is None:
            found = folder.begin(asked)
            if all(found.get(name) == value for name, value in asked.items()):
                return folder
            folder.end("superseded", "the run was started anew by another version of telltale")
        number += 1


def _nobody_goes_on(error: BaseException) -> bool:
    """Whether a run that breaks off ends its plan: no attempt after this one goes on with it.

    It does where the run fails or is cancelled. Where its process is told to end, or has lost the place that it had,
    the run is put back, and where it was put back before, because its host was cut off, another attempt is at work.
    """
    from prefect.client.orchestration import get_client

    run = own_run()
    if run is None or run.deployment_id is None:
        return True
    if was_taken_over(run):
        return False
    if isinstance(error, Exception):
        return True
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
    return state is None or state.is_cancelling() or state.is_cancelled()


class Lanes:
    """Runs of `work/cpu` and `work/gpu` for one plan, as `flows.coordinator.Recruiter`.

    Nobody tells how many places a pool has. So one lane more than find a place waits in the pool's queue: a worker that
    joins takes it at once, and while none waits, as many again are started as are at work.
    """

    def __init__(self, folder: PlanFolder, title: str) -> None:
        self._folder = folder
        self._plan = folder.plan
        self._title = title
        self._recruited: dict[Pool, int] = {}
        # What lanes say of themselves, by their names: Prefect learns late that a host has died.
        self.heard: Mapping[str, LaneState] = {}

    def recruited(self, pool: Pool) -> int:
        """How many lanes a pool has had so far."""
        return self._recruited.get(pool, 0)

    def tend(self, wanted: Mapping[Pool, int]) -> dict[Pool, str]:
        """Start lanes where there is more to do than lanes do, and none waits for a place.

        Returns:
            Why nobody works on a pool, for those that have no worker.

        Raises:
            PlanFailed: a pool's lanes end again and again before they have made anything.
        """
        hindrances: dict[Pool, str] = {}
        try:
            # What is not answered now is asked at the next turn: lanes wait for this one's other work.
            with asked_once():
                runs = self._runs()
                for pool, most in wanted.items():
                    own = [run for run in runs if run.parameters.get("pool") == pool]
                    for run in own:
                        self._end_if_dead(run)
                    self._recruited[pool] = max(
                        self.recruited(pool), 1 + max((run.parameters["index"] for run in own), default=-1)
                    )
                    at_work = sum(self._is_at_work(run) for run in own)
                    waits = any(_waits(run) for run in own)
                    if most and not at_work:
                        self._refuse_to_repeat(pool, own)
                        if not self._online(pool):
                            start = f"start one with `prefect worker start --pool {pool}`"
                            hindrances[pool] = f"no worker of the pool {pool} is online: {start}"
                    if most > at_work and not waits:
                        online = 0 if own else len(self._online(pool))
                        count = min(most - at_work, max(1, at_work, online), MOST_LANES - at_work)
                        for _ in range(count):
                            self._start(pool)
        except httpx.HTTPError as error:
            logger.warning("no lanes were started, as the Prefect server does not answer: %s", error)
        return hindrances

    def _refuse_to_repeat(self, pool: Pool, runs: "Sequence[FlowRun]") -> None:
        over = [run for run in runs if run.state is not None and run.state.is_final()]
        last = sorted(over, key=lambda run: int(run.parameters["index"]))[-VAIN_LANES:]
        if len(last) < VAIN_LANES or not all(self._was_in_vain(run) for run in last):
            return
        said = last[-1].state.message if last[-1].state is not None else None
        raise PlanFailed(
            f"the last {VAIN_LANES} lanes of the pool {pool} ended and had made nothing; the last said: {said}"
        )

    def _was_in_vain(self, run: "FlowRun") -> bool:
        if run.state is None or not (run.state.is_failed() or run.state.is_crashed()):
            return False
        if any(sign in (run.state.message or "") for sign in TOLD_TO_END):
            return False
        known = self.heard.get(_name(run))
        return known is None or known.status["computed"] == 0

    def _is_at_work(self, run: "FlowRun") -> bool:
        if run.state is None or not run.state.is_running():
            return False
        known = self.heard.get(_name(run))
        return known is None or known.is_alive(time.monotonic())

    def _end_if_dead(self, run: "FlowRun") -> None:
        """Say of a lane that Prefect knows to be over, and that did not say so itself, that it is: its claims are free.

        Otherwise others take them over only after its silence. One that lives after all says so at its next beat.
        """
        known = self.heard.get(_name(run))
        if run.state is None or not run.state.is_final() or known is None or not known.is_alive(time.monotonic()):
            return
        status = self._folder.status(_name(run))
        if status is not None and status["state"] not in ENDED:
            reason = f"its run is {run.state.name}"
            self._folder.write_status(_name(run), {**status, "state": "ended", "reason": reason})

    def without_hope(self, pool: Pool, refused: Mapping[str, str]) -> str | None:
        """Why no lane can work on a pool: every worker that is online has refused."""
        try:
            online = self._online(pool)
        except httpx.HTTPError:
            return None
        if not online or not online <= set(refused):
            return None
        return f"no worker of the pool {pool} can do this work: {'; '.join(sorted(refused.values()))}"

    def end(self, reason: str) -> None:
        """End the lanes that wait, of which those that never began leave no trace. Those at work see the plan's end.

        They end within a beat; were their runs told as well, which is meant for runs whose processes Prefect has to
        kill, one that ends at that moment by itself would be waited for.
        """
        from prefect.client.orchestration import get_client
        from prefect.states import Cancelled

        try:
            with get_client(sync_client=True) as client:
                for run in self._runs():
                    if run.state is None or not (run.state.is_scheduled() or run.state.is_pending()):
                        continue
                    if run.state.is_scheduled() and not run.run_count:
                        client.delete_flow_run(run.id)
                    else:
                        client.set_flow_run_state(run.id, Cancelled(message=reason))
        except httpx.HTTPError as error:
            # They find out by the plan's end in the store.
            logger.warning("lanes may go on for a while, as the Prefect server does not answer: %s", error)

    @property
    def _tag(self) -> str:
        return f"plan {self._plan}"

    def _runs(self) -> "list[FlowRun]":
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowRunFilter

        chosen = FlowRunFilter.model_validate({"tags": {"all_": [self._tag]}})
        found: list[FlowRun] = []
        with get_client(sync_client=True) as client:
            while page := client.read_flow_runs(flow_run_filter=chosen, limit=PAGE, offset=len(found)):
                found += page
        return found

    def _start(self, pool: Pool) -> None:
        from prefect.deployments import run_deployment

        index = self.recruited(pool)
        run_deployment(
            name=f"work/{pool}",
            parameters={"plan": self._plan, "pool": pool, "index": index},
            flow_run_name=f"{self._title} · {pool} lane {index + 1}",
            work_queue_name=_queue(pool),
            timeout=0,
            tags=[self._tag],
            # A lane whose start was only not confirmed is not started twice.
            idempotency_key=f"{self._plan} {pool} {index}",
        )
        self._recruited[pool] = index + 1

    def _online(self, pool: Pool) -> set[str]:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            return online_workers(client, pool)


def _name(run: "FlowRun") -> str:
    return lane_name(run.parameters["index"], run)


def _waits(run: "FlowRun") -> bool:
    """Whether a lane will soon be at work; not where a worker took it long ago and may have died since."""
    if run.state is None:
        return False
    claimed_lately = datetime.now(UTC) - run.state.timestamp < CLAIMED_FOR
    return run.state.is_scheduled() or (run.state.is_pending() and claimed_lately)


def _queue(pool: Pool) -> str | None:
    """What a person waits for goes before what a schedule started; None: the pool's own queue."""
    if pool != "gpu":
        return None
    run = own_run()
    return "scheduled" if run is None or run.auto_scheduled else "interactive"
