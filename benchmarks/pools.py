"""Evaluations on pools: how busy lanes are, what claims they lose, and what is lost with a lane.

Simulated, with the real coordinator and the real lanes on a clock that nobody waits for (`benchmarks.simulated_pool`).
"""

from __future__ import annotations

import atexit
import functools
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.harness import Case, Unequal
from benchmarks.orchestration import evaluate, serve
from benchmarks.simulated_pool import MemoryStore, Pools
from storage.local import LocalStore
from storage.objects import Ref, find, finished_objects, read_manifest
from storage.store import STORE_SETTING
from tasks.elements import import_steps
from tasks.lanes import Offer
from tasks.open_elements import SEGMENTS_KEPT
from tasks.recipe import Output, Pool, Step, StepRun, step

OFFER = Offer("worker", "cpu", {}, "1")
ELEMENT_S = (20.0, 40.0)
LANES = 200
LOST_PER_CENT = 15.0
WORK_LOST_S = 120.0
TO_CRITICAL_PATH = 1.15


@step("bench/simulated", version=1, label=lambda *, number, **_: f"{number // 1000:06d}")
def simulated(run: StepRun, *, number: int) -> Output:
    """An element of a plan that takes the time that it is said to take."""
    return Output({"data.txt": str(number).encode()})


@dataclass(frozen=True)
class Simulated:
    """What so many elements on so many lanes came to."""

    pools: Pools
    store: MemoryStore
    seconds: float  # of planning, by the processor
    made: Mapping[str, str]  # the content of each object

    @property
    def lost(self) -> float:
        """Per cent of the claims that were tried that others had."""
        claims = [lane.lane.claims for lane in self.pools.started]
        return 100 * sum(each.lost for each in claims) / sum(each.tried for each in claims)

    @property
    def twice(self) -> int:
        """Elements that were made more than once."""
        return sum(count > 1 for count in self.pools.times.values())


def simulate(elements: int, lanes: int, killed: float = 0.0) -> Simulated:
    """So many elements of 20 to 40 s, all of which are ready at once, of which lanes this share is killed."""
    import_steps()
    chosen = random.Random(elements)
    takes = [chosen.uniform(*ELEMENT_S) for _ in range(elements)]
    ideal = sum(takes) / lanes
    doomed: dict[tuple[Pool, int], float] = {
        ("cpu", index): chosen.uniform(0, ideal) for index in chosen.sample(range(lanes), round(lanes * killed))
    }
    store = MemoryStore()
    pools = Pools(
        store,
        {"cpu": lanes},
        OFFER,
        lambda document: takes[document["arguments"]["number"]],
        doomed=doomed,
    )
    seconds = []

    def plan() -> list[Ref]:
        began = time.process_time()
        futures = [simulated.submit(number=number) for number in range(elements)]
        seconds.append(time.process_time() - began)
        return [future.result() for future in futures]

    refs = pools.run("plan", plan)
    if pools.most_segments > SEGMENTS_KEPT:
        raise Unequal(f"a lane held {pools.most_segments} segments")
    if len(finished_objects(store)) != elements:
        raise Unequal(f"{elements - len(finished_objects(store))} objects are missing")
    return Simulated(pools, store, max(seconds), {ref.uri: read_manifest(store, ref.uri).content for ref in refs})


