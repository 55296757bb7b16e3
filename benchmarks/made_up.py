"""An experiment planned over made-up inputs: its own code, without a file, a worker or a server.

    python -m benchmarks.made_up > tests/unit/plan_digests.txt      where every object of the presets would lie

Facts are made up, as are the versions of libraries: the digests are the same on every machine and after every upgrade.
The few objects whose content planning reads lie in a store of its own; of the others it asks no more than how many
rows they have.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from flows.evaluate import evaluation_of
from flows.preflight import CHECKS, refuse_missing, wanted_facts
from storage.digest import sha256_hex
from storage.errors import NotFinished
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit
from storage.store import STORE_SETTING
from tasks.elements import Element
from tasks.facts import Fact, Facts, as_json, facts_known
from tasks.planning import Finished, Plan
from tasks.presets import PRESETS, load_unfilled
from tasks.recipe import Pool, planned_by
from tasks.spec.experiment import Experiment

SHA256 = sha256_hex(b"made up")
PICTURES = 1_000
PICTURES_OF_SAMPLE = 99
# What is read of them while planning goes on: their warnings, files that two of them share, the photographs' qualities,
# how files are encoded, and which have a window.
_ENTRIES = pa.schema([("image_id", pa.string()), ("file", pa.string()), ("sha256", pa.string())])
_NOTES: Mapping[str, Mapping[str, Any]] = {
    "index": {"warnings": []},
    "encodings": {"jpegs": [[75, "420", 9], [96, "420", PICTURES]], "clean": [[640, PICTURES]]},
    "windows": {
        "places": [
            {"split": split, "fold": fold, "pictures": PICTURES, "windows": PICTURES, "clean": PICTURES}
            for split, fold in (("train", None), ("val", None), *((None, fold) for fold in range(5)))
        ]
    },
    "assign": {
        "sources": {},
        "shared": {"count": 0, "first": []},
        "qualities": [[90, PICTURES]],
        "qualities_are_default": False,
        "unknown_groups": [],
    },
}


def planned(
    experiment: Experiment, pictures: int = PICTURES, compute: Callable[[Experiment], Any] = evaluation_of
) -> Iterator[list[Element]]:
    """Plan an experiment whose sources on disk hold so many pictures each, or as many as it takes of them.

    Yields waves: the elements that become ready at once when those of all waves before are made. So there are as many
    as the longest chain has elements of which each waits for the one before it.

    Args:
        experiment: any, its variables unfilled.
        pictures: on disk, of each source.
        compute: the code that is the plan.
    """
    answers = {asked.digest(*given): answer(asked, given) for asked, given in wanted_facts(experiment)}
    facts = Facts(answers, ask=_refuse)
    with tempfile.TemporaryDirectory(prefix="telltale-made-up-") as folder:
        store = LocalStore(Path(folder))
        plan = Plan(Finished(store), needs)
        is_planned = False
        while plan.open or not is_planned:
            if not is_planned:
                is_planned = _goes_through(experiment, compute, plan, facts, folder)
            wave = plan.take_ready()
            assert wave or is_planned, "nothing is ready, and planning does not go on"
            if wave:
                yield wave
            for element in wave:
                for place in element.places:
                    plan.finish(_object(store, element, place, pictures))


def _goes_through(
    experiment: Experiment, compute: Callable[[Experiment], Any], plan: Plan, facts: Facts, store: str
) -> bool:
    """Whether planning comes to its end, from the start once more."""
    try:
        with _only_setting(store), facts_known(facts), planned_by(plan):
            refuse_missing(experiment, ("cpu", "gpu"))
            compute(experiment)
    except NotFinished:
        return False
    return True


def answer(asked: Fact[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What a worker might say, as JSON."""
    if asked.name in [check.name for check in CHECKS]:
        return []
    if asked.name in ("folder_content", "model_of_gpu_workers"):
        return [as_json(arguments[0]), SHA256]
    if asked.name in ("vgg16_digest", "mobilenet_digest"):
        weights: str = arguments[0]
        return weights if weights.startswith("random:") else f"sha256:{SHA256}"
    return SHA256


class _AllOne(dict[str, str]):
    """Every library has the same version."""

    def __missing__(self, library: str) -> str:
        return "1"


def needs(pool: Pool) -> Mapping[str, Any]:
    """What the workers of a pool have: a CPU, and of every library version 1."""
    return {"device": "cpu", "versions": _AllOne()}


def preset(name: str, overrides: dict[str, Any] | None = None) -> Experiment:
    """A preset whose variables have the values that it names itself, or none."""
    with _only_setting(None):
        experiment, _ = load_unfilled(name, overrides)
    return experiment


def places_by_step(experiment: Experiment) -> dict[str, list[str]]:
    """The places of all of an experiment's objects by step, sorted; with as many pictures as are made up."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    is_sample = any(source.kind == "sample" for source in experiment.sources)
    pictures = PICTURES_OF_SAMPLE if is_sample else PICTURES
    for element in itertools.chain.from_iterable(planned(experiment, pictures)):
        found[element.step.name] += element.places
    return {step: sorted(places) for step, places in sorted(found.items())}


def digest_lines() -> list[str]:
    """A line for every step of every preset, with a digest of all places, and one for every object of `sample`."""
    found = {name: places_by_step(preset(name)) for name in sorted(path.stem for path in PRESETS.glob("*.yaml"))}
    lines = [
        f"{name} {step} {len(places)} {sha256_hex(' '.join(places).encode())}"
        for name, by_step in found.items()
        for step, places in by_step.items()
    ]
    return [*lines, *(place for places in found["sample"].values() for place in places)]


def _refuse(asked: Fact[..., Any], arguments: tuple[Any, ...]) -> None:
    raise AssertionError(f"{asked.name} is not among the facts that are wanted: {arguments}")


def _object(store: LocalStore, element: Element, place: str, pictures: int) -> Ref:
    step, arguments = element.step.name, element.arguments
    rows = _rows(step, arguments, pictures)
    kind = step.partition("/")[0]
    if kind in _NOTES:
        parts = {ROWS: _ENTRIES.empty_table()} if kind == "index" else {}
        digest = place.rpartition("/")[2]
        commit(store, place, step=step, digest=digest, recipe={}, parts=parts, notes=_NOTES[kind])
    return Ref(uri=place, digest=place.rpartition("/")[2], rows=rows, bytes=1)


def _rows(step: str, arguments: Mapping[str, Any], pictures: int) -> int:
    """Rows of what the code asks them of: indices, and shards of photographs."""
    if step in ("scan", "shard"):
        return int(min(arguments["count"], arguments["entries"].rows - arguments["start"]))
    limit = arguments.get("limit", getattr(arguments.get("source"), "limit", None))
    return pictures if limit is None else min(limit, pictures)


@contextmanager
def _only_setting(store: str | None) -> Iterator[None]:
    """Within this block none of telltale's settings is this machine's, and flows open this store."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith("TELLTALE_")]:
        del os.environ[name]
    if store is not None:
        os.environ[STORE_SETTING] = store
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    print("\n".join(digest_lines()))
