"""What an evaluation of any size asks of lanes, store and Prefect, counted by planning it over made-up inputs.

    python -m benchmarks.cost                                    5 thousand, 118 thousand and 100 million photographs
    python -m benchmarks.cost --photographs 20000 --lanes 16 --steps --markdown
    python -m benchmarks.cost --rates STORE > benchmarks/cost_rates.json       the rates anew, of a finished `sample`
    python -m benchmarks.cost --rows                             rows of a lane in Prefect's database, measured anew

The evaluation is the preset `coco` with so many photographs, and as many pictures by each of its generators. What
planning counts is linear in the number of shards: of more than a few, two smaller plans are drawn out. Requests of a
lane are counted while one makes made-up elements. Seconds are the sample's, per picture: see `Rates`.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.made_up import planned, preset
from flows.coordinator import ELEMENTS_IN_SEGMENT, SHOWN
from storage.digest import canonical_json
from storage.local import LocalStore
from storage.objects import ROWS, Ref, find, finished_objects, read_manifest, read_table
from storage.opening import open_store
from storage.plans import PlanFolder, Segment
from storage.store import STORE_SETTING, Store
from tasks.elements import Element, refs_in
from tasks.lanes import BEAT_S, Lane, Offer
from tasks.recipe import Output, Step, StepRun, step
from tasks.spec.experiment import Experiment

SIZES = (5_000, 118_000, 100_000_000)
LANES = (1, 8, 200)
# Shards of the plans that larger ones follow from.
FEW, MORE = 8, 16
# Rows of Prefect's database, as `--rows` measures them: of a lane in this process, and of a shown element. A worker's
# run has some more, of the states before it begins.
ROWS_OF_A_RUN = 18
ROWS_OF_A_TASK_RUN = 17
RATES = Path(__file__).with_name("cost_rates.json")

Table = list[list[str]]


@dataclass(frozen=True)
class Plans:
    """What planning counts, by step: `elements`, `objects`, `inputs` that elements read, `bytes` of their documents.

    `longest` is the number of elements in the longest chain of which each waits for the one before it; `largest` the
    bytes of the largest element's document, by its step.
    """

    counts: Mapping[str, Counter[str]]
    longest: int
    largest: Mapping[str, int]

    def total(self, what: str) -> int:
        """Of all steps together."""
        return sum(counts[what] for counts in self.counts.values())


@dataclass(frozen=True)
class Rates:
    """What a finished run of the offline sample measured on one machine, by step: parts per object, seconds per row.

    Of the sample, with its small networks and pictures: features of 80 pixels, diffusion of 64. A photograph in
    another experiment takes many times as long. They say what share each step has, and no more.
    """

    said: str
    parts: Mapping[str, float]
    seconds: Mapping[str, float]


def experiment_of(photographs: int, overrides: dict[str, Any] | None = None) -> Experiment:
    """The preset `coco` for so many photographs."""
    return preset("coco", {"sources.gan.count": photographs, **(overrides or {})})


def counted(photographs: int, overrides: dict[str, Any] | None = None) -> Plans:
    """Plan so many photographs, or follow the line through two smaller plans."""
    size = experiment_of(1, overrides).shard_size
    shards = math.ceil(photographs / size)
    if shards <= MORE:
        return _planned(photographs, json.dumps(overrides))
    few, more = (_planned(count * size, json.dumps(overrides)) for count in (FEW, MORE))

    def line(a: int, b: int) -> int:
        return b + (shards - MORE) * (b - a) // (MORE - FEW)

    return Plans(
        {
            name: Counter({what: line(few.counts[name][what], counts[what]) for what in counts})
            for name, counts in more.counts.items()
        },
        more.longest,
        {name: line(few.largest[name], most) for name, most in more.largest.items()},
    )


@functools.cache
def _planned(photographs: int, overrides: str) -> Plans:
    counts: dict[str, Counter[str]] = {}
    largest: Counter[str] = Counter()
    longest = 0
    for wave in planned(experiment_of(photographs, json.loads(overrides)), photographs):
        longest += 1
        for element in wave:
            name, size = element.step.name, len(canonical_json(element.document()))
            read = {ref.uri for value in element.arguments.values() for ref in refs_in(value)}
            counts.setdefault(name, Counter()).update(
                elements=1, objects=len(element.places), inputs=len(read), bytes=size
            )
            largest[name] = max(largest[name], size)
    return Plans(counts, longest, largest)


@step("made-up", version=1, label=lambda *, number, **_: f"{number}", each="number")
def make_up(run: StepRun, *, number: tuple[int, ...], parts: int, inputs: tuple[Ref, ...]) -> dict[int, Output]:
    """So many parts of each object, after each input was read once."""
    for ref in inputs:
        read_table(run.store, ref)
    return {
        one: Output({ROWS: pa.table({"n": [one]})} | {f"{part}.txt": b"" for part in range(1, parts)}) for one in number
    }


_VERBS = {
    "read": "GET",
    "write": "PUT",
    "create": "PUT",
    "size": "HEAD",
    "modified": "HEAD",
    "list": "LIST",
    "scan": "LIST",
    "delete": "DELETE",
}


class _Counting:
    """A store that counts, by the folder that is asked for, in an object store's words."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: Counter[tuple[str, str]] = Counter()

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._store, name)
        if name not in _VERBS:
            return asked

        def ask(key: str, *rest: Any) -> Any:
            self.asked[key.partition("/")[0], _VERBS[name]] += 1
            return asked(key, *rest)

        return ask


