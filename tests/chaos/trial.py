"""One evaluation under faults, and what it came to."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.recovery import ATTEMPTS
from storage.errors import ObjectMissing
from storage.local import LocalStore
from storage.objects import Manifest
from storage.runs import latest_content
from tests.chaos.cluster import (
    GIVEN_UP,
    POOLS,
    WORKER_HOSTS,
    Cluster,
    Snapshot,
    digests,
    evaluate_undisturbed,
    half_written,
    now,
    snapshot,
)
from tests.chaos.hosts import Host, Program
from tests.integration.served import wait_for
from tests.integration.small_sample import WITHOUT_NETWORKS

SEED = 11
# The pools whose runs are lanes; each of a test's lanes is at one element at a time.
LANES = ("cpu", "gpu")
TRIAL_S = 1500


@dataclass(frozen=True)
class Reference:
    """What an undisturbed evaluation makes: content digests of all objects, and of the run's content tables."""

    objects: Mapping[str, str]
    tables: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """What an evaluation under faults came to.

    Args:
        starts: how often the evaluation's own run was started.
        different: objects of another content than in the undisturbed evaluation, or missing, or too many.
        finished: objects that were finished at the last fault.
        kept: those of them whose manifest has the same bytes at the end.
        lost: objects that were finished at any fault and are not there at the end.
        half_written: objects with a part that is not what their manifest says.
        steps: computations of which the evaluation consists.
        tries: how many were begun; what was only looked up does not count.
        lanes: how many lanes the evaluation's own run has started.
        hit: lanes that a fault hit, each of which may have been at one computation.
        lost_s: the longest that a computation had lasted when a fault ended it.
        restarted: workers that had ended and were started again.
        left_running: flow runs that had to be cancelled after the end.
        hosts: how many of the objects each host has made.
    """

    fault: str
    times: int
    starts: int
    state: str
    identical: bool
    different: tuple[str, ...]
    finished: int
    kept: int
    lost: int
    half_written: int
    steps: int
    tries: int
    lanes: int
    hit: int
    lost_s: float
    restarted: int
    left_running: int
    seconds: float
    details: tuple[str, ...]
    hosts: Mapping[str, int]

    @property
    def recovered(self) -> bool:
        """Whether the evaluation ended as if nothing had happened."""
        return self.state == "Completed" and self.identical and not self.lost and not self.half_written

    @property
    def was_given_up(self) -> bool:
        """Whether a run died as often as a run may, and nothing that was finished was lost."""
        last = self.state.endswith(GIVEN_UP) or self.starts >= ATTEMPTS
        return self.state.startswith("Crashed: ") and last and not self.lost and not self.half_written

    @property
    def recomputed(self) -> float:
        """Computations beyond those of an undisturbed run, in percent of these."""
        return 100 * (self.tries - self.steps) / self.steps

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "recovered": self.recovered, "recomputed_percent": round(self.recomputed, 1)}


@dataclass
class Trial:
    """An evaluation that is under way."""

    cluster: Cluster
    random: random.Random
    run: str
    times: list[str] = field(default_factory=list)
    moments: list[datetime] = field(default_factory=list)
    hit: int = 0
    finished: list[Snapshot] = field(default_factory=list)

    def has_ended(self) -> bool:
        """Whether the evaluation is in a final state."""
        return self.cluster.ended(self.run) is not None

    def remember(self, what: str, hit: int = 0) -> None:
        """Note a fault, how many lanes it hits, and what is finished at this moment."""
        self.finished.append(snapshot(self.cluster.store))
        self.times.append(what)
        self.moments.append(datetime.now(UTC))
        self.hit += hit

    def lanes_on(self, *workers: Program) -> int:
        """How many lanes these workers have."""
        return sum(len(set(flow_runs(worker).values())) for worker in workers if worker.name in LANES)

    def await_objects(self, least: int) -> None:
        """Wait until so many objects are finished: the middle of an evaluation, on whatever machine."""
        wait_for(lambda: self.has_ended() or len(snapshot(self.cluster.store)) >= least, TRIAL_S)

    def await_work(self) -> bool:
        """Wait until a worker has a flow run of the evaluation; False, where the evaluation has ended first."""
        wait_for(lambda: self.has_ended() or (self.busy() and self.running(self.run)), TRIAL_S)
        return not self.has_ended()

    def busy(self, pools: Sequence[str] = tuple(POOLS)) -> list[Program]:
        """The workers of these pools that have a flow run now."""
        return [program for program in self.cluster.workers() if program.name in pools and flow_runs(program)]

    def running(self, run: str) -> list[Program]:
        """The workers that have this very flow run now."""
        return [program for program in self.cluster.workers() if run in flow_runs(program).values()]

    def at_work(self) -> dict[str, Program]:
        """The lanes that have claimed something now, by their runs' ids, and their workers."""
        store, claiming = self.cluster.store, set()
        for key in store.list("claims"):
            with suppress(ObjectMissing):
                name = json.loads(store.read(key))["status"].rpartition("/")[2]
                # index-run-attempt.json, and a run's id has hyphens of its own
                claiming.add(name.partition("-")[2].rpartition("-")[0])
        workers = {run: program for program in self.busy(LANES) for run in flow_runs(program).values()}
        return {run: program for run, program in workers.items() if run in claiming}

    def host_of(self, program: Program) -> Host:
        """The host of a worker."""
        hosts = self.cluster.network.hosts
        return next(hosts[name] for name in WORKER_HOSTS if program in hosts[name].programs.values())


