"""A pool of made-up workers in one process: the real coordinator and the real lanes, on a clock that nobody waits for.

Lanes and coordinator take their turns as generators, so that a simulation can give each of them its turn when its time
has come. What a lane computes takes the seconds that it is said to take; then its objects are there. The store is in
memory, and counts what is asked of it.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flows.coordinator import Coordinator
from storage.errors import ObjectExists, ObjectMissing
from storage.plans import PlanFolder
from storage.store import Listed, Store
from tasks.facts import ask_all
from tasks.lanes import CannotOffer, Lane, Offer
from tasks.recipe import Pool, Step

T = TypeVar("T")

# Seconds that an element takes, by its document.
Seconds = Callable[[Mapping[str, Any]], float]
# How long a lane's process takes to come up, at most.
START_S = 5.0


class MemoryStore:
    """A store in memory, for one process and one thread; `requests` counts by kind, 1,000 keys to a listing."""

    url = "memory://"

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self._versions = itertools.count()
        self._data: dict[str, tuple[bytes, int]] = {}
        self._folders: dict[str, dict[str, bool]] = {"": {}}  # names in a folder, and whether each is a folder

    def read(self, key: str) -> bytes:
        self.requests["GET"] += 1
        if key not in self._data:
            raise ObjectMissing(key)
        return self._data[key][0]

    def write(self, key: str, data: bytes) -> None:
        self.requests["PUT"] += 1
        self._put(key, data)

    def create(self, key: str, data: bytes) -> None:
        self.requests["PUT"] += 1
        if key in self._data:
            raise ObjectExists(key)
        self._put(key, data)

    def _put(self, key: str, data: bytes) -> None:
        if key not in self._data:
            name, is_folder = key, False
            while name:
                folder, _, last = name.rpartition("/")
                names = self._folders.setdefault(folder, {})
                if last in names:
                    break
                names[last] = is_folder
                name, is_folder = folder, True
        self._data[key] = data, next(self._versions)

    def size(self, key: str) -> int | None:
        self.requests["HEAD"] += 1
        found = self._data.get(key)
        return None if found is None else len(found[0])

    def scan(self, prefix: str) -> Iterator[Listed]:
        found = [Listed(key, len(self._data[key][0]), str(self._data[key][1])) for key in self._keys(prefix)]
        self.requests["LIST"] += 1 + len(found) // 1000
        return iter(found)

    def list(self, prefix: str) -> list[str]:
        found = sorted(self._keys(prefix))
        self.requests["LIST"] += 1 + len(found) // 1000
        return found

    def _keys(self, folder: str) -> Iterator[str]:
        for name, is_folder in self._folders.get(folder, {}).items():
            key = f"{folder}/{name}" if folder else name
            if is_folder:
                yield from self._keys(key)
            else:
                yield key

    def delete(self, key: str) -> None:
        self.requests["DELETE"] += 1
        found = self._data.pop(key, None)
        while found is not None and key:
            folder, _, last = key.rpartition("/")
            del self._folders[folder][last]
            if self._folders[folder] or not folder:
                break
            del self._folders[folder]
            key = folder

    def modified(self, key: str) -> float:
        return 0.0

    def is_exclusive(self) -> bool:
        return True


class Clock:
    """Time that passes from one event to the next."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something so many seconds from now."""
        heapq.heappush(self._events, (self.now + max(0.0, seconds), next(self._numbers), act))

    def run(self, is_over: Callable[[], bool]) -> None:
        """Do what is due, one after the other."""
        while self._events and not is_over():
            self.now, _, act = heapq.heappop(self._events)
            act()


@dataclass
class Killed:
    """An element that a lane was at when it was killed."""

    began: float
    killed: float
    again: float | None = None  # when another lane began it


