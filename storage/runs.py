"""Where finished runs lie, and the one mutable file that says which is the newest of each experiment."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from storage.digest import canonical_json
from storage.errors import DamagedObject, ObjectMissing
from storage.objects import MANIFEST
from storage.store import Store

RUNS = "runs/evaluate"
LATEST = "refs/latest.json"
REPORTS_SETTING = "TELLTALE_REPORTS_URL"


@dataclass(frozen=True)
class RunIndex:
    """A finished run's experiment, and the networks for a phone that the experiment lists, in its order."""

    experiment: str
    networks: tuple[str, ...]


def browser_link(store: Store, key: str) -> str:
    """Where a browser finds a file of a run: at the address that serves the store, where one is known.

    `TELLTALE_REPORTS_URL` is such an address. Without it the link is the store's own, which browsers may refuse.
    """
    served = os.environ.get(REPORTS_SETTING)
    return f"{(served or store.url).rstrip('/')}/{quote(key)}"


def run_places(keys: Iterable[str]) -> list[str]:
    """The places of the finished runs among keys below `RUNS`: those that have an index."""
    places = (key.removesuffix("/index.json") for key in keys if key.endswith("/index.json"))
    return [place for place in places if place.count("/") == RUNS.count("/") + 1]


def latest_run(store: Store, experiment: str) -> str:
    """The place of the newest run of an experiment; `ObjectMissing` if there is none."""
    places = latest_runs(store)
    if experiment not in places:
        others = f", only of {sorted(places)}" if places else ", nor of any other experiment"
        raise ObjectMissing(f"no run of {experiment!r} in {store.url}{others}")
    return places[experiment]


def latest_content(store: Store, experiment: str) -> dict[str, str]:
    """Digests of the content tables of an experiment's newest run, by the table's name: no times, hosts or ids."""
    index = _document(store, f"{latest_run(store, experiment)}/index.json")
    return {uri.rsplit("/", 1)[0]: digest for uri, digest in index["content"].items()}


def set_latest_run(store: Store, experiment: str, place: str) -> None:
    """Say that this run is an experiment's newest."""
    store.write(LATEST, canonical_json(latest_runs(store) | {experiment: place}).encode())


def published_networks(store: Store, place: str) -> tuple[str, ...]:
    """Names of a run's published networks, in the order in which its experiment lists them, then by name."""
    files = [PurePosixPath(key) for key in store.list(f"{place}/models")]
    names = sorted(file.stem for file in files if file.suffix == ".onnx")
    if not names:
        return ()
    order = run_index(store, place).networks
    return tuple(sorted(names, key=lambda name: order.index(name) if name in order else len(order)))


def run_index(store: Store, place: str) -> RunIndex:
    """What a finished run says of itself.

    Raises:
        ObjectMissing: it has no index: it is not finished, or was removed.
        DamagedObject: its index is not one that a run writes.
    """
    key = f"{place}/index.json"
    index = _document(store, key)
    try:
        experiment = index["experiment"]
        mobile = experiment["mobile"]
        networks = () if mobile is None else tuple(listed["name"] for listed in mobile["networks"])
        return RunIndex(experiment["name"], networks)
    except (KeyError, TypeError) as error:
        reason = "its experiment has no name or no list of named networks"
        raise DamagedObject(f"{key} in {store.url} is not what a run writes: {reason}") from error


def finished_at(store: Store, place: str) -> float:
    """When a run's report was finished, in seconds since 1970: a copy of a store has other times of its files.

    Of a run whose report is no object of the store any more, or that says nothing of it, the time of its index.

    Raises:
        ObjectMissing: it has no index.
    """
    key = f"{place}/index.json"
    try:
        report = _document(store, f"{_document(store, key)['report']['uri']}/{MANIFEST}")
        return datetime.fromisoformat(report["created"]).timestamp()
    except (ObjectMissing, DamagedObject, KeyError, TypeError, ValueError):
        return store.modified(key)


def latest_runs(store: Store) -> dict[str, str]:
    """The place of every experiment's newest run, by the experiment's name."""
    if not store.size(LATEST):
        # A missing bucket, too, has nothing under this key; asked for a listing, it says that it is none.
        store.list("refs")
        return {}
    places: dict[str, str] = _document(store, LATEST)
    return places


def _document(store: Store, key: str) -> dict[str, Any]:
    try:
        found = json.loads(store.read(key))
    except ValueError as error:
        raise DamagedObject(f"{key} in {store.url} is not readable as JSON: {error}") from error
    if not isinstance(found, dict):
        raise DamagedObject(f"{key} in {store.url}: expected a JSON object, got {type(found).__name__}")
    return found
