"""What an evaluation asks of its machine, measured: small real evaluations over a store that counts its requests.

The evaluations are whole: photographs of a folder, a DCGAN of the true size trained for three epochs, the tiny
diffusion model in Stable Diffusion's place, twelve views, all heads, all cells, the report. Only VGG16 gets smaller
pictures; its true cost is measured apart, as are fitting a head on 4,096 features and reading long tables.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import inputs
from benchmarks.cost.counting import CountingStore, Tally, counted
from benchmarks.cost.model import PARTS
from benchmarks.cost.parts import (
    Say,
    measure_assigning,
    measure_embedding,
    measure_tables,
    measure_training,
    png_bytes,
    write_pictures,
)
from storage.objects import MANIFEST, finished_objects, read_manifest
from storage.store import STORE_SETTING, LocalStore, Store
from storage.sweep import find_debris
from tasks.device import processor_name
from tasks.spec import Vgg16Spec

# Pictures of each of three sources, and pictures per shard: not in proportion, so that what a shard costs can be told
# from what its pictures cost. The last is the largest, which the others have to predict.
EVALUATIONS = ((16, 16), (32, 8), (64, 32), (128, 16))
GAN_EPOCHS, SHEET_EVERY = 3, 2
EMBEDDED_PICTURES = (4, 8, 16)
TRAINED_ROWS = (500, 1_000, 2_000, 4_000)
TABLE_ROWS = (50_000, 200_000)
ASSIGNED_PICTURES = (50_000, 200_000)

Keep = Callable[[dict[str, Any]], None]


def measure_all(say: Say, keep: Keep, measured: dict[str, Any] | None = None, chosen: Sequence[str] = PARTS) -> None:
    """Every point, with the machine and the moment; only the chosen parts where `measured` has the others.

    `keep` gets what there is, again after each point.
    """
    measured = {} if measured is None else measured
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="telltale-cost-") as name:
        folder = Path(name)
        parts: dict[str, Iterator[dict[str, Any]]] = {
            "train": (measure_training(rows, say) for rows in TRAINED_ROWS),
            "assign": (measure_assigning(count, say) for count in ASSIGNED_PICTURES),
            "tables": (measure_tables(folder, rows, say) for rows in TABLE_ROWS),
            "embed": (measure_embedding(folder, count, say) for count in EMBEDDED_PICTURES),
            "evaluations": measure_evaluations(folder, EVALUATIONS, say),
        }
        if "evaluations" in chosen:
            measured |= {"pictures": inputs.pictures_named(), "png_768_bytes": round(png_bytes(768))}
        # What is imported at the first call belongs to none of the points.
        measure_training(100, lambda line: None)
        measure_tables(folder, 100, lambda line: None)
        for part in chosen:
            machine = measured.setdefault("machines", {})[part] = _machine()
            measured[part] = []
            for point in parts[part]:
                measured[part].append(point)
                machine["load_after"] = round(os.getloadavg()[0], 1)
                machine["took_s"] = round(time.perf_counter() - began)
                keep(measured)


def _machine() -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("TELLTALE_THREADS", "all"),
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


def measure_evaluations(folder: Path, evaluations: Sequence[tuple[int, int]], say: Say) -> Iterator[dict[str, Any]]:
    """Whole evaluations in stores of their own, each run cold, then warm, then looked through by a sweep."""
    from prefect.testing.utilities import prefect_test_harness

    weights = _write_weights(folder)
    with prefect_test_harness(server_startup_timeout=300):
        for pictures, shard_size in evaluations:
            place = folder / f"evaluation-{pictures}-{shard_size}"
            point = _measure_evaluation(place, pictures, shard_size, weights)
            say(f"evaluation of 3 x {pictures} pictures in shards of {shard_size}: {point['cold']['wall_s']} s")
            yield point


def small_experiment(folder: Path, pictures: int, shard_size: int, weights: str) -> dict[str, Any]:
    """The experiment that is measured, as its YAML file says it: the preset `coco` in small."""
    return {
        "name": "cost",
        "sources": [
            {
                "kind": "folder",
                "name": "photographs",
                "label": "real",
                "path": str(folder / "photographs"),
                "metadata": str(folder / "captions.json"),
            },
            {
                "kind": "gan",
                "name": "gan",
                "trained_on": "photographs",
                "count": pictures,
                "gan": {"epochs": GAN_EPOCHS, "sheet_every": SHEET_EVERY, "batch": 8},
            },
            {
                "kind": "diffusion",
                "name": "diffusion",
                "prompted_by": "photographs",
                "smaller_by_nature": True,
                "diffusion": {"model": "tiny", "steps": 2, "side": 64, "batch": 16},
            },
        ],
        "splits": {"kind": "fixed", "train": 0.4, "val": 0.15},
        "extractor": {"kind": "vgg16", "layer": "pool5-avg", "side": 32, "weights": weights},
        "shard_size": shard_size,
    }


def _write_weights(folder: Path) -> str:
    """VGG16's convolutions with seeded random weights as a file: into the store and out of it as trained ones."""
    from safetensors.numpy import save_file

    from tasks.detectors.vgg16 import load_vgg16

    network = load_vgg16(Vgg16Spec(layer="pool5-avg", side=32, weights="random:0"), None)
    path = folder / "vgg16.safetensors"
    save_file({name: np.ascontiguousarray(tensor.numpy()) for name, tensor in network.state_dict().items()}, path)
    return str(path)


