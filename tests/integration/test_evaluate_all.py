"""`prefect deployment run evaluate/all` with two cpu and two gpu workers, each limit 1: all work, and none in vain."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from deployments.processes import MARK, marked_processes
from storage.local import LocalStore
from storage.objects import MANIFEST, find, finished_objects, read_manifest, read_part
from storage.runs import latest_content, latest_run
from storage.store import STORE_SETTING
from tasks.presets import parse_experiment
from tests.integration.computed_plans import computed_here
from tests.integration.finished_run import untimed_parts
from tests.integration.served import Served, open_folder, possible_database, wait_for
from tests.integration.small_sample import SMALL, WITHOUT_NETWORKS
from tests.integration.small_windows import draw_pictures, windows_experiment
from tests.unit import tiny_models, tiny_onnx
from tests.unit.tiny_models import save_vit
from tests.unit.tiny_onnx import network

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3000)]


class Telltale(Served):
    """A served telltale and its store, in which one evaluation was killed, taken up and completed."""

    # Objects that were finished when the evaluation was killed, and again when it was completed.
    when_killed: dict[str, str]
    when_completed: dict[str, str]
    run_completed: str
    # What is beside home and store: modules and models of others.
    folder: Path
    # Workers beside those of `make serve`.
    added: list[subprocess.Popen[bytes]]

    @property
    def store(self) -> LocalStore:
        return LocalStore(Path(self.environment["TELLTALE_STORE"]))

    def start(self, overrides: dict[str, Any]) -> str:
        """Type `prefect deployment run evaluate/all`; returns the flow run's id."""
        return self.started("evaluate/all", overrides)

    def started(self, deployment: str, overrides: dict[str, Any]) -> str:
        """Type `prefect deployment run`; returns the flow run's id."""
        parameters = json.dumps({"experiment": "sample", "overrides": overrides, "seed": 0})
        prefect = str(Path(sys.executable).with_name("prefect"))
        done = subprocess.run(
            [prefect, "deployment", "run", deployment, "--params", parameters],
            env={**self.environment, "PREFECT_API_URL": self.api_url},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"UUID: ([0-9a-f-]{36})", done.stdout)
        assert found is not None, done.stdout
        return found[1]

    def lanes(self, run: str) -> list[dict[str, Any]]:
        """What the lanes of a flow run's plans said last."""
        keys = [key for key in self.store.list("plans") if f"plans/{run}" in key and "/lanes/" in key]
        return [json.loads(self.store.read(key)) for key in keys]

    def add_worker(self, pool: str, name: str, **environment: str) -> None:
        """Start one more worker on a pool, as on another machine; stopped with the others."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
        settings = {
            **self.environment,
            **environment,
            MARK: str(self.home),
            "PREFECT_API_URL": self.api_url,
            "OMP_NUM_THREADS": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
        }
        with (self.home / "logs" / f"{name}.log").open("ab") as log:
            worker = subprocess.Popen(
                [*command, "--name", name, "--limit", "1", "--install-policy", "never"],
                env=settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.added.append(worker)
        wait_for(lambda: name in {worker["name"] for worker in self.ask(f"/work_pools/{pool}/workers/filter")}, 120)

    def state(self, run: str) -> dict[str, Any]:
        (found,) = self.ask("/flow_runs/filter", flow_runs={"id": {"any_": [run]}})
        return dict(found["state"])

    def completed(self, overrides: dict[str, Any]) -> str:
        """Run to the end, and see it Completed."""
        run = self.start(overrides)
        self.finish(run)
        return run

    def finish(self, run: str) -> None:
        state = wait_for(
            lambda: (s := self.state(run))["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") and s, 1800
        )
        assert state["type"] == "COMPLETED", state["message"]

    def drop_unfinished(self) -> None:
        """Take the runs off that died with their host, as a person does in the UI."""
        states = {"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED"]}}}
        for run in self.ask("/flow_runs/filter", flow_runs=states):
            self.ask(f"/flow_runs/{run['id']}/set_state", state={"type": "CANCELLED"}, force=True)

    def manifests(self) -> dict[str, str]:
        """Every finished object's place, and when and where it was made."""
        return {uri: self.store.read(f"{uri}/{MANIFEST}").decode() for uri in finished_objects(self.store)}

    def computed(self, before: dict[str, str]) -> set[str]:
        """Places of objects that were made since."""
        return {place for place, manifest in self.manifests().items() if before.get(place) != manifest}


