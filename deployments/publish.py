"""`telltale publish`: a network to give away, fitted on an experiment's pictures, with its error rates."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from deployments.experiment_options import SeedOption, SetOption, chosen
from deployments.failures import exit_status, sentence
from deployments.interruption import stops_at_ctrl_c
from storage.errors import TelltaleError
from storage.local import LocalStore
from storage.opening import open_store


def publish(
    experiment: Annotated[
        str, typer.Argument(metavar="[EXPERIMENT]", help="A preset's name or a YAML file with a `published` part.")
    ] = "generators",
    settings: SetOption = None,
    seed: SeedOption = None,
    into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder for the network and its card, beside the store.")
    ] = None,
) -> None:
    """Fit a small network to give away, and write it with its error rates, licences and provenance.

    How it does on known generators, and on those that were left out, is measured with networks that did not see the
    tested pictures; the one that is written saw all. `telltale detect --model FILE.onnx` and the app answer by it.
    """
    from rich.console import Console

    from deployments.home_folder import check_settings
    from deployments.services import ensure_server
    from deployments.terminal import leave_the_log_to_the_ui

    console = Console()
    with stops_at_ctrl_c():
        try:
            check_settings()
            leave_the_log_to_the_ui()
            asked = chosen(experiment, None, None, None, None, settings, seed)
            # Said before a server is started.
            _ = asked.experiment.network_to_publish
            server = ensure_server()
            os.environ.update(server.environment)
            # Prefect reads its settings when it is first imported: only now is the server's address known.
            from deployments.terminal import task_bars
            from flows.publish_network import publish_network

            with task_bars(console):
                place = publish_network(
                    experiment=asked.name,
                    overrides=asked.overrides or None,
                    seed=asked.seed,
                    into=None if into is None else str(into),
                )
        except (TelltaleError, OSError) as error:
            typer.echo(f"error: {sentence(error)}", err=True)
            raise typer.Exit(exit_status(error)) from error
    store = open_store()
    folder = store.root / place if isinstance(store, LocalStore) else f"{store.url}/{place}"
    console.print(f"network: {folder if into is None else into}", soft_wrap=True, highlight=False)