@dataclass
class Pools:
    """So many lanes on each pool, as `flows.coordinator.Recruiter`; some are `doomed`: killed after so many seconds.

    `times` counts how often each place was made, `busy` the seconds of each pool's lanes in which they computed.
    """

    store: Store
    lanes: Mapping[Pool, int]
    offer: Offer
    seconds: Seconds
    made: Callable[[Step, Mapping[str, Any]], Any] | None = None
    doomed: Mapping[tuple[Pool, int], float] = field(default_factory=dict)
    start_s: float = START_S
    clock: Clock = field(default_factory=Clock)
    times: Counter[str] = field(default_factory=Counter)
    busy: defaultdict[Pool, float] = field(default_factory=lambda: defaultdict(float))
    killed: dict[str, Killed] = field(default_factory=dict)
    started: list[SimulatedLane] = field(default_factory=list)
    most_segments: int = 0  # that any lane held

    def run(self, plan: str, compute: Callable[[], T], questions: Any = ()) -> T:
        """See a plan through; returns what its code returns."""
        folder = PlanFolder(self.store, plan)
        folder.begin({"title": plan})
        self._folder = folder

        def plan_of() -> T:
            ask_all(questions)
            return compute()

        coordinator = Coordinator(folder, plan_of, tuple(self.lanes), self, clock=self.clock)
        turns = coordinator.turns()
        results: list[T] = []

        def turn() -> None:
            try:
                self.clock.after(next(turns), turn)
            except StopIteration as end:
                results.append(end.value)

        turn()
        self.clock.run(lambda: bool(results))
        return results[0]

    def tend(self, wanted: Mapping[Pool, int]) -> Mapping[Pool, str]:
        """Start all lanes, one after the other within `start_s`; later one for each that had nothing to do and left."""
        if self.started:
            for lane in [lane for lane in self.started if lane.left and wanted[lane.pool]]:
                lane.left = False
                after = SimulatedLane(self, self._folder, lane.pool, self.recruited(lane.pool))
                self.started.append(after)
                self.clock.after(0.0, after.turn)
            return {}
        starts = random.Random(0)
        for pool, count in self.lanes.items():
            for index in range(count):
                lane = SimulatedLane(self, self._folder, pool, index)
                self.started.append(lane)
                self.clock.after(starts.uniform(0, self.start_s), lane.turn)
                if (pool, index) in self.doomed:
                    self.clock.after(self.doomed[pool, index], lane.kill)
        return {}

    def recruited(self, pool: Pool) -> int:
        """All that are to be, and those after them."""
        return max(self.lanes[pool], sum(lane.pool == pool for lane in self.started))

    def without_hope(self, pool: Pool, refused: Mapping[str, str]) -> str | None:
        """Why nobody can."""
        return f"nobody can: {refused}"


class SimulatedLane:
    """A lane whose turns a simulation gives it."""

    def __init__(self, pools: Pools, folder: PlanFolder, pool: Pool, index: int) -> None:
        self._pools = pools
        self._clock = pools.clock
        self.pool = pool
        self.left = False  # it had nothing to do, and ended
        self._ended = False
        self._at: dict[str, float] = {}
        self._due = {"turn": 0, "beat": 0}
        name = f"{index:04d}-{pool}"
        self.lane = Lane(
            folder, pool, name, index, pools.offer, self._compute, slots=1, clock=pools.clock, start=self._start
        )
        self._turns = self.lane.turns()
        self._beats = self.lane.beats()

    def turn(self) -> None:
        """Look for work; its heartbeat begins with its first turn."""
        if self._ended:
            return
        try:
            pause = next(self._turns)
        except (StopIteration, CannotOffer) as end:
            self._ended = True
            self.left = isinstance(end, StopIteration)
            self.lane.finish("ended" if isinstance(end, StopIteration) else "refused", str(end))
            return
        self._pools.most_segments = max(self._pools.most_segments, self.lane.elements.segments_kept)
        self._next("turn", pause, self.turn)
        if not self._due["beat"]:
            self.beat()

    def beat(self) -> None:
        """Say what there is to say."""
        if not self._ended:
            self._next("beat", next(self._beats), self.beat)

    def kill(self) -> None:
        """It stands still for ever, and says nothing."""
        if not self._ended:
            self._ended = True
            for place, began in self._at.items():
                self._pools.killed[place] = Killed(began, self._clock())

    def _next(self, what: str, pause: float, act: Callable[[], None]) -> None:
        self._due[what] += 1
        number = self._due[what]

        def due() -> None:
            if self._due[what] == number:
                act()

        # Not a moment that is none: what is due when so much has passed would be found not to be due, again and again.
        self._clock.after(max(pause, 1e-3), due)

    def _start(self, document: Mapping[str, Any], call: Callable[[], None]) -> None:
        seconds = self._pools.seconds(document)
        began = self._clock()
        for place in document["places"]:
            self._at[place] = began
            if place in self._pools.killed and self._pools.killed[place].again is None:
                self._pools.killed[place].again = began

        def done() -> None:
            if self._ended:
                return
            call()
            self._pools.busy[self.pool] += seconds
            for place in document["places"]:
                del self._at[place]
            self.turn()
            self.beat()

        self._clock.after(seconds, done)

    def _compute(self, step: Step, arguments: Mapping[str, Any], shown: bool) -> Any:
        self._pools.times.update(step.places(step.bound(arguments)))
        if self._pools.made is not None:
            return self._pools.made(step, arguments)
        return step.compute(self._pools.store, **arguments)[0]