@pytest.fixture(scope="module")
def telltale() -> Iterator[Telltale]:
    with open_folder("telltale-evaluate-") as folder:
        settings = {
            "TELLTALE_STORE": str(folder / "store"),
            "TELLTALE_THREADS": "1",
            "DATABASE": possible_database(),
            "GPU_DEVICES": "0,1",
        }
        modules = folder / "modules"
        modules.mkdir()
        (modules / "bluish.py").write_text(BLUISH)
        served = Telltale.at(folder / "home", PYTHONPATH=f"{ROOT}:{modules}", **settings)
        served.folder = folder
        served.added = []
        try:
            served.serve("--coordinator-limit", "1")
            served.add_worker("cpu", "cpu-second")
            served.start(SMALL)
            # In the middle: features are being computed, the report is far.
            wait_for(lambda: len([place for place in served.manifests() if "/embed/" in place]) >= 2, 1200)
            kill_workers(served)
            served.when_killed = served.manifests()
            served.drop_unfinished()
            served.serve("--coordinator-limit", "1")
            served.add_worker("cpu", "cpu-second")
            served.run_completed = served.completed(SMALL)
            served.when_completed = served.manifests()
            yield served
        finally:
            served.command("stop")
            assert marked_processes(served.home) == []
            for worker in served.added:
                worker.wait(10)


def test_a_run_that_was_killed_is_taken_up_where_it_was(telltale: Telltale, tmp_path: Path) -> None:
    assert telltale.when_killed
    assert not any(place.startswith("objects/report/") for place in telltale.when_killed)
    assert telltale.when_killed.items() <= telltale.when_completed.items(), "a finished step ran again"

    undisturbed = LocalStore(tmp_path / "undisturbed")
    evaluate_inline(telltale, undisturbed)
    assert latest_content(telltale.store, "sample") == latest_content(undisturbed, "sample")


def test_every_worker_worked_and_no_object_was_computed_twice(telltale: Telltale) -> None:
    lanes = telltale.lanes(telltale.run_completed)
    assert {lane["worker"] for lane in lanes} == {"cpu-local", "cpu-second", "gpu-local-0", "gpu-local-1"}
    # A worker that starts its lane late on a busy machine may find everything taken.
    at_work = {lane["worker"] for lane in lanes if lane["computed"] > 0}
    assert at_work & {"cpu-local", "cpu-second"}
    assert at_work & {"gpu-local-0", "gpu-local-1"}
    made = set(telltale.when_completed) - set(telltale.when_killed)
    assert sum(lane["computed"] for lane in lanes) == len(made)


def test_the_coordinator_computed_nothing(telltale: Telltale) -> None:
    of_the_run = {"id": {"any_": [telltale.run_completed]}}
    tasks = telltale.ask("/task_runs/filter", flow_runs=of_the_run, limit=200)
    lanes = telltale.ask("/flow_runs/filter", flow_runs={"parent_flow_run_id": {"any_": [telltale.run_completed]}})
    # Each lane has a task run that stands for it, so that the UI shows the lanes as the run's own.
    assert {lane["parent_task_run_id"] for lane in lanes} <= {task["id"] for task in tasks}
    steps = {place.split("/")[1] for place in telltale.when_completed}
    assert not {task["name"].split("/")[0].split()[0] for task in tasks} & steps


def test_no_claim_is_left(telltale: Telltale) -> None:
    live = {key.split("/")[1] for key in telltale.store.list("claims")}
    finished = {place.rpartition("/")[2] for place in telltale.manifests()}
    # Those of lanes that were killed stay, and are void.
    assert live <= finished
    for key in telltale.store.list("claims"):
        status = json.loads(telltale.store.read(json.loads(telltale.store.read(key))["status"]))
        assert telltale.run_completed not in status["lane"]


