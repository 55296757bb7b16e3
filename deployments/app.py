"""Putting networks and reference pictures into the built app: `python -m deployments.app --models FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.failures import WRONG_INPUT, sentence
from flows.publish_mobile import app_folder
from storage.errors import TelltaleError
from storage.paths import absolute
from tasks.app_files import (
    complete_app,
    first_visit_bytes,
    read_app,
    read_networks,
    read_pictures,
    write_app,
)


def main(
    models: Annotated[Path, typer.Option(help="A folder of NAME.onnx with NAME.json beside each.")],
    pictures: Annotated[
        Path | None,
        typer.Option(help="Reference pictures for the Evaluate screen, LABEL/NAME.jpg or .png, in place of its own."),
    ] = None,
    first: Annotated[
        str | None, typer.Option(help="The network that the app starts with; else the first by name.")
    ] = None,
    app: Annotated[
        Path | None, typer.Option(help="The built app; else TELLTALE_APP, or mobile/dist of the working tree.")
    ] = None,
) -> None:
    """Put networks and reference pictures into the built app."""
    try:
        folder = absolute(app) if app else app_folder()
        models, pictures = absolute(models), absolute(pictures) if pictures else None
        files = complete_app(
            read_app(folder), read_networks(models, first), None if pictures is None else read_pictures(pictures)
        )
        write_app(folder, files)
    except (TelltaleError, OSError) as error:
        typer.echo(f"error: {sentence(error)}", err=True)
        raise typer.Exit(WRONG_INPUT) from error
    typer.echo(f"{folder}: {first_visit_bytes(files) / 1e6:.1f} MB on a first visit")


if __name__ == "__main__":
    typer.run(main)
