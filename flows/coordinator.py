"""What sees a plan through on pools: releases what is ready, hears what lanes have finished, and plans on.

It computes nothing and reads no picture: it needs the store, and somebody who recruits lanes.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from storage.claims import ENDED, SILENCE_S
from storage.errors import MissingInput, NotFinished, PlanDamaged, PlanFailed
from storage.objects import Ref
from storage.plans import PlanFolder, Segment
from tasks.elements import Element
from tasks.facts import Fact, Facts, facts_known
from tasks.planning import Finished, Plan
from tasks.recipe import Pool, planned_by

T = TypeVar("T")

logger = logging.getLogger(__name__)

ATTEMPTS = 4
REPAIRS = 20
# It looks at once where something has just changed, then after pauses that grow; less often where looking takes long,
# and where nothing has changed for long. While lanes have enough to do for a while, nothing waits for it.
FIRST_POLL_S = 0.05
POLL_S = 0.3
LONGEST_POLL_S = 2.0
POLL_TO_LOOK = 4.0
POLL_TO_SILENCE = 0.02
POLL_WITH_ENOUGH_S = 1.0
TEND_S = 15.0
# While every lane that was started is at work and there is more to do, the next ones are started sooner.
TEND_SHORT_S = 2.0
# Lanes of a pool that nothing is known of yet; a recruiter starts one for each worker that is online at most.
LANES_AT_FIRST = 8
NOBODY_S = 3600.0
ELEMENTS_IN_SEGMENT = 50
# So many elements are shown as task runs, each of which is 17 rows in Prefect's database; of larger plans none is.
SHOWN = 500
# How long workers of the gpu pool are waited for, once the first has said that it has no GPU.
OTHER_OFFERS_S = 10.0


class Recruiter(Protocol):
    """Who starts lanes on pools."""

    def tend(self, wanted: Mapping[Pool, int]) -> Mapping[Pool, str]:
        """See that as many lanes are at work on each pool as it has places for, and at most as many as are wanted.

        Returns why nobody works on a pool, where that can be said.
        """
        ...

    def recruited(self, pool: Pool) -> int:
        """How many lanes a pool has had so far; their numbers are 0, 1, ..."""
        ...

    def without_hope(self, pool: Pool, refused: Mapping[str, str]) -> str | None:
        """Why no lane can work on a pool: all its workers have refused; None where one may."""
        ...


@dataclass
class LaneState:
    """What the coordinator knows of a lane."""

    status: Mapping[str, Any]
    version: str
    heard: float  # by the coordinator's clock
    sealed: int = 0  # notes objects that were read
    notes: int = 0  # of those in the status, which it has until it seals them

    def is_alive(self, now: float) -> bool:
        """Whether it may be at work."""
        return self.status["state"] not in ENDED and now - self.heard < SILENCE_S


@dataclass
class StepTimes:
    """When a step's first element was released and its last object finished, and the seconds of work on it."""

    began: float
    ended: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Failure:
    """A failed attempt of an element."""

    element: str
    error: str
    message: str
    worker: str
    host: str
    document: Mapping[str, Any] = field(repr=False, default_factory=dict)

    def __str__(self) -> str:
        return f"{self.element} failed on worker {self.worker}: {self.error}: {self.message}"


