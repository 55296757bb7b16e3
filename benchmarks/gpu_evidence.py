"""What a finished plan says of who made what, and what must hold of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COSINE = 0.999


@dataclass(frozen=True)
class Check:
    """One thing that has to hold."""

    name: str
    holds: bool
    found: str


@dataclass(frozen=True)
class LaneRecord:
    """A lane's last status, and all that it noted: place, rows, bytes, seconds (0 where it was found finished)."""

    status: Mapping[str, Any]
    notes: Sequence[Sequence[Any]]

    @property
    def made(self) -> list[str]:
        """The places of the objects that it computed."""
        return [place for place, _, _, seconds in self.notes if seconds > 0]


@dataclass(frozen=True)
class Evidence:
    """What a finished plan left in the store: recipes by place, the pool of every element's place, its lanes."""

    recipes: Mapping[str, Mapping[str, Any]]
    pools: Mapping[str, str]
    lanes: Sequence[LaneRecord]
    failures: Sequence[str] = ()
    claims: Sequence[str] = ()


def evidence_of(store: Any, plan: str) -> Evidence:
    """What a plan left in its store."""
    from storage.claims import CLAIMS
    from storage.objects import finished_objects, read_manifest
    from storage.plans import PlanFolder

    folder = PlanFolder(store, plan)
    pools = {place: pool for pool, document in elements_of(folder) for place in document["places"]}
    lanes = []
    for lane, _ in folder.statuses():
        status = folder.status(lane) or {}
        sealed = [note for number in range(status["sealed"]) for note in folder.notes(lane, number)]
        lanes.append(LaneRecord(status, [*sealed, *status["notes"]]))
    return Evidence(
        recipes={place: read_manifest(store, place).recipe for place in finished_objects(store)},
        pools={place: pool for place, pool in pools.items() if not place.startswith("facts/")},
        lanes=lanes,
        failures=[folder.failure(keys[0])["message"] for keys in folder.failures().values()],
        claims=store.list(CLAIMS),
    )


def elements_of(folder: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pool and document of every element of a plan."""
    for pool in ("cpu", "gpu"):
        for segment in folder.segments(pool)[0]:
            for document in folder.segment(pool, segment):
                yield pool, document


def devices_in(value: Any) -> Iterator[str]:
    """Every device that a recipe names, however deep."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name == "device" and isinstance(item, str):
                yield item
            else:
                yield from devices_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from devices_in(item)


def checks(evidence: Evidence, device: str) -> list[Check]:
    """What must hold of a plan whose gpu pool had this device."""
    of_gpu = [place for place, pool in evidence.pools.items() if pool == "gpu"]
    devices = {place: set(devices_in(evidence.recipes.get(place, {}))) for place in of_gpu}
    elsewhere = sorted(place for place, named in devices.items() if named - {device})
    named = Counter(place.split("/")[1] for place, found in devices.items() if found == {device})
    unfinished = sorted(set(evidence.pools) - set(evidence.recipes))
    times = Counter(place for lane in evidence.lanes for place in lane.made)
    twice = sorted(place for place, count in times.items() if count > 1)
    computed = sum(lane.status["computed"] for lane in evidence.lanes)
    lanes = Counter(f"{lane.status['pool']} on {lane.status['device']}" for lane in evidence.lanes)
    wrong_pool = sorted(
        place for lane in evidence.lanes for place in lane.made if evidence.pools.get(place) != lane.status["pool"]
    )
    astray = [name for name in lanes if name not in ("cpu on cpu", f"gpu on {device}")]
    return [
        Check(f"the gpu pool's steps ran on {device}", bool(named) and not elsewhere, _said(named, elsewhere)),
        Check("every element's object is finished", bool(evidence.pools) and not unfinished, _said({}, unfinished)),
        Check(
            "nothing was made twice",
            not twice and computed == len(evidence.pools),
            f"{computed} computed for {len(evidence.pools)} objects; {_said({}, twice)}",
        ),
        Check("lanes have their pool's device", bool(lanes) and not astray, _said(lanes, astray)),
        Check("no lane made another pool's objects", not wrong_pool, _said({}, wrong_pool)),
        Check("nothing failed", not evidence.failures, _said({}, evidence.failures)),
        Check("no claim is left", not evidence.claims, _said({}, evidence.claims)),
    ]


def _said(counts: Mapping[str, int], wrong: Sequence[str]) -> str:
    """Counts by name, then the first of what is wrong."""
    said = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return "; ".join(filter(None, [said, f"wrong: {len(wrong)}, such as {wrong[0]}" if wrong else "none wrong"]))


def least_cosine(store: Any, plan: str, device: str) -> tuple[float, int]:
    """The least agreement of a shard's features, in all views, with this CPU's, and how many there are."""
    import numpy as np

    from storage.objects import find
    from storage.plans import PlanFolder
    from storage.tables import embedding_matrix, read_features
    from tasks.elements import element_of

    # What a pool of CPUs embeds as well, such as the features of the audit, was never anywhere else.
    chosen = next(
        document
        for pool, document in elements_of(PlanFolder(store, plan))
        if pool == "gpu" and document["step"] == "embed"
    )
    element = element_of(chosen)
    here, cached = element.step.compute(store, **{**element.arguments, "device": "cpu"})
    assert cached == (device == "cpu")
    least, count = 1.0, 0
    for place, own in zip(element.places, here, strict=True):
        there = find(store, place)
        assert there is not None
        one, other = (embedding_matrix(read_features(store, [ref])).astype(np.float64) for ref in (there, own))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        least = min(least, float(((one * other).sum(axis=1) / norms).min()))
        count += len(one)
    return least, count