def test_the_ui_shows_named_runs_and_the_artifacts(telltale: Telltale) -> None:
    names = [run["name"] for run in telltale.ask("/flow_runs/filter")]
    assert any(name.startswith("evaluate sample") for name in names)
    assert any("cpu lane 1" in name for name in names)
    artifacts = telltale.ask("/artifacts/latest/filter")
    kinds = {artifact["key"]: artifact["type"] for artifact in artifacts}
    assert kinds["results-sample"] == "table"
    assert kinds["report-sample"] == "markdown"
    (table,) = [artifact for artifact in artifacts if artifact["key"] == "results-sample"]
    rows = json.loads(table["data"]) if isinstance(table["data"], str) else table["data"]
    assert {row["cell"] for row in rows} == {"64/none", "64/q20"}


def evaluate_command(overrides: dict[str, Any], *words: str) -> list[str]:
    """`telltale evaluate sample --on pools` with overrides."""
    settings = [word for key, value in overrides.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    return [sys.executable, "-m", "deployments.cli", "evaluate", "sample", *settings, *words, "--on", "pools"]


def test_the_command_line_has_the_same_run_again_compute_nothing_and_prints_its_results(
    telltale: Telltale,
) -> None:
    before = telltale.manifests()
    command = evaluate_command(SMALL, "--seed", "0")
    done = subprocess.run(command, env=telltale.environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "begins on the pools: http://127.0.0.1:" in done.stdout
    assert "The grid: AUROC of svm" in done.stdout
    assert f"{latest_run(telltale.store, 'sample')}/report.html" in done.stdout
    assert telltale.computed(before) == set()


def test_ctrl_c_leaves_a_run_on_pools_alone_and_the_same_command_watches_it_again(telltale: Telltale) -> None:
    command = evaluate_command(SMALL, "--seed", "1")
    environment = {**telltale.environment, "PYTHONUNBUFFERED": "1"}
    pipes: dict[str, Any] = {"env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as first:
        assert first.stdout is not None
        assert any(line.endswith(": Running\n") for line in first.stdout), "it ended before"
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=120)
    assert first.returncode == 130, said
    cancel = re.search(r"`PREFECT_API_URL=(\S+) prefect flow-run cancel (\S+)` cancels it\n$", said)
    assert cancel is not None, said
    assert telltale.state(cancel[2])["type"] == "RUNNING"
    with subprocess.Popen(command, **pipes) as again:
        assert again.stdout is not None
        assert any("is under way already and is only watched" in line for line in again.stdout), "another one began"
        prefect = str(Path(sys.executable).with_name("prefect"))
        of_server = {**telltale.environment, "PREFECT_API_URL": cancel[1]}
        subprocess.run([prefect, "flow-run", "cancel", cancel[2]], env=of_server, capture_output=True, check=True)
        _, said = again.communicate(timeout=600)
    assert (again.returncode, "was cancelled; what it has finished is kept" in said) == (1, True), said


def test_what_workers_lack_is_said_where_the_run_was_asked_for(telltale: Telltale) -> None:
    command = evaluate_command(SMALL | {"extractor.weights": "nowhere.safetensors"})
    done = subprocess.run(command, env=telltale.environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert re.search(r"failed: missing: VGG16 weights nowhere\.safetensors: .* \(on worker gpu-local-[01]\)$", line)


def test_a_named_deployment_has_its_work_done_by_the_same_lanes(telltale: Telltale) -> None:
    before = telltale.manifests()
    run = telltale.started("embed/vgg16", SMALL | {"qualities": [None, 20, 30]})
    telltale.finish(run)
    made = telltale.computed(before)
    assert made
    assert {place.split("/")[1] for place in made} == {"embed"}
    assert all("/fair/64/q30/" in place for place in made)


OF_THE_CELL = ("score", "evaluate-cell", "compare-detectors", "compare-networks")


def test_one_more_quality_computes_only_its_view(telltale: Telltale) -> None:
    before = telltale.manifests()
    telltale.completed(SMALL | {"qualities": [None, 20, 50]})
    made = telltale.computed(before)
    embedded = {place for place in made if place.startswith("objects/embed/")}
    assert embedded
    assert all("/fair/64/q50/" in place for place in embedded)
    steps = {"embed", "train", *OF_THE_CELL, "card", "examples", "explorer", "report", "views"}
    assert {place.split("/")[1] for place in made} == steps
    # The heads that exist keep their digests: only the new view's own probe is fitted.
    assert all("probe" in place for place in made if place.startswith("objects/train/"))
    assert all("q50" in place for place in made if place.split("/")[1] in OF_THE_CELL)


def test_a_deleted_part_makes_exactly_its_step_run_again(telltale: Telltale) -> None:
    store = telltale.store
    victim = next(place for place in telltale.manifests() if place.startswith("objects/embed/vgg16") and "q20" in place)
    part = read_manifest(store, victim).parts[0]
    before = telltale.manifests()
    store.delete(f"{victim}/{part.file}")
    telltale.completed(SMALL)
    assert telltale.computed(before) == {victim}
    assert read_manifest(store, victim).parts[0] == part


BLUISH = """
def score(pictures):
    return [float(picture[..., 2].mean() - picture[..., 0].mean()) for picture in pictures]
"""


def brought_detectors(folder: Path) -> list[dict[str, Any]]:
    """A detector of each kind that is brought but a table."""
    onnx = {"kind": "onnx", "model": str(network(folder / "theirs.onnx")), "input": tiny_onnx.INPUT, "fake": [1]}
    hub = {"kind": "hub", "model": str(save_vit(folder / "vit")), "input": tiny_models.INPUT, "fake": ["artificial"]}
    backbone = {"kind": "backbone", "library": "transformers", "model": hub["model"], "output": 1}
    return [
        {"kind": "linear", "name": "svm"},
        onnx | {"name": "theirs", "output": "logits", "answer": "softmax"},
        hub | {"name": "classifier"},
        {"kind": "callable", "name": "bluish", "function": "bluish:score", "threshold": 0.0},
        {"kind": "linear", "name": "on-vit", "loss": "logistic", "extractor": backbone | {"input": tiny_models.INPUT}},
    ]


def test_brought_detectors_and_perturbations_are_the_work_of_lanes(telltale: Telltale) -> None:
    before = telltale.manifests()
    detectors = brought_detectors(telltale.folder)
    overrides = WITHOUT_NETWORKS | {"perturbations": ["social"], "detectors": detectors}
    telltale.finish(telltale.start(overrides))
    made = telltale.computed(before)
    assert {place.split("/")[1] for place in made} >= {"files", "weights", "score", "train", "embed", "evaluate-cell"}
    run = latest_run(telltale.store, "sample")
    results = pl.read_parquet(telltale.folder / "store" / run / "tables" / "results.parquet")
    cells = {"none", "q20", "social"}
    for detector in detectors:
        assert set(results.filter(detector=detector["name"], metric="auroc")["perturbation"]) == cells


def test_windows_and_histories_are_made_by_lanes_as_by_one_process(
    telltale: Telltale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_pictures(telltale.folder)
    # By the name that the test before gave it, if it ran: a copy of a file keeps the name that it was first read under.
    document = windows_experiment(telltale.folder, network(telltale.folder / "theirs.onnx"))
    # The first network as it is; what is made of one is made by lanes in `sample`.
    document["mobile"]["networks"] = [document["mobile"]["networks"][0] | {"left_out": False}]
    experiment = telltale.folder / "windows.yaml"
    experiment.write_text(json.dumps(document))
    command = [sys.executable, "-m", "deployments.cli", "evaluate", str(experiment), "--on", "pools"]
    done = subprocess.run(command, env=telltale.environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    undisturbed = LocalStore(tmp_path)
    monkeypatch.setenv(STORE_SETTING, undisturbed.url)
    computed_here(parse_experiment(document), undisturbed)
    expected = untimed_parts(undisturbed)
    assert {place.split("/")[1] for place in expected} >= {
        "cropped",
        "encodings",
        "control",
        "embed",
        "score",
        "report",
    }
    found = untimed_parts(telltale.store)
    assert {place: found.get(place) for place in expected} == expected


@pytest.fixture(scope="module")
def made_up_lanes(telltale: Telltale) -> Telltale:
    """From now on the deployments make up what they make: for the last tests here."""
    for name in ("cpu", "gpu"):
        deployment = telltale.deployment(name, "flows.work.work")["id"]
        telltale.send("PATCH", f"/deployments/{deployment}", {"entrypoint": "tests.integration.made_up_lanes.work"})
    return telltale


def lanes_of_made_up_plan(telltale: Telltale, *words: str) -> list[dict[str, Any]]:
    environment = {**telltale.environment, "PREFECT_API_URL": telltale.api_url}
    command = [sys.executable, "-m", "tests.integration.made_up_lanes", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return telltale.lanes(done.stdout.split()[-1].removesuffix("-0"))


def test_both_workers_of_each_pool_are_at_work_at_once(made_up_lanes: Telltale) -> None:
    lanes = lanes_of_made_up_plan(made_up_lanes, str(made_up_lanes.folder / "meetings"))
    # Each thing waits for that which another lane has to be making meanwhile.
    made = {lane["worker"]: lane["computed"] for lane in lanes if lane["computed"]}
    assert made == {"cpu-local": 1, "cpu-second": 1, "gpu-local-0": 1, "gpu-local-1": 1}


def test_workers_without_the_plans_device_refuse_and_the_one_that_has_it_works(made_up_lanes: Telltale) -> None:
    telltale = made_up_lanes
    telltale.add_worker("gpu", "with-gpu", MADE_UP_DEVICE="cuda", MADE_UP_BUILD="cu130")
    lanes = lanes_of_made_up_plan(telltale)
    refused = [lane for lane in lanes if lane["state"] == "refused"]
    assert {lane["worker"] for lane in refused} == {"gpu-local-0", "gpu-local-1"}
    assert all("no usable GPU" in lane["reason"] and lane["computed"] == 0 for lane in refused)
    on_gpu = {lane["worker"] for lane in lanes if lane["pool"] == "gpu" and lane["computed"]}
    assert on_gpu == {"with-gpu"}
    (versions,) = {lane["versions"]["torch"] for lane in lanes}
    assert "+" not in versions
    places = [place for place in telltale.manifests() if place.startswith("objects/test/") and "/met" not in place]
    assert sum(lane["computed"] for lane in lanes) == len(places) == 16 + 48 + 1
    scaled = [find(telltale.store, place) for place in places if "/scaled/" in place]
    assert {read_part(telltale.store, ref, "data.txt").split()[2] for ref in scaled if ref} == {b"cuda"}


def kill_workers(telltale: Telltale) -> None:
    """SIGKILL for every worker and every flow run that it started, as when a host dies; the server's host lives on."""
    for pid in workers_and_runs(telltale):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: workers_and_runs(telltale) == [], 30)


def workers_and_runs(telltale: Telltale) -> list[int]:
    """The processes of this telltale without its server and its database."""
    server = telltale.pids()["server"]
    return [pid for pid in marked_processes(telltale.home) if pid != server and not is_postgres(pid)]


def is_postgres(pid: int) -> bool:
    """Whether a process is one of PostgreSQL's."""
    try:
        return Path(f"/proc/{pid}/exe").resolve().name == "postgres"
    except OSError:  # it has ended
        return False


def evaluate_inline(telltale: Telltale, store: LocalStore) -> None:
    """The same evaluation in one process against the same server, into another store."""
    code = (
        "import json, sys; from flows.evaluate import evaluate_all; "
        "evaluate_all(experiment='sample', overrides=json.loads(sys.argv[1]), seed=0)"
    )
    environment = {
        **telltale.environment,
        "PREFECT_API_URL": telltale.api_url,
        "TELLTALE_STORE": str(store.root),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", code, json.dumps(SMALL)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
