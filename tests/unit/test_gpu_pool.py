"""The gpu pool: one worker per device, and every run on the device of the worker that took it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import anyio
import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.workers.process import ProcessJobConfiguration

import deployments
from deployments import bootstrap, processes, services
from deployments.bootstrap import devices_setting, start_workers, wanted_workers
from deployments.home_folder import State
from deployments.processes import Process
from deployments.services import ServerHandle
from flows import work
from storage.errors import TelltaleError
from storage.opening import open_store
from storage.plans import PlanFolder
from tasks.device import DeviceLost

TEMPLATE = json.loads((Path(deployments.__file__).parent / "pools" / "gpu.json").read_text(encoding="utf-8"))
HANDLE = ServerHandle("http://127.0.0.1:4200/api", "http://127.0.0.1:4200", {})
EACH = {name: (name, None) for name in ("coordinator", "cpu", "gpu")}
BY_DEVICE = {"coordinator": ("coordinator", None), "cpu": ("cpu", None), "gpu-0": ("gpu", "0"), "gpu-3": ("gpu", "3")}


def environment_of_a_run(job_variables: dict[str, Any]) -> dict[str, str | None]:
    """What a process worker with this process's environment starts a run with; no server is asked."""

    async def configured() -> ProcessJobConfiguration:
        # Without references to blocks and variables the client has nothing to do.
        client = cast(Any, object())
        return await ProcessJobConfiguration.from_template_and_values(TEMPLATE, job_variables, client=client)

    configuration = anyio.run(configured)
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4()))
    return configuration.env


@pytest.mark.parametrize("device", ["0", "1", "GPU-2f0a"])
def test_a_run_sees_the_device_of_its_worker(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", device)
    environment = environment_of_a_run({"env": {"TELLTALE_THREADS": "2"}})
    assert environment["CUDA_VISIBLE_DEVICES"] == device
    assert (environment["OMP_NUM_THREADS"], environment["TELLTALE_THREADS"]) == ("1", "2")


def test_a_worker_that_names_no_device_hides_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    # Set but empty it would hide all of them.
    assert "CUDA_VISIBLE_DEVICES" not in environment_of_a_run({})


def test_the_template_can_name_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert environment_of_a_run({"device": "3"})["CUDA_VISIBLE_DEVICES"] == "3"


def test_nothing_but_lanes_runs_in_the_pool() -> None:
    document = yaml.safe_load(bootstrap.PREFECT_FILE.read_text(encoding="utf-8"))
    of_pool = [each["entrypoint"] for each in document["deployments"] if each["work_pool"]["name"] == "gpu"]
    assert of_pool == ["flows.work.work"]


def test_a_lane_puts_its_run_back_when_the_device_is_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path))
    PlanFolder(open_store(), "one").begin({"title": "evaluate sample"})
    caught: list[DeviceLost] = []
    made: list[dict[str, Any]] = []

    @contextmanager
    def put_back() -> Iterator[None]:
        try:
            yield
        except DeviceLost as error:
            caught.append(error)

    class LostLane:
        def __init__(self, *given: Any, **named: Any) -> None:
            made.append({"device": given[4].device, "slots": named["slots"]})

        def run(self) -> None:
            raise DeviceLost("cuda failed")

    monkeypatch.setattr(work, "attempt", put_back)
    monkeypatch.setattr(work, "Lane", LostLane)
    monkeypatch.setattr(work, "compute_device", lambda: "cuda")
    work.work.fn(plan="one", pool="gpu", index=0)
    assert [str(error) for error in caught] == ["cuda failed"]
    # One at a time: what runs side by side on a GPU takes each other's memory.
    assert made == [{"device": "cuda", "slots": 1}]


def test_a_lane_of_the_cpu_pool_leaves_a_gpu_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path))
    monkeypatch.setenv("TELLTALE_THREADS", "3")
    PlanFolder(open_store(), "one").begin({"title": "evaluate sample"})
    made: list[dict[str, Any]] = []

    class Enough(Exception):
        """Nothing of the lane itself is wanted."""

    def begin(*given: Any, **named: Any) -> None:
        made.append({"device": given[4].device, "slots": named["slots"]})
        raise Enough

    monkeypatch.setattr(work, "Lane", begin)
    monkeypatch.setattr(work, "compute_device", lambda: "cuda")
    with pytest.raises(Enough):
        work.work.fn(plan="one", pool="cpu", index=0)
    assert made == [{"device": "cpu", "slots": 3}]


def test_a_worker_gets_its_device_and_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELLTALE_HOME", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    started: list[tuple[str, list[str], dict[str, str]]] = []

    def start(name: str, command: list[str], environment: dict[str, str], folder: Path) -> Process:
        started.append((name, command, environment))
        return Process(name, 1, 1, "")

    monkeypatch.setattr(services, "start", start)
    for device in ("0", "1", None):
        services.start_worker("gpu", 1, HANDLE, device)
    assert [environment.get("CUDA_VISIBLE_DEVICES") for _, _, environment in started] == ["0", "1", None]
    assert [command[command.index("--name") + 1] for _, command, _ in started] == [
        "gpu-local-0",
        "gpu-local-1",
        "gpu-local",
    ]
    assert [name for name, _, _ in started] == ["worker-gpu-0", "worker-gpu-1", "worker-gpu"]


@pytest.mark.parametrize(("setting", "devices"), [("", ()), ("0", ("0",)), ("0,GPU-2f0a", ("0", "GPU-2f0a"))])
def test_devices_are_named_as_cuda_names_them(
    monkeypatch: pytest.MonkeyPatch, setting: str, devices: tuple[str, ...]
) -> None:
    monkeypatch.setenv("GPU_DEVICES", setting)
    assert devices_setting() == devices


@pytest.mark.parametrize("setting", ["0,0", "0, 1", "all,", "../x"])
def test_nonsense_is_refused_with_an_example(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("GPU_DEVICES", setting)
    with pytest.raises(TelltaleError, match=r"GPU_DEVICES: expected different devices .* such as 0,1"):
        devices_setting()


def test_there_is_one_worker_per_pool_or_per_device() -> None:
    assert wanted_workers(()) == EACH
    assert wanted_workers(("0", "3")) == BY_DEVICE


def test_workers_that_run_keep_their_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("TELLTALE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TELLTALE_HOME", str(tmp_path))
    alive: set[str] = set()

    def start(pool: str, limit: int, handle: ServerHandle, device: str | None = None) -> Process:
        name = pool if device is None else f"{pool}-{device}"
        alive.add(name)
        return Process(name, 1, 1, "")

    monkeypatch.setattr(services, "start_worker", start)
    monkeypatch.setattr(processes, "is_running", lambda process, folder: process.name in alive)
    monkeypatch.setattr(bootstrap, "await_workers", lambda workers, began: None)
    state, limits = State(), dict.fromkeys(EACH, 1)

    def serve(devices: str) -> str:
        monkeypatch.setenv("GPU_DEVICES", devices)
        start_workers(state, limits, HANDLE)
        return capsys.readouterr().out

    assert "worker of pool gpu, device 3: started" in serve("0,3")
    assert set(state.workers) == alive == set(BY_DEVICE)
    alive.remove("gpu-3")
    printed = serve("")
    assert "stop and serve again to change GPU_DEVICES" in printed
    assert alive == set(BY_DEVICE)
    assert "worker of pool gpu, device 0: runs already" in printed
    alive.clear()
    assert "stop and serve again" not in serve("")
    assert set(state.workers) == alive == set(EACH)
