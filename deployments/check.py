"""`telltale check`: what there is to know of an experiment's pictures, before anything is computed of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.experiment_options import (
    CellsOption,
    Chosen,
    DetectorsOption,
    ExperimentArgument,
    FakesOption,
    PhotographsOption,
    SeedOption,
    SetOption,
    chosen,
)
from deployments.failures import exit_status, sentence
from storage.errors import SpecError, TelltaleError
from storage.opening import open_store

if TYPE_CHECKING:
    from rich.console import Console

    from storage.objects import Ref
    from tasks.data.checked import Check
    from tasks.evaluation.expected_work import ExpectedWork

NOTHING_TO_MEASURE = 2


def check(
    experiment: ExperimentArgument = None,
    photographs: PhotographsOption = None,
    fakes: FakesOption = None,
    detectors: DetectorsOption = None,
    cells: CellsOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Read all pictures of an experiment and say what will be measured with them, what will not, and what misleads.

    It ends with how much there is to describe, and about how long that takes here, by a picture made up for it.

    Nothing is computed of them but what they are: sizes, formats, qualities, groups, repeats. It is kept in the store
    (TELLTALE_STORE), so that an evaluation does not read them again.
    """
    from rich.console import Console

    try:
        asked = chosen(experiment, photographs, fakes, detectors, cells, settings, seed)
        found = checked(asked)
        work = _work(asked, found)
    except (TelltaleError, OSError) as error:
        typer.echo(f"error: {sentence(error)}", err=True)
        raise typer.Exit(exit_status(error)) from error
    if as_json:
        sources = [one.document for one in found.sources]
        document = {"sources": sources, "warnings": found.warnings, "errors": found.errors}
        typer.echo(json.dumps(document | {"work": None if work is None else work.document}))
    else:
        console = Console(highlight=False, markup=False, emoji=False)
        show(console, asked, found)
        if work is not None:
            console.print(f"work: {work.sentence}", soft_wrap=True)
    if found.errors:
        raise typer.Exit(NOTHING_TO_MEASURE)


def _work(asked: Chosen, found: Check) -> ExpectedWork | None:
    """What there is to do; None where nothing can be measured, or no picture is there yet."""
    import numpy as np

    from tasks.evaluation.expected_work import expected_work

    if found.errors or not any(one.pictures for one in found.sources):
        return None
    pictures = {one.name: one.pictures for one in found.sources}
    width, height = np.median(np.concatenate([one.sizes for one in found.sources]), axis=0).astype(int).tolist()
    return expected_work(open_store(), asked.experiment, pictures, (width, height))


def checked(asked: Chosen) -> Check:
    """What is known of an experiment's pictures.

    Raises:
        MissingInput: pictures are not there.
        SpecError: they cannot be split, or contradict each other.
    """
    import logging

    from flows.here import computed_here
    from flows.preflight import missing_sources
    from flows.shard import Scans, scanned_sources, tables_read
    from storage.errors import MissingInput
    from tasks.data.checked import check_sources

    def read() -> tuple[Scans, dict[str, tuple[Ref, ...]]]:
        scans = scanned_sources(asked.experiment)
        return scans, tables_read(asked.experiment, scans)

    missing = missing_sources(asked.experiment)
    if missing:
        raise MissingInput(*missing)
    store = open_store()
    of_flows = logging.getLogger("flows")
    before = of_flows.level
    # What indices warn of is said once, with the rest.
    of_flows.setLevel(logging.ERROR)
    try:
        scans, tables = computed_here(read, store)
    finally:
        of_flows.setLevel(before)
    sources = [(one.name, one.source.label, one.indexed.entries, one.scans) for one in scans.seen]
    return check_sources(store, asked.experiment, sources, scans.assignment, tables)


def show(console: Console, asked: Chosen, found: Check) -> None:
    """Print a check: one block for each source, then what is to be known."""
    from rich.table import Table

    for line in asked.said:
        console.print(line, soft_wrap=True)
    for one in found.sources:
        row = one.row
        console.print(f"\n{row.pop('source')} ({row.pop('label')})")
        lines = Table.grid(padding=(0, 2))
        for name, text in row.items():
            lines.add_row(f"  {name}", text)
        console.print(lines)
    console.print("")
    for text in found.warnings:
        console.print(f"note: {text}", soft_wrap=True)
    for text in found.errors:
        console.print(f"nothing can be measured: {text}", soft_wrap=True)


def refuse(found: Check) -> None:
    """Raise what nothing can be measured with."""
    if found.errors:
        raise SpecError("; ".join(found.errors))