def _without_places(document: dict[str, Any]) -> dict[str, Any]:
    """The experiment as the model reads it again: no folder of the machine that was measured on."""
    copied: dict[str, Any] = json.loads(json.dumps(document))
    copied["sources"][0] |= {"path": "photographs", "metadata": "captions.json"}
    copied["extractor"]["weights"] = "vgg16.safetensors"
    return copied


def _measure_evaluation(folder: Path, pictures: int, shard_size: int, weights: str) -> dict[str, Any]:
    from flows.evaluate import evaluate_all

    write_pictures(folder, pictures)
    document = small_experiment(folder, pictures, shard_size, weights)
    experiment = folder / "cost.yaml"
    experiment.write_text(yaml.safe_dump(document), encoding="utf-8")
    os.environ[STORE_SETTING] = str(folder / "store")
    store = LocalStore(folder / "store")
    rows = _database_rows()

    def run() -> dict[str, Any]:
        nonlocal rows
        tally, began, before = Tally(), (time.perf_counter(), time.process_time()), rows
        with counted(tally):
            evaluate_all(experiment=str(experiment))
        wall, processor = time.perf_counter() - began[0], time.process_time() - began[1]
        rows = _settled_rows(before)
        grown = {table: count - before.get(table, 0) for table, count in rows.items() if count > before.get(table, 0)}
        return {
            "wall_s": round(wall, 1),
            "processor_s": round(processor, 1),
            "step_processor_s": tally.processor_seconds(),
            "requests": tally.document(),
            "database_rows": grown,
        }

    cold = run()
    warm = run()
    tally = Tally()
    find_debris(CountingStore(store, tally, "sweep"), time.time())
    return {
        "pictures": pictures,
        "shard_size": shard_size,
        "experiment": _without_places(document),
        "photograph_bytes": sum(path.stat().st_size for path in (folder / "photographs").iterdir()),
        "cold": cold,
        "warm": warm,
        "sweep": tally.document()["sweep"],
        "steps": steps_of(store),
        "other_bytes": {
            prefix: sum(store.size(key) or 0 for key in store.list(prefix)) for prefix in ("checkpoints", "runs")
        },
        "keys": len(store.list("")),
    }


def step_name(store: Store, uri: str) -> str:
    """The step of an object; that of `embed` with the kind of its extractor, whose features differ in size."""
    manifest = read_manifest(store, uri)
    if manifest.step != "embed":
        return manifest.step
    return f"embed/{manifest.recipe['arguments']['extractor']['kind']}"


def steps_of(store: Store) -> dict[str, dict[str, float]]:
    """Per step: objects, parts, bytes with manifests, rows, and the seconds that the manifests state."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for uri in finished_objects(store):
        manifest = read_manifest(store, uri)
        counts = found[step_name(store, uri)]
        counts["objects"] += 1
        counts["parts"] += len(manifest.parts)
        counts["rows"] += manifest.rows
        counts["bytes"] += manifest.bytes + (store.size(f"{uri}/{MANIFEST}") or 0)
        counts["seconds"] += manifest.seconds  # type: ignore[assignment]
    return {name: {k: round(v, 3) for k, v in counts.items()} for name, counts in sorted(found.items())}


def _database_rows() -> dict[str, int]:
    """Rows of every table of Prefect's database, which the test harness keeps in a file."""
    from prefect.settings import get_current_settings

    url = get_current_settings().server.database.connection_url
    assert url is not None
    path = url.get_secret_value().partition(":///")[2]
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60) as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        return {name: connection.execute(f'select count(*) from "{name}"').fetchone()[0] for name in tables}


def _settled_rows(before: dict[str, int]) -> dict[str, int]:
    """The rows once they grow no more: task runs, logs and artifacts reach the server a while after a run's end."""
    rows, quiet = _database_rows(), 0
    while quiet < 5:
        time.sleep(1)
        newer = _database_rows()
        quiet, rows = (quiet + 1 if newer == rows and newer != before else 0), newer
    return rows
