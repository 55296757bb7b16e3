"""`telltale pictures`: the pictures of an experiment's cells as files, for a detector that runs elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.experiment_options import SetOption, names_in
from deployments.failures import exit_status, sentence
from storage.errors import SpecError, TelltaleError
from storage.opening import open_store
from storage.paths import absolute

if TYPE_CHECKING:
    from tasks.spec.experiment import Experiment
    from tasks.spec.views import Cell


def export_pictures(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A preset's name or a YAML file.")],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="A new or empty folder.")],
    cells: Annotated[
        str | None,
        typer.Option(metavar="CELL,...", help="Some of the cells, such as 64/none,64/q20. Else all of them."),
    ] = None,
    settings: SetOption = None,
    seed: Annotated[int | None, typer.Option(help="The experiment's seed.")] = None,
) -> None:
    """Write the pictures that detectors are shown in the cells of EXPERIMENT, each as the file that would be posted.

    FOLDER/pictures.csv lists them, with an empty column `score`: filled in, larger for what looks more like a fake, it
    is the table of a detector of the kind `scores`. Val pictures are in the cells alone in which nothing happens to a
    picture: thresholds come from there. Pictures that are not in the store (TELLTALE_STORE) are made first, here: that
    may take long.
    """
    from tasks.overrides import parse_settings
    from tasks.presets import load_unfilled

    try:
        changes, folder = parse_settings(settings or []), absolute(to)
        # What is wrong is said before a server is started, which takes up to a minute.
        names = names_in(cells, "--cells")
        chosen_cells(load_unfilled(experiment, changes, seed)[0], names)
        count = write(experiment, changes, seed, names, folder)
    except (TelltaleError, OSError) as error:
        typer.echo(f"error: {sentence(error)}", err=True)
        raise typer.Exit(exit_status(error)) from error
    typer.echo(f"{folder}: {count} pictures, and pictures.csv to fill in")


def chosen_cells(experiment: Experiment, names: list[str]) -> tuple[Cell, ...]:
    """The cells of an experiment that have these names, in its order; all of them where none is named.

    Raises:
        SpecError: it has no such cell.
    """
    known = [cell.name for cell in experiment.cells]
    for name in names:
        if name not in known:
            raise SpecError(f"{experiment.name} has no cell {name}, expected one of {', '.join(known)}")
    return tuple(cell for cell in experiment.cells if not names or cell.name in names)


def write(experiment: str, overrides: dict[str, object], seed: int | None, cells: list[str], folder: Path) -> int:
    """Make what is missing, write the files, and return their number; errors as `write_pictures` and the flow."""
    from rich.console import Console

    from deployments.home_folder import check_settings
    from deployments.services import ensure_server
    from deployments.terminal import leave_the_log_to_the_ui, task_bars
    from tasks.detectors.picture_files import refuse_occupied, write_pictures

    refuse_occupied(folder)
    check_settings()
    leave_the_log_to_the_ui()
    os.environ.update(ensure_server(lambda text: typer.echo(text, err=True)).environment)
    # Prefect reads its settings when it is first imported: only now is the server's address known.
    from flows.pictures import make_pictures

    with task_bars(Console(stderr=True)):
        loaded, made = make_pictures(experiment=experiment, overrides=overrides or None, seed=seed)
        return write_pictures(
            open_store(),
            made,
            cells=chosen_cells(loaded, cells),
            threshold_cells=[one for one in loaded.cells if one.perturbation is None],
            path=loaded.path,
            splits=loaded.splits,
            folder=folder,
        )
