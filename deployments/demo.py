"""`make demo` and `make subset`: run an experiment in this process against a local server, and show the result."""

import os
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deployments.failures import exit_status, sentence
from deployments.home_folder import check_settings
from deployments.services import ensure_reports, ensure_server
from deployments.terminal import leave_the_log_to_the_ui, task_bars
from storage.errors import TelltaleError
from storage.local import LocalStore
from storage.opening import open_store
from storage.runs import REPORTS_SETTING
from tasks.overrides import parse_overrides
from tasks.presets import load_unfilled

app = typer.Typer(add_completion=False)


@app.command(epilog="Exit status: 0; 2 for a wrong input, option or setting, or a missing one; 1 for other failures.")
def main(
    experiment: Annotated[str, typer.Option(help="A preset's name or a YAML file.")] = "sample",
    overrides: Annotated[str, typer.Option(help='Values over it, as JSON: {"sources.gan.count": 50}.')] = "{}",
    seed: Annotated[int | None, typer.Option(help="The experiment's seed.")] = None,
) -> None:
    """Run an experiment from photographs to report, reusing everything that is finished."""
    console = Console()
    started = time.monotonic()
    try:
        changes = parse_overrides(overrides)
        # What is wrong is said before a server is started, which takes up to a minute.
        check_settings()
        leave_the_log_to_the_ui()
        load_unfilled(experiment, changes, seed)
        server = ensure_server()
        os.environ.update(server.environment)
        reports = ensure_reports(server)
        if reports is not None:
            os.environ[REPORTS_SETTING] = reports
        place = _evaluate(console, experiment, changes, seed)
        _print_results(console, place)
    except (TelltaleError, OSError) as error:
        typer.echo(f"error: {sentence(error)}", err=True)
        raise typer.Exit(exit_status(error)) from error
    console.print(f"report:  {_shown_path(f'{place}/report.html')}", soft_wrap=True, highlight=False)
    if reports is not None:
        console.print(f"browser: {reports}/{place}/report.html", soft_wrap=True, highlight=False)
    console.print(f"tables:  {_shown_path(f'{place}/tables')}", soft_wrap=True, highlight=False)
    console.print(f"UI:      {server.ui_url}  (the server keeps running; `make stop` ends it)", highlight=False)
    console.print(f"{time.monotonic() - started:.0f} seconds")


def _evaluate(console: Console, experiment: str, overrides: dict[str, Any], seed: int | None) -> str:
    # Prefect reads its settings when it is first imported: only now is the server's address known.
    from flows.evaluate import evaluate_all

    with task_bars(console):
        return str(evaluate_all(experiment=experiment, overrides=overrides or None, seed=seed))


def _print_results(console: Console, place: str) -> None:
    """The grid of the first detector, every detector, the networks for a phone, and the first project's ten rows."""
    from deployments.tables import DETECTORS, FIRST_PROJECT, GRID, NETWORK_COLUMNS, NETWORKS, short_tables

    tables = short_tables(open_store(), place)
    grids = [title for title in tables if title.startswith(GRID)]
    every = [title for title in tables if title.startswith(DETECTORS)]
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


def _shown_path(key: str) -> str:
    store = open_store()
    return str(store.path(key)) if isinstance(store, LocalStore) else f"{store.url}/{key}"


if __name__ == "__main__":
    app()
