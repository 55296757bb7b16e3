"""Evaluations on pools as they are served: a Prefect server, its workers and their flow runs, each a process.

    python -m benchmarks.served_pools sleep     elements that only sleep, on a worker for each lane: how busy these are
    python -m benchmarks.served_pools embed     a folder's shards on two workers, against two processes without Prefect
    python -m benchmarks.served_pools sample    the sample: the coordinator's processor time, and its lanes'
    python -m benchmarks.served_pools rows      what a lane and a shown element add to Prefect's database

Every computation has one thread. Needs PostgreSQL; DATABASE=sqlite does without it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks import ROOT
from benchmarks.gpu_evidence import elements_of
from benchmarks.served import api_url, bootstrap, run_deployment
from storage.local import LocalStore
from storage.objects import find, finished_objects, read_manifest
from storage.plans import PlanFolder, Segment


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    asleep = commands.add_parser("sleep")
    asleep.add_argument("--elements", type=int, default=400)
    asleep.add_argument("--seconds", type=float, default=2.0)
    asleep.add_argument("--workers", type=int, default=8)
    embedding = commands.add_parser("embed")
    embedding.add_argument("--pictures", type=int, default=48, help="in each of the eight shards")
    commands.add_parser("sample")
    commands.add_parser("rows")
    part = commands.add_parser("part")
    part.add_argument("documents", type=Path)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["TELLTALE_THREADS"] = "1"
    if given.what == "part":
        make_part(given.documents)
    elif given.what == "sleep":
        measure_sleep(given.elements, given.seconds, given.workers)
    elif given.what == "embed":
        measure_embed(given.pictures)
    elif given.what == "rows":
        measure_rows()
    else:
        measure_sample()


# What is served.


@contextmanager
def served(gpu_workers: int) -> Iterator[Path]:
    """A telltale with so many workers on the gpu pool, in a folder of its own; gives that folder."""
    folder = Path(tempfile.mkdtemp(prefix="telltale-bench-"))
    # PostgreSQL's user, where we are root, has to pass.
    folder.chmod(0o711)
    os.environ |= {
        "TELLTALE_HOME": str(folder / "home"),
        "TELLTALE_STORE": str(folder / "store"),
        "SCHEDULES": "",
        "GPU_DEVICES": ",".join(map(str, range(gpu_workers))),
        "PYTHONPATH": str(ROOT),
    }
    os.environ.setdefault("DATABASE", "postgres")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "ERROR")
    try:
        bootstrap("serve")
        os.environ["PREFECT_API_URL"] = api_url()
        yield folder
    finally:
        bootstrap("stop")
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Made:
    """When an element was at work, in seconds of the clock."""

    began: float
    ended: float


def made_in(folder: Path, step: str) -> list[Made]:
    """When the objects of a step were made; manifests tell their ends to a second."""
    store = LocalStore(folder)
    manifests = [read_manifest(store, place) for place in finished_objects(store) if f"/{step}" in place]
    ends = [(datetime.fromisoformat(each.created).timestamp(), each.seconds) for each in manifests]
    return [Made(end - seconds, end) for end, seconds in ends]


def span(made: Sequence[Made]) -> float:
    """From the first start to the last end."""
    return max(each.ended for each in made) - min(each.began for each in made)


def lanes_of(folder: Path) -> list[dict[str, Any]]:
    """What lanes said last."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("plans/*/lanes/*")) if path.is_file()]


# Elements that sleep.


def measure_sleep(elements: int, seconds: float, workers: int) -> None:
    """How busy lanes are, of the time from the first element's start to the last one's end."""
    with served(workers) as folder:
        from prefect import flow
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.actions import DeploymentUpdate

        from benchmarks.sleeping import sleep
        from flows.names import Request
        from flows.pools import computed_on_pools

        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name("work/gpu")
            client.update_deployment(deployment.id, DeploymentUpdate(entrypoint="benchmarks.sleeping.work"))

        @flow(name="sleep", persist_result=False)
        def coordinate() -> None:
            computed_on_pools(
                Request("sleep", "sleep"),
                "sleep",
                lambda: [each.result() for each in [sleep.submit(number=n, seconds=seconds) for n in range(elements)]],
                ("gpu",),
            )

        began, used = time.time(), time.process_time()
        coordinate()
        took, used = time.time() - began, time.process_time() - used
        made = made_in(folder / "store", "bench/sleep")
        lanes = [lane for lane in lanes_of(folder / "store") if lane["computed"]]
        whole = span(made)
        slept = seconds * len(made)
        print(
            f"{len(made)} elements of {seconds:g} s on {len(lanes)} lanes of {workers} workers: "
            f"{slept / (workers * whole):.1%} busy from the first start to the last end ({whole:.1f} s); "
            f"{sum(lane['computed'] for lane in lanes) - len(made)} made twice; "
            f"the whole run {took:.1f} s, its coordinator used {used:.1f} s"
        )


# Embedding.


def measure_embed(pictures: int) -> None:
    """The rate of two workers against that of two processes that make the same elements, half each."""
    with served(2) as folder:
        experiment = write_folders(folder, pictures)
        run = completed("embed/vgg16", {"experiment": str(experiment)})
        store = folder / "store"
        on_pools = span(made_in(store, "embed/vgg16"))
        lanes = [lane for lane in lanes_of(store) if lane["pool"] == "gpu" and lane["computed"]]
        elements = elements_of(PlanFolder(LocalStore(store), f"{run}-0"))
        documents = [document for _, document in elements if document["step"] == "embed"]
        plain = folder / "plain"
        shutil.copytree(store, plain, ignore=lambda where, names: ["embed"] if Path(where).name == "objects" else [])
        processes = []
        for number in range(2):
            file = folder / f"part-{number}.json"
            file.write_text(json.dumps(documents[number::2]))
            command = [sys.executable, "-m", "benchmarks.served_pools", "part", str(file)]
            processes.append(subprocess.Popen(command, env={**os.environ, "TELLTALE_STORE": str(plain)}, cwd=ROOT))
        if any(process.wait() for process in processes):
            raise SystemExit("a process failed")
        alone = span(made_in(plain, "embed/vgg16"))
        workers = {lane["worker"] for lane in lanes}
        print(
            f"{len(documents)} shards of {pictures} pictures on {len(lanes)} lanes of "
            f"{len(workers)} workers: {on_pools:.1f} s from the first start to the last end; "
            f"two processes without Prefect {alone:.1f} s: {alone / on_pools:.2f} of their rate"
        )


def make_part(documents: Path) -> None:
    """Make elements one after the other, as a script would."""
    from storage.opening import open_store
    from tasks.elements import element_of, import_steps

    import_steps()
    store = open_store()
    for document in json.loads(documents.read_text()):
        element = element_of(document)
        element.step.compute(store, **element.arguments)


def write_folders(folder: Path, count: int) -> Path:
    """Two folders of four shards' pictures each, and an experiment of them."""
    from benchmarks.inputs import pictures

    for number, name in enumerate(("photographs", "fakes")):
        (folder / name).mkdir()
        for index, (image_id, data) in enumerate(pictures(8 * count)[number::2]):
            # No two files are equal: equal ones are found, and left out.
            (folder / name / f"{image_id}.jpg").write_bytes(data[:2] + comment(f"{name} {index}") + data[2:])
    spec = {
        "name": "folders",
        "description": "Two folders.",
        "sources": [
            {"kind": "folder", "name": "photographs", "path": str(folder / "photographs"), "label": "real"},
            {"kind": "folder", "name": "fakes", "path": str(folder / "fakes"), "label": "fake"},
        ],
        "resolutions": ["native", 64],
        "qualities": [None, 60],
        "extractor": {"kind": "vgg16", "layer": "pool5-avg", "side": 224, "weights": "random:0"},
        "mobile": None,
        # There are few photographs: the two folders hold the same ones.
        "allow_overlap": True,
        "shard_size": count,
    }
    file = folder / "folders.yaml"
    file.write_text(yaml.safe_dump(spec))
    return file


def comment(text: str) -> bytes:
    """A JPEG file's segment that says something and shows nothing."""
    data = text.encode()
    return b"\xff\xfe" + (len(data) + 2).to_bytes(2, "big") + data


# The sample.


def measure_sample() -> None:
    """Processor time of the evaluation's own run and of its lanes."""
    with served(2) as folder:
        used: dict[int, tuple[str, float]] = {}
        run = completed("evaluate/all", {"experiment": "sample"}, lambda: used.update(processor_seconds()))
        coordinator = sum(seconds for flow_run, seconds in used.values() if flow_run == run)
        lanes = sum(seconds for flow_run, seconds in used.values() if flow_run != run)
        ended = lanes_of(folder / "store")
        objects = len(finished_objects(LocalStore(folder / "store")))
        computed = sum(lane["computed"] for lane in ended)
        print(
            f"{objects} objects, {computed - objects} made twice, by {len(ended)} lanes; processor time of the "
            f"coordinator {coordinator:.1f} s, of the lanes {lanes:.1f} s: {coordinator / lanes:.1%} (a process's last "
            f"second is not seen)"
        )


def processor_seconds() -> Iterator[tuple[int, tuple[str, float]]]:
    """What every process of a flow run has used so far, with its run."""
    mark, ticks = b"PREFECT__FLOW_RUN_ID=", os.sysconf("SC_CLK_TCK")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        for variable in variables:
            if variable.startswith(mark):
                used = (int(fields[11]) + int(fields[12])) / ticks
                yield int(entry.name), (variable.removeprefix(mark).decode(), used)


def completed(name: str, parameters: Mapping[str, Any], look: Callable[[], None] = lambda: None) -> str:
    """Run a deployment to its end; returns its run's id."""
    run, state = run_deployment(name, parameters, look=look)
    if state != "COMPLETED":
        raise SystemExit(f"{name} ended: {state}")
    return run


# Prefect's database.


def measure_rows(elements: int = 4) -> None:
    """Rows that a lane's run and a shown element add, on a server of this process with SQLite."""
    from prefect.testing.utilities import prefect_test_harness

    with tempfile.TemporaryDirectory(prefix="telltale-bench-") as root, prefect_test_harness(180):
        os.environ["TELLTALE_STORE"] = root
        rows_of_a_lane("warm-up", 0)
        alone, together = rows_of_a_lane("none", 0), rows_of_a_lane("some", elements)
    print(f"rows of a lane and of a shown element: {alone}, {(together - alone) // elements}")


def rows_of_a_lane(plan: str, elements: int) -> int:
    """How many rows there are more when a lane has made so many elements, and the server has written all of it."""
    from benchmarks.sleeping import sleep
    from flows.work import offer, work
    from storage.opening import open_store
    from tasks.elements import Element

    before = settled_rows()
    folder = PlanFolder(open_store(), plan)
    folder.begin({"title": plan})
    here = offer("gpu")
    folder.decide("gpu", {"device": "cpu", "versions": dict(here.versions), "telltale": here.telltale})
    made = []
    for number in range(elements):
        arguments = sleep.bound({"number": number, "seconds": 0.0})
        made.append(Element(sleep, arguments, tuple(sleep.places(arguments))))
    folder.add_segment("gpu", Segment(0, 0), [{**element.document(), "shown": True} for element in made])

    def end() -> None:
        while not all(find(folder.store, place) for element in made for place in element.places):
            time.sleep(0.2)
        folder.end("completed")

    ending = threading.Thread(target=end)
    ending.start()
    work(plan=plan, pool="gpu", index=0)
    ending.join()
    return settled_rows() - before


def settled_rows() -> int:
    """Rows of all tables of Prefect's database once they grow no more: events and logs arrive a while after."""
    from prefect.settings import get_current_settings

    url = get_current_settings().server.database.connection_url
    assert url is not None
    place = f"file:{url.get_secret_value().partition(':///')[2]}?mode=ro"
    rows, same = -1, 0
    while same < 5:
        time.sleep(1)
        with sqlite3.connect(place, uri=True, timeout=60) as connection:
            tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
            now = sum(connection.execute(f'select count(*) from "{name}"').fetchone()[0] for name in tables)
        rows, same = now, same + 1 if now == rows else 0
    return rows


if __name__ == "__main__":
    main()
