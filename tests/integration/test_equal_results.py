"""Two cold evaluations under conditions that have nothing in common give the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.local import LocalStore
from storage.objects import finished_objects
from tests.integration.finished_run import untimed_parts
from tests.integration.small_sample import EVERY_KIND_OF_STEP

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]

STEPS = {
    "assign", "canonical", "card", "compare-detectors", "compare-networks", "compress", "control", "counts",
    "describe-networks", "embed", "evaluate-cell", "examples", "explorer", "export", "gan-pictures", "generate",
    "index", "measure-latency", "quality", "quantize", "rejection", "report", "scan", "score", "shard", "thumbnails",
    "train", "train-gan", "views",
}  # fmt: skip


def start(folder: Path, cores: set[int], garbage: int, **settings: str) -> "subprocess.Popen[bytes]":
    """Start an evaluation into `folder/store`, with nothing of this process's settings."""
    folder.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_PROFILE": "ephemeral",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "TELLTALE_HOME": str(folder / "home"),
        "TELLTALE_STORE": str(folder / "store"),
        "DO_NOT_TRACK": "1",
        **settings,
    }
    words = [json.dumps(EVERY_KIND_OF_STEP), json.dumps(sorted(cores)), str(garbage)]
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "tests.integration.unequal_process", *words]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)


def test_two_cold_evaluations_under_unequal_conditions_agree_in_every_digest(tmp_path: Path) -> None:
    """Other hash seeds, heaps, cores, threads, neighbours, folders, languages, time zones and masks for new files."""
    cores = sorted(os.sched_getaffinity(0))
    plain = {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "TELLTALE_THREADS": "1", "TZ": "UTC", "LC_ALL": "C"}
    crowded = {
        "PYTHONHASHSEED": "4242",
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "4",
        "TELLTALE_THREADS": "3",
        "MALLOC_ARENA_MAX": "1",
        "PYTHONMALLOC": "malloc",
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "C.UTF-8",
        # Threads that wait must not take the cores from the other evaluation.
        "OMP_WAIT_POLICY": "passive",
    }
    running = {
        "plain": start(tmp_path / "plain", {cores[0]}, 0, **plain),
        "crowded": start(tmp_path / "a crowded place", set(cores[-2:]), 7, **crowded),
    }
    folders = {"plain": tmp_path / "plain", "crowded": tmp_path / "a crowded place"}
    try:
        for name, process in running.items():
            assert process.wait(1500) == 0, (folders[name] / "log").read_text()[-3000:]
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    one, other = (untimed_parts(LocalStore(folder / "store")) for folder in folders.values())
    different = sorted(place for place in one.keys() | other.keys() if one.get(place) != other.get(place))
    assert not different, "\n".join([f"{len(different)} of {len(one)} parts differ:", *different])
    places = finished_objects(LocalStore(folders["plain"] / "store"))
    assert {place.split("/")[1] for place in places} == STEPS
