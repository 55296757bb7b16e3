"""`telltale report`: where a run's report and explorer lie, or what changed between two runs."""

from __future__ import annotations

import json
import webbrowser
from typing import Annotated

import typer

from storage.errors import MissingInput, ObjectMissing, TelltaleError
from storage.opening import open_store
from storage.runs import RUNS, browser_link, finished_at, latest_runs
from storage.store import Store

USAGE = 2


def show_report(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="A run's name, or an experiment's for its newest; else the newest run."),
    ] = None,
    other: Annotated[
        str | None, typer.Argument(metavar="LATER", help="Another run: say what changed from RUN to it.")
    ] = None,
    opened: Annotated[
        bool, typer.Option("--open", help="Open the report in the browser, and serve it until Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Say where a run's report and explorer are, open them, or say what changed between two runs.

    Runs are compared on the pictures that both count: paired tests, adjusted for all comparisons (Holm). The
    store is TELLTALE_STORE.
    """
    if opened and other is not None:
        raise typer.BadParameter("--open shows one run, not two")
    try:
        store = open_store()
        if other is not None and run is not None:
            _say_changes(store, run_place(store, run), run_place(store, other), as_json)
            return
        place = run_place(store, run)
        found = _files(store, place)
        if as_json:
            typer.echo(json.dumps({"run": place.rpartition("/")[2]} | found))
        else:
            for what, link in found.items():
                # A browser lets no page of a file read the files beside it.
                hint = "  (--open serves it)" if what == "explorer" and link.startswith("file:") else ""
                typer.echo(f"{what:10} {link}{hint}")
        if opened:
            _serve(store, place)
    except TelltaleError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE) from error


def run_place(store: Store, name: str | None) -> str:
    """The place of a run by its name, of an experiment's newest run by its, or of the newest run of all.

    Raises:
        MissingInput: there is no run.
        ObjectMissing: there is none of that name.
    """
    newest = latest_runs(store)
    if name is None:
        if not newest:
            raise MissingInput(f"a run in {store.url}: make one with `telltale evaluate`")
        return max(newest.values(), key=lambda place: finished_at(store, place))
    if name in newest:
        return newest[name]
    place = f"{RUNS}/{name}"
    if "/" in name or store.size(f"{place}/index.json") is None:
        known = ", ".join(sorted(newest)) or "none"
        raise ObjectMissing(f"no run {name!r} in {store.url}; experiments that have one: {known}")
    return place


def _files(store: Store, place: str) -> dict[str, str]:
    """Links to what a run has for people, by what it is."""
    files = {"report": "report.html", "explorer": "explorer/index.html", "pictures": "pictures.parquet"}
    return {
        what: browser_link(store, f"{place}/{file}")
        for what, file in files.items()
        if store.size(f"{place}/{file}") is not None
    }


def _say_changes(store: Store, before: str, after: str, as_json: bool) -> None:
    # Polars and SciPy take a second: not where a report is only looked for.
    from tasks.explorer.changes import beyond_chance, changes, in_a_line, read_run, shown

    found = changes(read_run(store, before), read_run(store, after))
    if as_json:
        typer.echo(json.dumps({"before": before, "after": after, "changes": found.to_dicts()}))
        return
    typer.echo(in_a_line(found, before.rpartition("/")[2]))
    rows = shown(beyond_chance(found)) or shown(found)
    from rich.table import Table

    from deployments.terminal import print_uncut

    table = Table(*(rows[0] if rows else ()), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row.values())
    print_uncut(table)


def _serve(store: Store, place: str) -> None:
    """Serve the store's runs on this machine alone, and open one's report, until the process is interrupted."""
    from deployments.reports import HOST, reports_server

    with reports_server(store, 0) as server:
        address = f"http://{HOST}:{server.server_address[1]}/{place}/report.html"
        typer.echo(f"{address} (Ctrl-C ends it)")
        webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("")
