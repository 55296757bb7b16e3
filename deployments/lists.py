"""`telltale runs`, `networks`, `experiments` and `doctor`: what there is, and whether this machine is ready."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from deployments.failures import FAILED, exit_status, sentence
from storage.errors import DamagedObject, ObjectMissing, TelltaleError
from storage.opening import open_store
from storage.runs import RUNS, finished_at, latest_runs, published_networks, run_index, run_places
from storage.store import Store

Row = dict[str, Any]
JsonOption = Annotated[bool, typer.Option("--json", help="A JSON list instead of text.")]


def list_runs(as_json: JsonOption = False) -> None:
    """List the finished runs of the store (TELLTALE_STORE), the newest first; * is what an experiment's name means.

    Exit status: 0; 1 where a run is damaged. It is named, and the others are listed.
    """
    _listed(_runs, as_json, "no run is finished yet: make one with `telltale evaluate`")


def list_networks(as_json: JsonOption = False) -> None:
    """List the networks that runs have published, those of the newest run first: what `telltale detect` can ask.

    Exit status: 0; 1 where a run is damaged. It is named, and the others' networks are listed.
    """
    _listed(_networks, as_json, "no run has published a network yet")


def list_experiments(
    shown: Annotated[str | None, typer.Option("--show", metavar="NAME", help="Print this preset's file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the presets, or print one: copied to a file, it is an experiment of your own."""
    from tasks.presets import PRESETS
    from tasks.strict_yaml import read_yaml

    files = {file.stem: file for file in sorted(PRESETS.glob("*.yaml"), key=lambda file: file.stem)}
    if shown is not None:
        if shown not in files:
            typer.echo(f"error: no preset {shown!r}; there are {', '.join(files)}", err=True)
            raise typer.Exit(2)
        typer.echo(files[shown].read_text(encoding="utf-8"), nl=False)
        return
    documents = {name: read_yaml(file) for name, file in files.items()}
    rows = [{"experiment": name, "what it is": document["description"]} for name, document in documents.items()]
    _listed(lambda: rows, as_json, "")


def _listed(rows_of: Callable[[], Sequence[Row]], as_json: bool, nothing: str) -> None:
    try:
        rows = rows_of()
    except (TelltaleError, OSError) as error:
        typer.echo(f"error: {sentence(error)}", err=True)
        raise typer.Exit(exit_status(error)) from error
    whole = [row for row in rows if "error" not in row]
    damaged = [row for row in rows if "error" in row]
    if as_json:
        typer.echo(json.dumps(whole + damaged))
    elif whole:
        from rich.table import Table

        from deployments.terminal import print_uncut

        table = Table(*whole[0], box=None, pad_edge=False)
        for row in whole:
            table.add_row(*map(str, row.values()))
        print_uncut(table)
    elif not damaged:
        typer.echo(nothing)
    for row in damaged:
        typer.echo(f"error: the run {row['run']} is damaged: {row['error']}", err=True)
    if damaged:
        raise typer.Exit(FAILED)


def _runs() -> list[Row]:
    store = open_store()
    newest = set(latest_runs(store).values())

    def row(time: float, place: str) -> Row:
        run_index(store, place)  # a damaged run is none, with networks or without
        return {
            "run": place.removeprefix(f"{RUNS}/"),
            "newest": "*" if place in newest else "",
            "finished": f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M} UTC",
            "networks": len(published_networks(store, place)),
        }

    return _of_runs(store, lambda time, place: [row(time, place)])


def _networks() -> list[Row]:
    store = open_store()

    def row(place: str, name: str) -> Row:
        size = store.size(f"{place}/models/{name}.onnx") or 0
        return {"network": name, "run": place.removeprefix(f"{RUNS}/"), "megabytes": round(size / 1e6, 2)}

    return _of_runs(store, lambda _, place: [row(place, name) for name in published_networks(store, place)])


def _of_runs(store: Store, rows: Callable[[float, str], list[Row]]) -> list[Row]:
    """What there is of every finished run, the newest first; of a damaged one its name and an `error`."""
    found: list[Row] = []
    for time, place in _finished(store):
        try:
            found += rows(time, place)
        except DamagedObject as error:
            found.append({"run": place.removeprefix(f"{RUNS}/"), "error": str(error)})
        except ObjectMissing:
            continue  # it was removed meanwhile
    return found


def _finished(store: Store) -> list[tuple[float, str]]:
    """When each run was finished, and its place; the newest first."""
    found = []
    for place in run_places(store.list(RUNS)):
        # One may be removed meanwhile.
        with contextlib.suppress(ObjectMissing):
            found.append((finished_at(store, place), place))
    return sorted(found, reverse=True)


def doctor() -> None:
    """Say whether this machine is ready: settings, store, server, processor, GPU, and what is optional and missing.

    Exit status: 0; 1 where something that every evaluation needs is wrong.
    """
    wrong = 0
    for what, look in _LOOKS.items():
        try:
            said = look()
        except (TelltaleError, OSError) as error:
            wrong += 1
            said = f"WRONG: {sentence(error)}"
        typer.echo(f"{what:10} {said}")
    raise typer.Exit(1 if wrong else 0)


def _settings() -> str:
    from deployments.home_folder import check_settings

    check_settings()
    named = sorted(name for name in os.environ if name.startswith("TELLTALE_"))
    return f"in order; set are {', '.join(named)}" if named else "in order; none is set"


def _store() -> str:
    from storage.store import check_writable

    store = open_store()
    check_writable(store)
    return f"{store.url}, writable; runs of {', '.join(sorted(latest_runs(store))) or 'no experiment yet'}"


def _server() -> str:
    from deployments.home_folder import home, load_state
    from deployments.services import answers

    named, port = os.environ.get("PREFECT_API_URL"), load_state(home()).port
    if named:
        return f"{named} {'answers' if answers(named) else 'does not answer: a server is started here when needed'}"
    own = f"http://127.0.0.1:{port}/api"
    return f"{own} answers" if port and answers(own) else "none runs: one is started when it is needed"


def _machine() -> str:
    return f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} cores, {sys.platform}"


def _gpu() -> str:
    from tasks.device import compute_device, has_driver

    if not has_driver():
        return "none: everything is computed on the processor"
    return "usable" if compute_device() == "cuda" else "a driver is there, and torch finds no GPU that it can use"


def _optional() -> str:
    programs = {"npm": "builds the app", "chromium": "tests pages", "postgres": "keeps Prefect's runs on pools"}
    there = {name: shutil.which(name) is not None for name in programs}
    missing = [f"{name} ({programs[name]})" for name, found in there.items() if not found]
    return f"missing: {', '.join(missing)}" if missing else "all there"


_LOOKS: dict[str, Callable[[], str]] = {
    "machine": _machine,
    "settings": _settings,
    "store": _store,
    "server": _server,
    "GPU": _gpu,
    "optional": _optional,
}