@contextmanager
def lanes_case(size: int, threads: int) -> Iterator[Case]:
    """So many elements on simulated lanes: claims that were lost, in per cent."""
    lanes = min(LANES, max(1, size // 50))

    def ours() -> tuple[float, Simulated]:
        done = simulate(size, lanes)
        return done.lost, done

    def in_words(_: None, done: Simulated) -> str:
        if done.twice:
            raise Unequal(f"{done.twice} elements were made more than once")
        pools = done.pools
        requests = ", ".join(f"{kind} {count / size:.1f}" for kind, count in sorted(done.store.requests.items()))
        return (
            f"{lanes} lanes, none twice, {pools.busy['cpu'] / lanes / pools.clock():.1%} busy; planned in "
            f"{done.seconds:.1f} s; requests per element: {requests}; at most {pools.most_segments} segments in a lane"
        )

    yield Case(None, ours, in_words)


@contextmanager
def killed_case(size: int, threads: int) -> Iterator[Case]:
    """So many elements, a tenth of whose lanes is killed: the seconds of work lost with one of them at most."""
    lanes = min(LANES, max(10, size // 50))
    undisturbed = simulate(size, lanes)

    def ours() -> tuple[float, Simulated]:
        done = simulate(size, lanes, killed=0.1)
        return max(each.killed - each.began for each in done.pools.killed.values()), done

    def in_words(_: None, done: Simulated) -> str:
        if done.made != undisturbed.made:
            raise Unequal("another content than that of lanes that live")
        left = lanes - len(done.pools.doomed)
        late = done.pools.clock() - undisturbed.pools.clock() * lanes / left
        return (
            f"{len(done.pools.killed)} elements of {len(done.pools.doomed)} of {lanes} lanes; content equal, no object "
            f"lost; finished at {done.pools.clock():.0f} s, with all lanes at {undisturbed.pools.clock():.0f} s, "
            f"{late:.0f} s later than without those lanes from the beginning"
        )

    yield Case(None, ours, in_words)


@contextmanager
def sample_on_pools_case(size: int, threads: int) -> Iterator[Case]:
    """The sample's own plan and seconds on so many workers of each pool: its time by what it takes at least."""
    recorded = _recorded_sample()

    def ours() -> tuple[float, str]:
        return _sample_again(recorded, {"cpu": size, "gpu": size})

    yield Case(None, ours, lambda _, words: words)


@functools.cache
def _recorded_sample() -> LocalStore:
    """A finished run of the sample in this process, whose steps' seconds are those of elements."""
    serve()
    folder = tempfile.mkdtemp(prefix="telltale-bench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    evaluate(folder, "sample")
    return LocalStore(Path(folder))


def _sample_again(recorded: LocalStore, lanes: dict[Pool, int]) -> tuple[float, str]:
    from flows.evaluate import evaluation_of
    from flows.preflight import checked_experiment, refuse_missing, wanted_facts
    from flows.work import offer

    experiment = checked_experiment("sample")
    elements: dict[str, tuple[float, set[str]]] = {}

    def seconds(document: Mapping[str, Any]) -> float:
        if "fact" in document:
            return 0.05
        takes = sum(read_manifest(recorded, place).seconds for place in document["places"])
        elements.update(dict.fromkeys(document["places"], (takes, set(_places_in(document["arguments"])))))
        return takes

    with tempfile.TemporaryDirectory(prefix="telltale-bench-") as folder:
        store = LocalStore(Path(folder))

        def made(step: Step, arguments: Mapping[str, Any]) -> Any:
            refs = tuple(_copied(recorded, store, place) for place in step.places(step.bound(arguments)))
            return refs if step.makes_several else refs[0]

        def plan() -> Any:
            refuse_missing(experiment, tuple(lanes))
            return evaluation_of(experiment)

        pools = Pools(store, lanes, offer("cpu"), seconds, made, start_s=0.0)
        began = time.process_time()
        with mock.patch.dict(os.environ, {STORE_SETTING: folder}):
            pools.run("plan", plan, wanted_facts(experiment))
        used = time.process_time() - began

    @functools.cache
    def finished_at(place: str) -> float:
        takes, inputs = elements[place]
        return takes + max((finished_at(each) for each in inputs if each in elements), default=0.0)

    path = max(map(finished_at, elements))
    least = max(path, *(pools.busy[pool] / count for pool, count in lanes.items()))
    work = " and ".join(f"{busy:.0f} s on {lanes[pool]} {pool} lanes" for pool, busy in pools.busy.items())
    words = (
        f"{pools.clock():.1f} s; critical path {path:.1f} s; work {work}; {len(pools.times)} objects, "
        f"{sum(count > 1 for count in pools.times.values())} made twice; coordinator and lanes used {used:.1f} s"
    )
    return pools.clock() / least, words


def _copied(recorded: LocalStore, store: LocalStore, place: str) -> Ref:
    # The manifest is what makes it finished.
    for key in sorted(recorded.list(place), key=lambda key: key.endswith("/manifest.json")):
        store.write(key, recorded.read(key))
    ref = find(store, place)
    if ref is None:
        raise Unequal(f"the recorded run has no {place}")
    return ref


def _places_in(value: Any) -> Iterator[str]:
    """Every place that a document's arguments refer to."""
    if isinstance(value, Mapping):
        if isinstance(value.get("uri"), str):
            yield value["uri"]
        for each in value.values():
            yield from _places_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _places_in(each)