@functools.cache
def requests_of_a_lane() -> dict[str, Counter[str]]:
    """Requests for objects and claims that a lane makes: for an element, each object, each further part, each input.

    What lanes ask because time passes is not among them.
    """
    plain = _requests(objects=1, parts=1, inputs=0)
    found = {
        "objects": _requests(objects=2, parts=1, inputs=0),
        "parts": _requests(objects=1, parts=2, inputs=0),
        "inputs": _requests(objects=1, parts=1, inputs=1),
    }
    more = {what: Counter({verb: counts[verb] - plain[verb] for verb in counts}) for what, counts in found.items()}
    element = Counter({verb: plain[verb] - more["objects"][verb] for verb in plain})
    return {"elements": element, **more}


def _requests(objects: int, parts: int, inputs: int) -> Counter[str]:
    """Requests of one element, of which a lane makes several in a row."""
    several = 4
    with tempfile.TemporaryDirectory(prefix="telltale-bench-") as root:
        store = LocalStore(Path(root))
        read = tuple(make_up.compute(store, number=(-1 - n,), parts=1, inputs=())[0][0] for n in range(inputs))
        counting: Any = _Counting(store)
        folder = PlanFolder(counting, "made-up")
        offer = Offer("made-up", "cpu", {}, "1")
        folder.decide("cpu", {"device": "cpu", "versions": {}, "telltale": "1"})
        elements = []
        for first in range(0, several * objects, objects):
            arguments = make_up.bound({"number": tuple(range(first, first + objects)), "parts": parts, "inputs": read})
            elements.append(Element(make_up, arguments, tuple(make_up.places(arguments))))
        folder.add_segment("cpu", Segment(0, 0), [element.document() for element in elements])

        def compute(step: Step, arguments: Mapping[str, Any], shown: bool) -> Any:
            made, _ = step.compute(counting, **arguments)
            if all(find(store, place) for element in elements for place in element.places):
                folder.end("completed")
            return made

        Lane(folder, "cpu", "0", 0, offer, compute, slots=1).run()
        asked = {key: count for key, count in counting.asked.items() if key[0] != "plans" and key[1] != "LIST"}
    totals: Counter[str] = Counter()
    for (_, verb), count in asked.items():
        totals[verb] += count
    return Counter({verb: round(count / several) for verb, count in totals.items()})


def store_requests(plans: Plans, rates: Rates) -> Counter[str]:
    """Requests of all lanes for objects and claims, where each input of an element is read once."""
    of_a_lane = requests_of_a_lane()
    totals: Counter[str] = Counter()
    for name, counts in plans.counts.items():
        further_parts = round(counts["objects"] * (rates.parts.get(name, 1.0) - 1.0))
        for what, count in (*counts.items(), ("parts", further_parts)):
            for verb, requests in of_a_lane.get(what, {}).items():
                totals[verb] += count * requests
    return +totals


