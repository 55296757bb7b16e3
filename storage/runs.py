"""Where finished runs lie, and the one mutable file that says which is the newest of each experiment."""

import json

from storage.digest import canonical_json
from storage.errors import ObjectMissing
from storage.store import Store

RUNS = "runs/evaluate"
LATEST = "refs/latest.json"


def latest_run(store: Store, experiment: str) -> str:
    """The place of the newest run of an experiment; `ObjectMissing` if there is none."""
    places = _latest(store)
    if experiment not in places:
        raise ObjectMissing(f"no run of {experiment!r} in {store.url}, only of {sorted(places)}")
    return places[experiment]


def set_latest_run(store: Store, experiment: str, place: str) -> None:
    """Say that this run is an experiment's newest."""
    store.write(LATEST, canonical_json(_latest(store) | {experiment: place}).encode())


def _latest(store: Store) -> dict[str, str]:
    places: dict[str, str] = json.loads(store.read(LATEST)) if store.size(LATEST) else {}
    return places
