"""Putting a finished run where people look: its index and report in the store, tables and links in the UI."""

import io
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from storage.digest import canonical_json
from storage.errors import MissingInput, SpecError, Undetectable
from storage.objects import Ref, manifest_of, read_part
from storage.opening import open_store
from storage.runs import RUNS, browser_link, latest_runs, set_latest_run
from storage.store import Store, create_once
from tasks.artifacts import artifact_key, show_link, show_markdown, show_table
from tasks.evaluation.alarm import undetectable
from tasks.explorer.changes import beyond_chance, changes, in_a_line, read_run, shown
from tasks.explorer.files import RUN
from tasks.explorer.run import DATA, PAGE
from tasks.networks.exported import CARD, MODEL
from tasks.report.run import HTML, MARKDOWN
from tasks.spec.experiment import Experiment

logger = logging.getLogger(__name__)

# The folder of the explorer in a run's own.
EXPLORER = "explorer"
# What stands before a run's place where its report is shown: who has only the flow run finds the results by it.
REPORT_OF = "The report of "
# So many changed cells are listed in the UI, the largest changes first.
SHOWN_CHANGES = 20


def publish(
    experiment: Experiment,
    report: Ref,
    explorer: Ref,
    results: Sequence[Ref],
    networks: dict[str, tuple[Ref, Ref]] | None = None,
) -> str:
    """Copy the report's files to `runs/evaluate/<run>/`, index the run, and show it in the UI.

    `explorer` is every tested picture with what was said of it: its table is copied beside the report, and what its
    page reads into the page's folder. `networks` are (card, exported file) by name; they are copied to
    `models/<name>.json` and `.onnx` there.

    The run's name follows from the report's recipe: the same results are the same run, and nothing is written twice.
    Returns the run's place in the store.

    Raises:
        Undetectable: of a generator no detector reaches the AUROC that the experiment demands. The run is published.
    """
    store = open_store()
    manifest = manifest_of(store, report)
    place = f"{RUNS}/{manifest.notes['run']}"
    if store.size(f"{place}/index.json") is None:
        for part in manifest.parts:
            folder = "" if part.name in (HTML, MARKDOWN) else "tables/"
            create_once(store, f"{place}/{folder}{part.name}", read_part(store, report, part.name))
        for name, content in explorer_folder(store, explorer, manifest.notes["run"]):
            create_once(store, f"{place}/{name}", content)
        for name, (card, exported) in (networks or {}).items():
            create_once(store, f"{place}/models/{name}.onnx", read_part(store, exported, MODEL))
            create_once(store, f"{place}/models/{name}.json", read_part(store, card, CARD))
        index = _index(store, experiment, report, explorer, results)
        create_once(store, f"{place}/index.json", canonical_json(index).encode())
    before = latest_runs(store).get(experiment.name)
    set_latest_run(store, experiment.name, place)
    _show(store, experiment, report, place)
    if before not in (None, place):
        _show_changes(store, experiment, before, place)
    _raise_alarm(store, experiment, report, place)
    return place


def explorer_folder(store: Store, explorer: Ref, run: str) -> Iterator[tuple[str, bytes]]:
    """Files of a run's folder by name: the explorer's page and what it reads, the table of pictures and its card."""
    for page in sorted(PAGE.rglob("*")):
        if page.is_file():
            yield f"{EXPLORER}/{page.relative_to(PAGE).as_posix()}", page.read_bytes()
    for part in manifest_of(store, explorer).parts:
        content = read_part(store, explorer, part.name)
        if part.name == f"{DATA}{RUN}":
            content = canonical_json(json.loads(content) | {"run": run}).encode()
        is_data = part.name.startswith(DATA)
        yield f"{EXPLORER}/data/{part.name.removeprefix(DATA)}" if is_data else part.name, content


