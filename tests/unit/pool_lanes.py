"""Lanes as threads of a test's process, and small steps for them to make."""

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.errors import PlanFailed
from storage.objects import Ref
from storage.plans import PlanFolder
from tasks.elements import import_steps
from tasks.facts import fact
from tasks.lanes import Lane, Offer
from tasks.recipe import Output, Pool, Step, StepRun, step

OFFER = Offer(worker="one", device="cpu", versions={}, telltale="1")


class Threads:
    """A recruiter whose lanes are threads: so many for each pool, by what each offers.

    `computed` are the places that were made, once for each time that they were.
    """

    def __init__(self, folder: PlanFolder, offers: Mapping[Pool, list[Offer]], slots: int = 1) -> None:
        self.folder = folder
        self.computed: list[str] = []
        self.made_by: dict[str, str] = {}
        self.lanes: list[Lane] = []
        self.threads: list[threading.Thread] = []
        self._offers = offers
        self._slots = slots

    def tend(self, wanted: Mapping[Pool, int]) -> Mapping[Pool, str]:
        if not self.threads:
            for pool, offers in self._offers.items():
                for index, offer in enumerate(offers):
                    self.start(pool, index, offer)
        return {pool: f"nobody is on {pool}" for pool, count in wanted.items() if count and not self._offers.get(pool)}

    def start(self, pool: Pool, index: int, offer: Offer, name: str | None = None) -> Lane:
        def compute(step: Step, arguments: Mapping[str, Any], shown: bool) -> Any:
            refs, cached = step.compute(self.folder.store, **arguments)
            if not cached:
                for ref in refs if step.makes_several else (refs,):
                    self.computed.append(ref.uri)
                    self.made_by[ref.uri] = offer.worker
            return refs

        lane = Lane(self.folder, pool, name or f"{pool}-{index}", index, offer, compute, slots=self._slots)
        thread = threading.Thread(target=self._run, args=(lane,), daemon=True)
        self.lanes.append(lane)
        self.threads.append(thread)
        thread.start()
        return lane

    def _run(self, lane: Lane) -> None:
        with contextlib.suppress(PlanFailed):
            lane.run()

    def recruited(self, pool: Pool) -> int:
        return len(self._offers.get(pool, ()))

    def without_hope(self, pool: Pool, refused: Mapping[str, str]) -> str | None:
        online = {offer.worker for offer in self._offers.get(pool, ())}
        return f"nobody can: {'; '.join(refused.values())}" if online <= set(refused) else None

    def join(self) -> None:
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


@fact(pool="cpu")
def count_of_things(start: int) -> int:
    """How many things there are on this machine's disk."""
    return start + 3


@step("test/source", version=1, label=lambda *, number, **_: f"{number:06d}")
def make_source(run: StepRun, *, number: int) -> Output:
    """Something to begin with: as many rows as its number says."""
    import pyarrow as pa

    return Output({"part-0.parquet": pa.table({"row": list(range(number))})})


@step("test/scaled", version=1, label=lambda *, factor, **_: f"x{factor}", each="factor", pool="gpu")
def scale(run: StepRun, *, source: Ref, factor: tuple[int, ...], device: str) -> dict[int, Output]:
    """Several objects of one call."""
    return {each: Output({"data.txt": f"{source.digest[:8]} {each} {device}".encode()}) for each in factor}


@step("test/sum", version=1, label=lambda **_: "all", unkeyed=("aside",))
def add_up(run: StepRun, *, parts: tuple[Ref, ...], aside: Ref | None = None) -> Output:
    """What needs all of the others."""
    return Output({"data.txt": str(len(parts)).encode()})


@step("test/slow", version=1, label=lambda *, number, **_: f"{number:06d}")
def sleep_a_while(run: StepRun, *, number: int, seconds: float) -> Output:
    """Work that takes time and nothing else."""
    time.sleep(seconds)
    return Output({"data.txt": str(number).encode()})


@step("test/met", version=1, label=lambda *, number, **_: f"{number:06d}")
def meet(run: StepRun, *, number: int, count: int, place: str) -> Output:
    """Ends once `count` such things are being made at the same time, so that as many lanes have to be at work."""
    return _met(number, count, Path(place))


@step("test/met-on-gpu", version=1, label=lambda *, number, **_: f"{number:06d}", pool="gpu")
def meet_on_gpu(run: StepRun, *, number: int, count: int, place: str) -> Output:
    """`meet` on the other pool."""
    return _met(number, count, Path(place))


def _met(number: int, count: int, place: Path) -> Output:
    place.mkdir(parents=True, exist_ok=True)
    (place / str(number)).touch()
    deadline = time.monotonic() + 600
    while len(list(place.iterdir())) < count:
        assert time.monotonic() < deadline, f"the others never came to {place}"
        time.sleep(0.2)
    return Output({"data.txt": str(number).encode()})


@step("test/timed", version=1, label=lambda **_: "alone", alone=True)
def measure_time(run: StepRun, *, parts: tuple[Ref, ...]) -> Output:
    """What must run when nothing else does."""
    return Output({"data.txt": b"quick"})


import_steps()