def prefect_rows(elements: int, lanes: int) -> int:
    """Rows in Prefect's database: of the run, its lanes, and the elements while they are shown as task runs."""
    return ROWS_OF_A_RUN * (1 + lanes) + (ROWS_OF_A_TASK_RUN * elements if elements <= SHOWN else 0)


def measured_rows(elements: int = 4) -> tuple[int, int]:
    """Rows that a lane's run and a shown element add to Prefect's database, on a server of this process."""
    from prefect.testing.utilities import prefect_test_harness

    with tempfile.TemporaryDirectory(prefix="telltale-bench-") as root, prefect_test_harness(180):
        os.environ[STORE_SETTING] = root
        _rows_of_a_lane(0, "warm-up")
        alone, together = _rows_of_a_lane(0, "none"), _rows_of_a_lane(elements, "some")
    return alone, (together - alone) // elements


def _rows_of_a_lane(elements: int, plan: str) -> int:
    """How many rows there are more when a lane has made so many elements, and the server has written all of it."""
    from flows.work import offer, work

    before = _settled()
    folder = PlanFolder(open_store(), plan)
    folder.begin({"title": plan})
    here = offer("cpu")
    folder.decide("cpu", {"device": "cpu", "versions": dict(here.versions), "telltale": here.telltale})
    made = []
    for number in range(elements):
        arguments = make_up.bound({"number": (number,), "parts": 1, "inputs": ()})
        made.append(Element(make_up, arguments, tuple(make_up.places(arguments))))
    folder.add_segment("cpu", Segment(0, 0), [{**element.document(), "shown": True} for element in made])

    def end() -> None:
        while not all(find(folder.store, place) for element in made for place in element.places):
            time.sleep(0.2)
        folder.end("completed")

    ending = threading.Thread(target=end)
    ending.start()
    work(plan=plan, pool="cpu", index=0)
    ending.join()
    return _settled() - before


def _settled() -> int:
    """Rows of all tables of Prefect's database once they grow no more: events and logs arrive a while after."""
    from prefect.settings import get_current_settings

    url = get_current_settings().server.database.connection_url
    assert url is not None
    place = f"file:{url.get_secret_value().partition(':///')[2]}?mode=ro"
    rows, same = -1, 0
    while same < 5:
        time.sleep(1)
        with sqlite3.connect(place, uri=True, timeout=60) as connection:
            tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
            now = sum(connection.execute(f'select count(*) from "{name}"').fetchone()[0] for name in tables)
        rows, same = now, same + 1 if now == rows else 0
    return rows


def growing(few: Plans, more: Plans) -> list[str]:
    """Steps of which more photographs make more elements."""
    return [name for name, counts in more.counts.items() if counts["elements"] > few.counts[name]["elements"]]


def processor_seconds(photographs: int, rates: Rates, overrides: dict[str, Any] | None = None) -> float:
    """Of the steps that every shard has, at the sample's rates: as many rows as photographs in all of its objects."""
    size = experiment_of(1, overrides).shard_size
    plans, few = counted(photographs, overrides), counted(size, overrides)
    rows = min(size, photographs)
    return sum(
        rates.seconds.get(name, 0.0) * rows * plans.counts[name]["objects"]
        for name in growing(few, counted(2 * size, overrides))
    )