class Coordinator(Generic[T]):
    """One evaluation on pools.

    Args:
        folder: the plan's.
        compute: the evaluation's own code, which is its plan.
        pools: those that it works on.
        recruiter: who starts lanes.
        watch: called every few seconds and at the end, to show how far the plan is.
        clock, sleep: of tests.
        tend_s: how often the recruiter is asked.
    """

    def __init__(
        self,
        folder: PlanFolder,
        compute: Callable[[], T],
        pools: Sequence[Pool],
        recruiter: Recruiter,
        *,
        watch: Callable[[Coordinator[T]], None] = lambda coordinator: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        tend_s: float = TEND_S,
    ) -> None:
        self.folder = folder
        self.pools = tuple(pools)
        self.lanes: dict[str, LaneState] = {}
        self.failures: list[Failure] = []
        self.steps: dict[tuple[str, Pool], StepTimes] = {}
        self._compute = compute
        self._recruiter = recruiter
        self._watch = watch
        self._clock = clock
        self._sleep = sleep
        self._tend_s = tend_s
        self._needs: dict[Pool, Mapping[str, Any]] = {}
        self._first_offer: dict[Pool, float] = {}
        self.plan = Plan(Finished(folder.store), self._needed)
        self._facts = Facts(ask=self._ask)
        self.hindrances: dict[Pool, str] = {}  # why nobody works on a pool
        self._hindered_since: dict[Pool, float] = {}
        self._open_facts: dict[str, Fact[..., Any]] = {}
        self._segments: Counter[Pool] = Counter()
        # Open objects of released elements, and by which step and where they are made.
        self._released: dict[str, tuple[str, Pool]] = {}
        self._failed = True  # there may be failures that were not read
        self._read_failures: set[str] = set()
        self._attempts: Counter[str] = Counter()
        self._repairs = self._repaired = 0
        self._tended = -math.inf
        self._turn = 0

    def run(self) -> T:
        """See the plan through, and return what the code returns: refs of finished objects.

        Raises:
            MissingInput: what workers lack, with remedies.
            PlanFailed: an element failed for good, or no worker can offer what the plan needs.
        """
        turns = self.turns()
        while True:
            try:
                self._sleep(next(turns))
            except StopIteration as end:
                result: T = end.value
                return result

    def turns(self) -> Generator[float, None, T]:
        """What `run` does: gives the seconds to wait between its turns, and returns what the code returns."""
        self._adopt()
        result: T | None = None
        planned, blocked_by = False, ""
        pause, changed = FIRST_POLL_S, self._clock()
        while True:
            if not planned:
                planned = True
                try:
                    with planned_by(self.plan), facts_known(self._facts):
                        result, blocked_by = self._compute(), ""
                except NotFinished as stop:
                    result, blocked_by = None, str(stop)
            self._release()
            if result is not None and self.plan.open == 0:
                self._watch(self)
                return result
            since = self._clock() - self._tended
            if since >= self._tend_s or (since >= TEND_SHORT_S and self._is_short()):
                self._tend()
            enough = len(self._released) > 2 * len(self.lanes)
            yield max(pause, POLL_WITH_ENOUGH_S) if enough else pause
            began = self._clock()
            if self._look():
                pause, changed = FIRST_POLL_S, self._clock()
            else:
                now = self._clock()
                grown = max(min(1.5 * pause, POLL_S), POLL_TO_SILENCE * (now - changed), POLL_TO_LOOK * (now - began))
                pause = min(LONGEST_POLL_S, grown)
            planned = not (self._must_plan_anew() or (result is None and self._is_there(blocked_by)))

    # Planning.

    def _needed(self, pool: Pool) -> Mapping[str, Any]:
        if pool not in self._needs:
            raise NotFinished(f"needs/{pool}")
        return self._needs[pool]

    def _ask(self, asked: Fact[..., Any], arguments: tuple[Any, ...]) -> None:
        raise NotFinished(f"facts/{self._question(asked, arguments)}")

    def _question(self, asked: Fact[..., Any], arguments: tuple[Any, ...]) -> str:
        """Ask a worker of the fact's pool, once."""
        digest = asked.digest(*arguments)
        if digest in self._facts.answers or digest in self._open_facts:
            return digest
        answer = self.folder.fact(digest)
        if answer is not None:
            self._know(digest, answer)
            return digest
        self._open_facts[digest] = asked
        document = {
            "fact": asked.question(*arguments),
            "step": "facts",
            "name": f"facts {asked.name}",
            "places": [f"facts/{digest}"],
        }
        self._append(asked.pool, [document])
        return digest

    def _know(self, digest: str, answer: Mapping[str, Any]) -> None:
        self._facts.answers[digest] = answer["answer"]
        self._facts.workers[digest] = answer["worker"]

    def _is_there(self, place: str) -> bool:
        kind, _, name = place.partition("/")
        if kind == "needs":
            return name in self._needs
        if kind == "facts":
            return name in self._facts.answers
        return place in self.plan.finished

    # Work for the lanes.

    def _adopt(self) -> None:
        """Go on where an attempt of this run before this one was: its segments stay, and its lanes."""
        for pool in self.pools:
            segments, _ = self.folder.segments(pool)
            self._segments[pool] = 1 + max((segment.number for segment in segments), default=-1)
            needs = self.folder.needs(pool)
            if needs is not None:
                self._needs[pool] = needs

    def _release(self) -> None:
        ready: dict[Pool, list[dict[str, Any]]] = {}
        try:
            elements = self.plan.take_ready()
        except NotFinished as gone:
            # What a listing named is damaged, and was voided when it was looked at.
            self._repairs += 1
            logger.warning("%s is damaged and is made again", gone)
            return
        for element in elements:
            pool = element.step.pool(**element.arguments)
            ready.setdefault(pool, []).append(self._document(element))
            key = (element.step.name, pool)
            self._released.update(dict.fromkeys(element.places, key))
            self.steps.setdefault(key, StepTimes(self._clock()))
        for pool, documents in ready.items():
            lanes = max(1, len(self._alive(pool)) or self._recruiter.recruited(pool))
            size = min(ELEMENTS_IN_SEGMENT, max(1, math.ceil(len(documents) / (4 * lanes))))
            for start in range(0, len(documents), size):
                self._append(pool, documents[start : start + size])

    def _document(self, element: Element) -> dict[str, Any]:
        return {**element.document(), "shown": self.plan.total.total() <= SHOWN}

    def _append(self, pool: Pool, documents: Sequence[dict[str, Any]]) -> None:
        lanes = self._alive(pool) or list(range(self._recruiter.recruited(pool))) or [0]
        self._turn += 1
        segment = Segment(self._segments[pool], lanes[self._turn % len(lanes)])
        self.folder.add_segment(pool, segment, documents)
        self._segments[pool] += 1

    def _alive(self, pool: Pool) -> list[int]:
        now = self._clock()
        return [s.status["index"] for s in self.lanes.values() if s.status["pool"] == pool and s.is_alive(now)]

    # Hearing.

    def _look(self) -> bool:
        """Hear what is new; whether there is any work that was done."""
        before = len(self._released), len(self._facts.answers), len(self._needs)
        self._hear_lanes()
        for digest in list(self._open_facts):
            answer = self.folder.fact(digest)
            if answer is not None:
                self._know(digest, answer)
                del self._open_facts[digest]
        if self._failed:
            self._failed = False
            self._hear_failures()
        self._watch(self)
        return before != (len(self._released), len(self._facts.answers), len(self._needs))

    def _tend(self) -> None:
        """See to it that there are lanes enough, and that somebody can work at all."""
        self._tended = self._clock()
        # What a lane could not say any more that it had failed.
        self._failed = True
        wanted = self._wanted()
        self._hinder(self._recruiter.tend(wanted))
        for pool in self.pools:
            refused = {s.status["worker"]: s.status["reason"] for s in self._of(pool) if s.status["state"] == "refused"}
            if wanted[pool] and refused and not self._alive(pool):
                hopeless = self._recruiter.without_hope(pool, refused)
                if hopeless is not None:
                    raise PlanFailed(hopeless)

    def _hinder(self, hindrances: Mapping[Pool, str]) -> None:
        """Say what keeps pools from working when that changes, and give up after an hour of it."""
        for pool, said in hindrances.items():
            if pool not in self.hindrances:
                logger.warning("%s", said)
                self._hindered_since[pool] = self._clock()
            elif self._clock() - self._hindered_since[pool] > NOBODY_S:
                raise PlanFailed(f"{said} (nobody did for {NOBODY_S / 60:.0f} minutes)")
        self.hindrances = dict(hindrances)

    def _wanted(self) -> Counter[Pool]:
        """How many lanes would find something to do."""
        wanted: Counter[Pool] = Counter(pool for _, pool in self._released.values())
        for asked in self._open_facts.values():
            wanted[asked.pool] += 1
        for pool in self.pools:
            # It has to say what it has.
            if pool not in self._needs:
                wanted[pool] = max(wanted[pool], LANES_AT_FIRST)
        return wanted

    @property
    def waiting(self) -> list[str]:
        """What is said of pools on which there is something to do and nobody at work yet."""
        return [
            f"there is work for the pool {pool}, and no lane at it yet: it waits for a free place"
            for pool, count in self._wanted().items()
            if count and not self._alive(pool) and pool not in self.hindrances
        ]

    def _is_short(self) -> bool:
        """Whether some pool lacks lanes, and none that was started has yet to begin."""
        wanted = self._wanted()
        return any(
            wanted[pool] > len(self._alive(pool)) and self._recruiter.recruited(pool) <= len(self._of(pool))
            for pool in self.pools
        )

    def _of(self, pool: Pool) -> list[LaneState]:
        return [state for state in self.lanes.values() if state.status["pool"] == pool]

    def _hear_lanes(self) -> None:
        now = self._clock()
        for lane, listed in self.folder.statuses():
            known = self.lanes.get(lane)
            if known is not None and known.version == listed.version:
                continue
            try:
                status = self.folder.status(lane)
            except PlanDamaged:
                # It writes another one soon, or falls silent.
                continue
            if status is None:
                continue
            if known is None:
                known = self.lanes[lane] = LaneState(status, listed.version, -math.inf)
            self._failed = self._failed or status["failed"] != known.status["failed"] or known.heard == -math.inf
            known.status, known.version, known.heard = status, listed.version, now
            for number in range(known.sealed, status["sealed"]):
                self._hear(self.folder.notes(lane, number)[known.notes :])
                known.notes = 0
            known.sealed = status["sealed"]
            self._hear(status["notes"][known.notes :])
            known.notes = len(status["notes"])
        for pool in self.pools:
            if pool not in self._needs:
                self._decide(pool, now)

    def _hear(self, notes: Iterable[Sequence[Any]]) -> None:
        for place, rows, size, seconds in notes:
            key = self._released.pop(place, None)
            if key is not None:
                self.steps[key].seconds += seconds
                self.steps[key].ended = self._clock()
            self.plan.finish(Ref.at(place, rows, size))

    def _decide(self, pool: Pool, now: float) -> None:
        """Fix what the workers of a pool must have: what the first has that says so, on a GPU where there is one."""
        offers = [state.status for state in self._of(pool)]
        if not offers:
            return
        since = self._first_offer.setdefault(pool, now)
        with_gpu = [offer for offer in offers if offer["device"] != "cpu"]
        others = self._recruiter.recruited(pool) > len(offers) and now - since < OTHER_OFFERS_S
        if pool == "gpu" and not with_gpu and others:
            return
        chosen = (with_gpu or offers)[0]
        needs = {key: chosen[key] for key in ("device", "versions", "telltale")}
        self._needs[pool] = self.folder.decide(pool, needs)

    def _hear_failures(self) -> None:
        for digest, keys in self.folder.failures().items():
            for key in keys:
                if key in self._read_failures:
                    continue
                self._read_failures.add(key)
                document = self.folder.failure(key)
                said = ("element", "error", "message", "worker", "host")
                failure = Failure(**{name: document[name] for name in said}, document=document)
                self.failures.append(failure)
                if document["damaged"]:
                    self._repairs += 1
                    logger.warning("%s", failure.message)
                    if self._repairs > REPAIRS:
                        raise PlanFailed(f"objects were damaged again and again: {failure.message}: check the store")
                    continue
                self._attempts[digest] += 1
                attempts = self._attempts[digest]
                logger.warning("attempt %d of %d: %s", attempts, ATTEMPTS, failure)
                if document["final"] or attempts >= ATTEMPTS:
                    raise _given_up(failure, attempts)

    def _must_plan_anew(self) -> bool:
        """Whether a damaged object was voided: what is finished is asked of the store again."""
        if self._repairs == self._repaired:
            return False
        self._repaired = self._repairs
        self._released.clear()
        self.plan.forget()
        return True


def _given_up(failure: Failure, attempts: int) -> Exception:
    if failure.error == "MissingInput":
        return MissingInput(f"{failure.message.removeprefix('missing: ')} (said worker {failure.worker})")
    tries = "" if attempts == 1 else f", the last of {attempts} attempts"
    error = PlanFailed(f"{failure}{tries}")
    for note in failure.document.get("notes", ()):
        error.add_note(note)
    return error
