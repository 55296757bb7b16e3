"""The app with the newest networks, as static files in the store."""

import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from prefect import flow
from prefect.logging import get_run_logger

from flows.runner import attempt
from storage.digest import canonical_json, digest_of, sha256_hex
from storage.errors import MissingInput, ObjectMissing
from storage.opening import open_store
from storage.paths import absolute
from storage.runs import RUNS, latest_run, published_networks
from storage.store import Store, create_once
from tasks.app_files import APP_SETTING, MOST_BYTES, complete_app, first_visit_bytes, read_app, read_pictures
from tasks.artifacts import artifact_key, show_link, show_markdown

PUBLISHED = "published/mobile"
# Beside the app's files, and written last: without it the others are an unfinished publication.
CONTENTS = "published.json"
DIGEST_IN_PLACE = 12


@dataclass(frozen=True)
class PublishedApp:
    """An app in the store: its folder, the networks by name with the bytes of their files, and how large it is.

    The first network is the one that the app starts with; `first_visit` is what a first visit fetches, in bytes.
    """

    place: str
    run: str
    networks: Mapping[str, int]
    files: int
    first_visit: int


@flow(name="publish", flow_run_name="publish the app with {experiment}", persist_result=False)
def publish_mobile(
    experiment: str = "coco", run: str | None = None, first: str | None = None, pictures: str | None = None
) -> str:
    """Write the built app with a run's networks to the store, as a folder that any static host can serve.

    Args:
        experiment: whose newest run the networks and cards are taken from.
        run: the name of a run, such as `coco-0123456789ab`, in place of the newest.
        first: the network that the app starts with; else the smallest that loses at most a point against the
            experiment's first, by the run's stage table; else the experiment's first.
        pictures: a folder of reference pictures, LABEL/NAME.jpg or .png, in place of those of the app.
    """
    with attempt():
        store = open_store()
        built, chosen = _checked_inputs(store, experiment, run)
        app = publish_app(store, built, chosen, first, None if pictures is None else read_pictures(absolute(pictures)))
        _show(store, experiment, app)
        return app.place


def app_folder() -> Path:
    """Where the built app lies: `TELLTALE_APP`, else `mobile/dist` of the working tree."""
    named = os.environ.get(APP_SETTING)
    return absolute(named) if named else Path(__file__).parents[1] / "mobile" / "dist"


def _checked_inputs(store: Store, experiment: str, run: str | None) -> tuple[dict[str, bytes], str]:
    """The built app's files and the run's place; all that is missing at once."""
    missing: list[str] = []
    built: dict[str, bytes] = {}
    place = ""
    try:
        built = read_app(app_folder())
    except MissingInput as error:
        missing += error.missing
    try:
        place = run_with_networks(store, experiment, run)
    except MissingInput as error:
        missing += error.missing
    if missing:
        raise MissingInput(*missing)
    return built, place


def run_with_networks(store: Store, experiment: str, run: str | None = None) -> str:
    """The place of a run by name, else of the experiment's newest.

    Raises:
        MissingInput: there is no such run, or it has no networks.
    """
    try:
        place = latest_run(store, experiment) if run is None else f"{RUNS}/{run}"
    except ObjectMissing as error:
        raise MissingInput(f"{error}: evaluate it first, or name another experiment") from error
    if store.size(f"{place}/index.json") is None:
        raise MissingInput(f"a finished run at {place} of {store.url}: name one of those under {RUNS}")
    if not published_networks(store, place):
        raise MissingInput(f"networks in {place} of {store.url}: its experiment needs a `mobile` part")
    return place


def publish_app(
    store: Store,
    built: Mapping[str, bytes],
    run: str,
    first: str | None = None,
    pictures: Iterable[tuple[str, str, bytes]] | None = None,
) -> PublishedApp:
    """Write a built app's files with the networks of the run at this place; equal files are written only once.

    Raises:
        MissingInput: the run has no network `first`.
        TelltaleError: the app would be too large, or a network and its card do not belong together (`complete_app`).
    """
    names = published_networks(store, run)
    starts = first or starting_network(store, run, names)
    if starts not in names:
        raise MissingInput(f"the network {starts!r} in {run} of {store.url}: it has {', '.join(names)}")
    ordered = (starts, *(name for name in names if name != starts))
    networks = {
        name: (store.read(f"{run}/models/{name}.onnx"), store.read(f"{run}/models/{name}.json")) for name in ordered
    }
    files = complete_app(built, networks, pictures)
    digests = {path: sha256_hex(data) for path, data in files.items()}
    run_name = run.rpartition("/")[2]
    place = f"{PUBLISHED}/{digest_of(digests)[:DIGEST_IN_PLACE]}"
    app = PublishedApp(
        place, run, {name: len(model) for name, (model, _) in networks.items()}, len(files), first_visit_bytes(files)
    )
    contents = {
        "run": run_name,
        "networks": [
            {"name": name, "bytes": len(model), "sha256": sha256_hex(model)} for name, (model, _) in networks.items()
        ],
        "first_visit_bytes": app.first_visit,
        "files": {path: {"bytes": len(files[path]), "sha256": digest} for path, digest in digests.items()},
    }
    for path, data in files.items():
        create_once(store, f"{place}/{path}", data)
    create_once(store, f"{place}/{CONTENTS}", canonical_json(contents).encode())
    return app


def starting_network(store: Store, run: str, names: tuple[str, ...]) -> str:
    """The smallest of a run's networks that its stage table says to lose at most a point; else the first of them."""
    key = f"{run}/tables/stages.parquet"
    if store.size(key) is None:
        return names[0]
    stages = pl.read_parquet(io.BytesIO(store.read(key)))
    holding = stages.filter(pl.col("loses_at_most_a_point").fill_null(value=False))["network"].to_list()
    candidates = [name for name in names if name in holding]
    return min(candidates, key=lambda name: store.size(f"{run}/models/{name}.onnx") or 0, default=names[0])


def _show(store: Store, experiment: str, app: PublishedApp) -> None:
    where = f"{store.url}/{app.place}"
    get_run_logger().info("%s: %d files, %.1f MB on a first visit", where, app.files, app.first_visit / 1e6)
    rows = "\n".join(f"| {name} | {size / 1e6:.1f} MB |" for name, size in app.networks.items())
    show_markdown(
        artifact_key("app", experiment),
        (
            f"The app lies in `{where}`: {app.files} files, {app.first_visit / 1e6:.1f} MB on a first visit "
            f"(at most {MOST_BYTES / 1e6:.0f}). Copy the folder to any static host that serves https.\n\n"
            f"It starts with **{next(iter(app.networks))}**. Networks from `{app.run}`:\n\n"
            f"| network | file |\n|---|---|\n{rows}\n"
        ),
        f"The app with the networks of {app.run}",
    )
    show_link(artifact_key("app-files", experiment), f"{where}/index.html", app.place)
