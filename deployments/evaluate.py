"""`telltale evaluate`: run an experiment in this process against a local server, or on pools, and show the result."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.check import checked, refuse, show
from deployments.experiment_options import (
    CellsOption,
    Chosen,
    DetectorsOption,
    ExperimentArgument,
    FakesOption,
    PhotographsOption,
    SeedOption,
    SetOption,
    SubmissionsOption,
    chosen,
)
from deployments.failures import exit_status, sentence
from deployments.interruption import stops_at_ctrl_c
from storage.errors import TelltaleError
from storage.local import LocalStore
from storage.opening import open_store
from storage.runs import REPORTS_SETTING

if TYPE_CHECKING:
    from rich.console import Console

    from deployments.services import ServerHandle


class Where(StrEnum):
    """Who computes."""

    HERE = "here"
    POOLS = "pools"


def evaluate(
    experiment: ExperimentArgument = None,
    photographs: PhotographsOption = None,
    fakes: FakesOption = None,
    detectors: DetectorsOption = None,
    cells: CellsOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    submissions: SubmissionsOption = None,
    on: Annotated[
        Where, typer.Option(help="This process, or the work pools of the Prefect server that runs (`make serve`).")
    ] = Where.HERE,
) -> None:
    """Evaluate an experiment from photographs to report, reusing everything that is finished.

    First it says what `telltale check` says of folders. Where it is interrupted it goes on when it is started again. A
    Prefect server is started for it, or the one that runs is asked, and keeps running (`make stop` ends it).

    On pools it is a run of the deployment evaluate/all, which goes on where this command is interrupted. Workers must
    find a YAML file and folders under the same absolute paths.
    """
    from rich.console import Console

    from deployments.home_folder import check_settings
    from deployments.on_pools import evaluated_on_pools, pools_server, refuse_missing_pools
    from deployments.services import ensure_reports, ensure_server
    from deployments.terminal import leave_the_log_to_the_ui

    console = Console()
    started = time.monotonic()
    with stops_at_ctrl_c() as interruption:
        try:
            # What is wrong is said before a server is started, which takes up to a minute.
            check_settings()
            leave_the_log_to_the_ui()
            asked = chosen(experiment, photographs, fakes, detectors, cells, settings, seed, submissions)
            server = pools_server() if on is Where.POOLS else ensure_server()
            os.environ.update(server.environment)
            if on is Where.POOLS:
                refuse_missing_pools()
            if photographs:
                # It imports Prefect, which reads the server's address then and no other time.
                found = checked(asked)
                show(console, asked, found)
                refuse(found)
            reports = ensure_reports(server)
            if reports is not None:
                os.environ[REPORTS_SETTING] = reports
            if on is Where.POOLS:
                place = evaluated_on_pools(console, asked, server, interruption)
            else:
                place = _evaluate(console, asked)
            _print_results(console, place)
        except (TelltaleError, OSError) as error:
            typer.echo(f"error: {sentence(error)}", err=True)
            raise typer.Exit(exit_status(error)) from error
        _print_places(console, place, reports, server)
        console.print(f"{time.monotonic() - started:.0f} seconds")


def _evaluate(console: Console, asked: Chosen) -> str:
    # Prefect reads its settings when it is first imported: only now is the server's address known.
    from deployments.terminal import task_bars
    from flows.evaluate import evaluate_all

    with task_bars(console):
        return str(evaluate_all(experiment=asked.name, overrides=asked.overrides or None, seed=asked.seed))


def _print_results(console: Console, place: str) -> None:
    """The answer, the grid of the first detector, every detector, audits, networks, and the first project's rows."""
    from rich.padding import Padding
    from rich.table import Table

    from deployments.tables import (
        AUDITED,
        DETECTORS,
        FIRST_PROJECT,
        GRID,
        NETWORK_COLUMNS,
        NETWORKS,
        answer,
        short_tables,
    )

    store = open_store()
    for line in answer(store, place):
        console.print(Padding(line, (0, 0, 1, 0)), markup=False, highlight=False)
    tables = short_tables(store, place)
    grids = [title for title in tables if title.startswith(GRID)]
    every = [title for title in tables if title.startswith((DETECTORS, AUDITED))]
    for title in (*grids[:1], *every, NETWORKS, FIRST_PROJECT):
        if title not in tables:
            continue
        short = tables[title]
        if title == NETWORKS:
            short = short.select(NETWORK_COLUMNS)
        table = Table(title=title, title_justify="left")
        for column in short.columns:
            table.add_column(column, overflow="fold")
        for row in short.rows():
            table.add_row(*row)
        console.print(table)


def _print_places(console: Console, place: str, reports: str | None, server: ServerHandle) -> None:
    """Where the results are to be looked at."""
    lines = [f"report:  {_shown_path(f'{place}/report.html')}"]
    if reports is not None:
        lines += [f"browser: {reports}/{place}/report.html", f"look:    {reports}/{place}/explorer/index.html"]
    lines += [
        f"tables:  {_shown_path(f'{place}/tables')}",
        f"UI:      {server.ui_url}  (the server keeps running; `make stop` ends it)",
    ]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def _shown_path(key: str) -> str:
    store = open_store()
    return str(store.path(key)) if isinstance(store, LocalStore) else f"{store.url}/{key}"
