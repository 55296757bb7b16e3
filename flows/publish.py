"""Putting a finished run where people look: its index and report in the store, tables and links in the UI."""

import io
from collections.abc import Sequence
from typing import Any

import polars as pl
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from storage.digest import canonical_json
from storage.errors import ObjectExists
from storage.objects import Ref, manifest_of, read_part
from storage.opening import open_store
from storage.runs import RUNS, browser_link, set_latest_run
from storage.store import Store
from tasks.networks.exported import CARD, MODEL
from tasks.progress import artifact_key
from tasks.report.run import HTML, MARKDOWN
from tasks.spec.experiment import Experiment


def publish(
    experiment: Experiment, report: Ref, results: Sequence[Ref], networks: dict[str, tuple[Ref, Ref]] | None = None
) -> str:
    """Copy the report's files to `runs/evaluate/<run>/`, index the run, and show it in the UI.

    `networks` are (card, exported file) by name; they are copied to `models/<name>.json` and `.onnx` there.

    The run's name follows from the report's recipe: the same results are the same run, and nothing is written twice.
    Returns the run's place in the store.
    """
    store = open_store()
    manifest = manifest_of(store, report)
    place = f"{RUNS}/{manifest.notes['run']}"
    if store.size(f"{place}/index.json") is None:
        for part in manifest.parts:
            folder = "" if part.name in (HTML, MARKDOWN) else "tables/"
            _create(store, f"{place}/{folder}{part.name}", read_part(store, report, part.name))
        for name, (card, exported) in (networks or {}).items():
            _create(store, f"{place}/models/{name}.onnx", read_part(store, exported, MODEL))
            _create(store, f"{place}/models/{name}.json", read_part(store, card, CARD))
        _create(store, f"{place}/index.json", canonical_json(_index(store, experiment, report, results)).encode())
    set_latest_run(store, experiment.name, place)
    _show(store, experiment, report, place)
    return place


def _index(store: Store, experiment: Experiment, report: Ref, results: Sequence[Ref]) -> dict[str, Any]:
    """What the run consists of. `content` are digests of the tables alone: equal for identical results."""
    return {
        "experiment": experiment.model_dump(mode="json"),
        "report": report.model_dump(),
        "results": [ref.model_dump() for ref in results],
        "content": {ref.uri: manifest_of(store, ref).content for ref in results},
    }


def _create(store: Store, key: str, data: bytes) -> None:
    try:
        store.create(key, data)
    except ObjectExists:
        return


def _show(store: Store, experiment: Experiment, report: Ref, place: str) -> None:
    create_table_artifact(
        table=headline_rows(store, report),
        key=artifact_key("results", experiment.name),
        description=f"{experiment.name}: AUROC and balanced accuracy of every fair cell, detector svm",
    )
    create_markdown_artifact(
        markdown=read_part(store, report, MARKDOWN).decode(),
        key=artifact_key("report", experiment.name),
        description=f"The report of {place}",
    )
    create_link_artifact(
        link=browser_link(store, f"{place}/{HTML}"),
        link_text=f"{place}/{HTML}",
        key=artifact_key("page", experiment.name),
        description=f"{experiment.name}: the report as a page of its own",
    )


def headline_rows(store: Store, report: Ref) -> list[dict[str, Any]]:
    """One row per fair cell and mix of the headline detector: AUROC and balanced accuracy with intervals."""
    results = pl.read_parquet(io.BytesIO(read_part(store, report, "results.parquet")))
    fair = results.filter(
        (pl.col("protocol") == "fair")
        & (pl.col("detector") == "svm")
        & (
            (pl.col("metric") == "auroc")
            | ((pl.col("metric") == "balanced_accuracy") & (pl.col("threshold_rule") == "val"))
        )
    )
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in fair.iter_rows(named=True):
        quality = "none" if row["jpeg_quality"] is None else f"q{row['jpeg_quality']}"
        cell = f"{row['resolution']}/{quality}"
        entry = rows.setdefault((cell, row["mix"]), {"cell": cell, "mix": row["mix"]})
        entry[row["metric"]] = None if row["value"] is None else round(row["value"], 4)
        entry[f"{row['metric']} 95 %"] = "n/a" if row["low"] is None else f"[{row['low']:.3f}, {row['high']:.3f}]"
        entry["real"], entry["fake"] = row["n_real"], row["n_fake"]
    return list(rows.values())
