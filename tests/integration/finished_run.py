"""A preset evaluated by the command line in a fresh home, as a newcomer does it, and what a store holds then."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from deployments.processes import marked_processes
from storage.local import LocalStore
from storage.objects import MANIFEST, Ref, finished_objects, read_manifest

ROOT = Path(__file__).parents[2]

# How long a network takes is measured, so that it is another time every time; and where a report prints that.
_TIMED_OBJECTS = ("objects/measure-latency/",)
_TIMED_PARTS_OF_REPORT = {"latency.parquet", "latency.csv", "stages.parquet", "stages.csv", "report.html", "report.md"}


@dataclass
class FinishedRun:
    """A preset's newest run: what was printed, and its store in a home where commands can go on being run."""

    preset: str
    folder: Path
    printed: str

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.folder / "telltale" / "store")

    @property
    def place(self) -> str:
        """The run's place in the store."""
        return str(json.loads(self.store.read("refs/latest.json"))[self.preset])

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(self.store.read(f"{self.place}/tables/{name}.parquet")))

    def refs(self, prefix: str) -> list[Ref]:
        """Finished objects below a folder of `objects/`."""
        places = [
            key.removesuffix(f"/{MANIFEST}") for key in self.store.list(f"objects/{prefix}") if key.endswith(MANIFEST)
        ]
        manifests = {place: read_manifest(self.store, place) for place in places}
        return [Ref(uri=place, digest=m.digest, rows=m.rows, bytes=m.bytes) for place, m in manifests.items()]

    def telltale(self, *words: str) -> str:
        """What the command prints in this home; it succeeds."""
        return _telltale(self.folder, *words)


@contextmanager
def evaluated(preset: str, folder: Path) -> Iterator[FinishedRun]:
    """A preset evaluated in the home `folder`; at the end nothing runs there any more."""
    try:
        yield FinishedRun(preset, folder, _telltale(folder, "evaluate", preset))
    finally:
        _python(folder, "deployments.bootstrap", "stop")
        assert marked_processes(folder / "telltale") == []


def untimed_parts(store: LocalStore) -> dict[str, str]:
    """The sha256 of every part of every object of a store but of those that say how long something took."""
    found = {}
    for place in finished_objects(store):
        for part in read_manifest(store, place).parts:
            timed = place.startswith("objects/report/") and part.name in _TIMED_PARTS_OF_REPORT
            if not timed and not place.startswith(_TIMED_OBJECTS):
                found[f"{place}/{part.name}"] = part.sha256
    return found


def _telltale(folder: Path, *words: str) -> str:
    return _python(folder, "deployments.cli", *words)


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TELLTALE_"))}
    return {**kept, "HOME": str(folder), "TELLTALE_HOME": str(folder / "telltale")}


def _python(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=_environment(folder),
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