def flow_runs(program: Program) -> dict[int, str]:
    """The flow-run processes that a worker has started: process id, and id of the flow run."""
    found = {}
    for pid in program.pids():
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                if line.startswith(b"PREFECT__FLOW_RUN_ID="):
                    found[pid] = line.partition(b"=")[2].decode()
    return found


@contextmanager
def reference_run(cluster: Cluster, folder: Path) -> Iterator[Callable[[], Reference]]:
    """Start the undisturbed evaluation; the value waits for its end and returns what it made."""
    process = evaluate_undisturbed(cluster, folder, WITHOUT_NETWORKS, SEED)

    def reference() -> Reference:
        assert process.wait(1200) == 0, (folder / "log").read_text()[-3000:]
        store = LocalStore(folder / "store")
        return Reference(digests(snapshot(store)), latest_content(store, "sample"))

    try:
        yield reference
    finally:
        process.kill()
        process.wait()


def attempt(
    cluster: Cluster,
    reference: Callable[[], Reference],
    fault: str,
    inject: Callable[[Trial], None],
    seed: int,
) -> Outcome:
    """Run the evaluation over an empty store, inject a fault, and examine what the run has come to."""
    cluster.empty_store()
    since, began = now(), time.monotonic()
    restarts = cluster.restarts
    with cluster.tended():
        run = cluster.start_run(
            "evaluate/all", {"experiment": "sample", "overrides": WITHOUT_NETWORKS, "seed": SEED, "dispatch": "pools"}
        )
        trial = Trial(cluster, random.Random(seed), run)
        inject(trial)
        ended = wait_for(lambda: cluster.ended(run), TRIAL_S)
        seconds = time.monotonic() - began
        left = finish_the_rest(cluster)
    return examine(trial, reference(), fault, ended, since, seconds, left, cluster.restarts - restarts)


def finish_the_rest(cluster: Cluster) -> int:
    """Wait a while for lanes, which end by themselves, then cancel those that do not; returns how many that were."""
    deadline = time.monotonic() + 90
    while (left := cluster.living_runs()) and time.monotonic() < deadline:
        time.sleep(2)
    for run in left:
        cluster.ask(f"/flow_runs/{run['id']}/set_state", state={"type": "CANCELLED"}, force=True)
    return len(left)


def examine(
    trial: Trial,
    reference: Reference,
    fault: str,
    ended: Mapping[str, Any],
    since: str,
    seconds: float,
    left: int,
    restarted: int,
) -> Outcome:
    """Compare what is in the store with the reference and with what was finished at the faults."""
    store = trial.cluster.store
    after = snapshot(store)
    broken = half_written(store, after)
    state = ended["state"]
    completed = state["type"] == "COMPLETED"
    different = differences(digests(after), reference.objects)
    identical = completed and not different and latest_content(store, "sample") == reference.tables
    at_fault: Snapshot = trial.finished[-1] if trial.finished else {}
    seen = {place for finished in trial.finished for place in finished}
    # Task runs reach the server as events, a moment after their flow run's end.
    time.sleep(5)
    lanes = {lane["id"] for lane in trial.cluster.lanes(trial.run)}
    task_runs = [run for run in trial.cluster.task_runs(since) if run["flow_run_id"] in lanes]
    tries, steps = computations(task_runs)
    return Outcome(
        fault=fault,
        times=len(trial.times),
        starts=ended["run_count"],
        state=str(state["name"]) if completed else f"{state['name']}: {state['message']}",
        identical=identical,
        different=tuple(different),
        finished=len(at_fault),
        kept=sum(after.get(place) == manifest for place, manifest in at_fault.items()),
        lost=len(seen - set(after)),
        half_written=len(broken),
        steps=steps,
        tries=tries,
        lanes=len(lanes),
        hit=trial.hit,
        lost_s=round(longest_lost(task_runs, trial.moments), 1),
        restarted=restarted,
        left_running=left,
        seconds=round(seconds, 1),
        details=tuple(trial.times),
        hosts=dict(Counter(Manifest.model_validate_json(manifest).host for manifest in after.values())),
    )


def differences(objects: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Places of objects that are missing, too many, or of another content than expected.

    The report's own object holds how long each step took.
    """

    def compared(digests: Mapping[str, str]) -> set[tuple[str, str]]:
        return {item for item in digests.items() if not item[0].startswith("objects/report/")}

    return sorted({place for place, _ in compared(objects) ^ compared(expected)})


def computations(task_runs: list[dict[str, Any]]) -> tuple[int, int]:
    """How many computations were begun, and of how many different steps; what was only looked up counts for none."""
    begun: Counter[str] = Counter()
    for run in task_runs:
        state = run["state"] or {}
        begun[run["name"]] += run["run_count"] - (state.get("name") == "Cached")
    return begun.total(), sum(1 for count in begun.values() if count)


def longest_lost(task_runs: list[dict[str, Any]], faults: list[datetime]) -> float:
    """The longest time, in seconds, for which a computation had lasted when a fault came that it did not outlive."""
    lost = [0.0]
    for run in task_runs:
        if run["state"] is None or run["state"]["type"] == "COMPLETED":
            continue
        began = datetime.fromisoformat(run["start_time"])
        lost += [(fault - began).total_seconds() for fault in faults if fault >= began][:1]
    return max(lost)