def _index(store: Store, experiment: Experiment, report: Ref, explorer: Ref, results: Sequence[Ref]) -> dict[str, Any]:
    """What the run consists of. `content` are digests of the tables alone: equal for identical results."""
    return {
        "experiment": experiment.model_dump(mode="json"),
        "report": report.model_dump(),
        "explorer": explorer.model_dump(),
        "results": [ref.model_dump() for ref in results],
        "content": {ref.uri: manifest_of(store, ref).content for ref in results},
    }


def _show(store: Store, experiment: Experiment, report: Ref, place: str) -> None:
    show_table(
        artifact_key("results", experiment.name),
        headline_rows(store, report),
        f"{experiment.name}: AUROC and balanced accuracy of every detector in every fair cell",
    )
    show_markdown(
        artifact_key("report", experiment.name),
        read_part(store, report, MARKDOWN).decode(),
        f"{REPORT_OF}{place}",
    )
    show_link(
        artifact_key("page", experiment.name),
        browser_link(store, f"{place}/{HTML}"),
        f"{place}/{HTML}",
        f"{experiment.name}: the report as a page of its own",
    )
    show_link(
        artifact_key("explorer", experiment.name),
        browser_link(store, f"{place}/{EXPLORER}/index.html"),
        f"{place}/{EXPLORER}",
        f"{experiment.name}: every tested picture, the mistakes first",
    )


def _show_changes(store: Store, experiment: Experiment, before: str, place: str) -> None:
    """What changed since the run that was the newest until now: one line, and the cells that it is about."""
    try:
        found = changes(read_run(store, before), read_run(store, place))
    except (MissingInput, SpecError) as error:
        line, rows = f"This run is compared with none: {error}.", []
    else:
        line = in_a_line(found, before.rpartition("/")[2])
        rows = [*shown(beyond_chance(found))]
    logger.info("%s", line)
    table = ""
    if rows:
        heads = list(rows[0])
        lines = [heads, ["---"] * len(heads), *([row[head] for head in heads] for row in rows[:SHOWN_CHANGES])]
        table = "\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    show_markdown(artifact_key("changes", experiment.name), f"{line}{table}\n", line)


def _raise_alarm(store: Store, experiment: Experiment, report: Ref, place: str) -> None:
    if experiment.alarm_below is None:
        return
    results = pl.read_parquet(io.BytesIO(read_part(store, report, "results.parquet")))
    single = {mix.name: mix.fakes[0] for mix in experiment.all_mixes if len(mix.fakes) == 1}
    found = undetectable(results, single, experiment.alarm_below)
    if found:
        raise Undetectable(
            f"no detector reaches an AUROC of {experiment.alarm_below} (alarm_below) on {'; '.join(found)}. The run is "
            f"published at {place} all the same"
        )


def headline_rows(store: Store, report: Ref) -> list[dict[str, Any]]:
    """One row per detector, fair cell and mix: AUROC and balanced accuracy with intervals.

    Probes are not among them, nor fits with another training seed, on one generator alone, or without one.
    """
    results = pl.read_parquet(io.BytesIO(read_part(store, report, "results.parquet")))
    fair = results.filter(
        (pl.col("protocol") == "fair")
        & (pl.col("role") == "detector")
        & (pl.col("seed") == 0)
        & pl.col("fitted_on").is_null()
        & pl.col("without").is_null()
        & (
            (pl.col("metric") == "auroc")
            | ((pl.col("metric") == "balanced_accuracy") & (pl.col("threshold_rule") == "val"))
        )
    )
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in fair.iter_rows(named=True):
        detector, cell, mix = row["detector"], f"{row['resolution']}/{row['perturbation']}", row["mix"]
        entry = rows.setdefault((detector, cell, mix), {"detector": detector, "cell": cell, "mix": mix})
        entry[row["metric"]] = None if row["value"] is None else round(row["value"], 4)
        entry[f"{row['metric']} 95 %"] = "n/a" if row["low"] is None else f"[{row['low']:.3f}, {row['high']:.3f}]"
        entry["real"], entry["fake"] = row["n_real"], row["n_fake"]
    return list(rows.values())
