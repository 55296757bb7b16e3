"""Where finished runs lie, and the one mutable file that says which is the newest of each experiment."""

import json
from pathlib import PurePosixPath

from storage.digest import canonical_json
from storage.errors import ObjectMissing
from storage.store import Store

RUNS = "runs/evaluate"
LATEST = "refs/latest.json"


def latest_run(store: Store, experiment: str) -> str:
    """The place of the newest run of an experiment; `ObjectMissing` if there is none."""
    places = _latest(store)
    if experiment not in places:
        others = f", only of {sorted(places)}" if places else ", nor of any other experiment"
        raise ObjectMissing(f"no run of {experiment!r} in {store.url}{others}")
    return places[experiment]


def latest_content(store: Store, experiment: str) -> dict[str, str]:
    """Digests of the content tables of an experiment's newest run, by the table's name: no times, hosts or ids."""
    index = json.loads(store.read(f"{latest_run(store, experiment)}/index.json"))
    return {uri.rsplit("/", 1)[0]: digest for uri, digest in index["content"].items()}


def set_latest_run(store: Store, experiment: str, place: str) -> None:
    """Say that this run is an experiment's newest."""
    store.write(LATEST, canonical_json(_latest(store) | {experiment: place}).encode())


def published_networks(store: Store, place: str) -> tuple[str, ...]:
    """Names of a run's published networks, in the order in which its experiment lists them, then by name."""
    files = [PurePosixPath(key) for key in store.list(f"{place}/models")]
    names = sorted(file.stem for file in files if file.suffix == ".onnx")
    if not names:
        return ()
    mobile = json.loads(store.read(f"{place}/index.json"))["experiment"]["mobile"]
    order = [listed["name"] for listed in mobile["networks"]]
    return tuple(sorted(names, key=lambda name: order.index(name) if name in order else len(order)))


def _latest(store: Store) -> dict[str, str]:
    places: dict[str, str] = json.loads(store.read(LATEST)) if store.size(LATEST) else {}
    return places
