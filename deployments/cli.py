"""The console command `telltale`."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Annotated

import typer

from deployments.check import check
from deployments.detect import detect, one_line
from deployments.evaluate import evaluate
from deployments.failures import sentence
from deployments.lists import doctor, list_experiments, list_networks, list_runs
from deployments.pictures import export_pictures
from deployments.publish import publish
from deployments.runs import show_report

USAGE = 2

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(f"telltale {importlib.metadata.version('telltale')}")
        raise typer.Exit


@app.callback()
def telltale(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Tell generated pictures from photographs, with the error rates that were measured."""


_STATUS = "Exit status: 0; 2 for a wrong input, option or setting, or a missing one; 1 for other failures."
_STATUS_OF_ANSWERS = (
    "Exit status: 0; 1 when some pictures could not be read; 2 for a wrong command, a missing model, or an answer that "
    "cannot be written; 141 where nobody reads it any more."
)

app.command("check", epilog=_STATUS)(check)
app.command("evaluate", epilog=f"{_STATUS[:-1]}; 130 after Ctrl-C, and started again it goes on.")(evaluate)
app.command("report", epilog=_STATUS)(show_report)
app.command("runs")(list_runs)
app.command("detect", epilog=_STATUS_OF_ANSWERS)(detect)
app.command("publish", epilog=_STATUS)(publish)
app.command("networks")(list_networks)
app.command("experiments")(list_experiments)
app.command("pictures", epilog=_STATUS)(export_pictures)
app.command("doctor")(doctor)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold what a terminal's encoding lacks.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Where a block of Prefect's is asked for (TELLTALE_S3_BLOCK), Prefect is to tell nobody that it was.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "the standard output is closed: an answer could not be written")
        app()
    except OSError as error:
        # Such as a disk that is full. The error output may lie on it, too.
        with contextlib.suppress(OSError):
            typer.echo(f"error: {one_line(sentence(error))}", err=True)
        sys.exit(USAGE)
    finally:
        _drop_what_nobody_takes()


def _drop_what_nobody_takes() -> None:
    """Give up what could not be written: the interpreter would try it once more as it ends, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