def read_rates(path: Path = RATES) -> Rates:
    """The rates that were kept."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return Rates(found["said"], found["parts"], found["seconds"])


def measured_rates(store: Store) -> dict[str, Any]:
    """The rates of all objects in a store, from their manifests; seconds of steps whose objects have rows."""
    objects, parts, rows = Counter[str](), Counter[str](), Counter[str]()
    seconds: dict[str, float] = {}
    created = ""
    for place in finished_objects(store):
        manifest = read_manifest(store, place)
        objects[manifest.step] += 1
        parts[manifest.step] += len(manifest.parts)
        rows[manifest.step] += manifest.rows
        seconds[manifest.step] = seconds.get(manifest.step, 0.0) + manifest.seconds
        created = max(created, manifest.created)
    return {
        "said": f"{objects.total():,} objects of `sample`, {sum(seconds.values()):,.0f} s, finished {created[:10]}",
        "parts": {name: round(parts[name] / count, 3) for name, count in sorted(objects.items())},
        "seconds": {name: round(seconds[name] / rows[name], 6) for name in sorted(objects) if rows[name]},
    }


def report(
    sizes: Sequence[int], lanes: Sequence[int], by_step: bool, overrides: dict[str, Any] | None = None
) -> list[Table]:
    """Tables: what is counted, rows and time by lanes, and the steps."""
    rates = read_rates()
    plans = {size: counted(size, overrides) for size in sizes}
    asked = {size: store_requests(plans[size], rates) for size in sizes}
    seconds = {size: processor_seconds(size, rates, overrides) for size in sizes}
    most = {size: max(plans[size].largest.items(), key=lambda item: item[1]) for size in sizes}

    def row(name: str, value: Any) -> list[str]:
        return [name, *(value(size) for size in sizes)]

    counts = [
        row("photographs", lambda n: f"{n:,}"),
        row("elements", lambda n: f"{plans[n].total('elements'):,}"),
        row("objects", lambda n: f"{plans[n].total('objects'):,}"),
        row("longest chain of elements", lambda n: f"{plans[n].longest}"),
        row("documents of all elements", lambda n: size_in_words(plans[n].total("bytes"))),
        row("the largest document", lambda n: f"{size_in_words(most[n][1])} ({most[n][0]})"),
        row("segments, at least", lambda n: f"{math.ceil(plans[n].total('elements') / ELEMENTS_IN_SEGMENT):,}"),
        *(
            row(f"{verb} for objects and claims", lambda n, v=verb: f"{asked[n][v]:,}")
            for verb in sorted(asked[sizes[0]])
        ),
        row("processor time of the steps of shards, at the sample's rates", lambda n: duration(seconds[n])),
    ]
    head = ["lanes", "flow runs", "statuses written a minute, at least"]
    head += [f"rows in Prefect's database, {n:,}" for n in sizes]
    head += [f"share of that time, {n:,}" for n in sizes]
    by_lanes = [head]
    for count in lanes:
        cells = [f"{count}", f"{1 + count}", f"{count * 60 / BEAT_S:.0f}"]
        cells += [f"{prefect_rows(plans[n].total('elements'), count):,}" for n in sizes]
        by_lanes.append(cells + [duration(seconds[n] / count) for n in sizes])
    steps = [
        ["step", *(f"elements / objects, {n:,}" for n in sizes)],
        *(
            [name, *(f"{plans[n].counts[name]['elements']:,} / {plans[n].counts[name]['objects']:,}" for n in sizes)]
            for name in sorted(plans[sizes[0]].counts)
        ),
    ]
    return [counts, by_lanes, *([steps] if by_step else [])]


def size_in_words(count: float) -> str:
    """Bytes with three digits."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would take."""
    for unit, scale in (("years", 31_557_600.0), ("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, action="append", help="how many; again for another size")
    parser.add_argument("--lanes", type=int, action="append", help="how many; again for another number")
    parser.add_argument("--shard-size", type=int, help="if another than the preset's")
    parser.add_argument("--steps", action="store_true", help="elements and objects by step as well")
    parser.add_argument("--markdown", action="store_true", help="tables as Markdown")
    parser.add_argument("--rates", metavar="STORE", help="print the rates of a store with a finished sample, as JSON")
    parser.add_argument("--rows", action="store_true", help="measure rows in Prefect's database, which takes a minute")
    given = parser.parse_args(arguments)
    if given.rows:
        print("rows of a lane and of a shown element: {}, {}".format(*measured_rows()))
        return
    if given.rates:
        print(json.dumps(measured_rates(open_store(given.rates)), indent=1))
        return
    overrides = {"shard_size": given.shard_size} if given.shard_size else None
    tables = report(given.photographs or SIZES, given.lanes or LANES, given.steps, overrides)
    print("\n\n".join("\n".join((_markdown if given.markdown else _plain)(table)) for table in tables))
    print(f"\nThe sample's rates: {read_rates().said}.")


def _markdown(table: Table) -> list[str]:
    head, *rows = table
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _plain(table: Table) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


if __name__ == "__main__":
    main()
