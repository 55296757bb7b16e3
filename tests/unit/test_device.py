"""Devices: their errors told from the work's, one task at a time on a GPU, and what an hour of one costs."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from storage.errors import SpecError, TelltaleError
from storage.local import LocalStore
from tasks import device as device_module
from tasks.device import DeviceLost, GpuLoad, device_alone, full_precision, gpu_load, hourly_price
from tasks.progress import Progress
from tasks.recipe import StepRun

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`\nmore"),
    ],
)
def test_what_the_device_did_is_told_from_what_the_work_did(error: Exception) -> None:
    with pytest.raises(DeviceLost, match=r"cuda failed, \w+: .*CU") as caught, device_alone("cuda"):
        raise error
    assert isinstance(caught.value, TelltaleError)
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)


def test_torch_is_not_imported_to_say_that_there_is_no_gpu() -> None:
    code = "import sys; from tasks.device import *; print(has_driver(), compute_device(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    driver, device, imported = done.stdout.split()
    assert driver == imported
    assert device == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("driver", [True, False])
def test_torch_has_the_last_word_where_there_is_a_driver(driver: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "has_driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_module.compute_device() == ("cuda" if driver else "cpu")


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("CUDA error")])
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, device_alone("cuda"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(("device", "most"), [("cuda", 1), ("cpu", 2)])
def test_a_gpu_has_one_task_at_a_time_and_a_cpu_as_many_as_come(device: str, most: int) -> None:
    inside: list[int] = []
    count = 0
    entered = threading.Barrier(2)

    def work() -> None:
        nonlocal count
        with device_alone(device):
            count += 1
            inside.append(count)
            with contextlib.suppress(threading.BrokenBarrierError):
                entered.wait(0.2)
            count -= 1

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(inside) == most


def test_a_lost_device_is_given_back() -> None:
    for _ in range(2):
        with pytest.raises(DeviceLost), device_alone("cuda"):
            raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_gpu_hour_costs_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELLTALE_GPU_HOUR_PRICE", raising=False)
    assert hourly_price("cuda") is None
    monkeypatch.setenv("TELLTALE_GPU_HOUR_PRICE", "2.5")
    assert (hourly_price("cuda"), hourly_price("cpu")) == (2.5, None)
    for nonsense in ("cheap", "-1", "inf"):
        monkeypatch.setenv("TELLTALE_GPU_HOUR_PRICE", nonsense)
        with pytest.raises(SpecError, match="price of a GPU hour"):
            hourly_price("cuda")


def test_progress_says_rate_end_and_cost() -> None:
    now = [0.0]
    progress = Progress("shard", 1000, done=200, price=3.6, clock=lambda: now[0])
    now[0] = 50.0
    progress.advance(200)
    # Two hundred in fifty seconds, those of an earlier attempt not counted.
    assert progress.description() == (
        "shard: 400 of 1000 pictures, 4.0 per second, 0:02:30 left, 0.25 per thousand pictures"
    )
    progress.advance(600)
    assert "left" not in progress.description()


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a driver's program on the path that runs a line of shell."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(device_module, "_driver_id", lambda: "GPU-1234")

    def answer(line: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        program.chmod(0o755)

    return answer


@pytest.mark.parametrize(
    ("line", "load"),
    [
        ('[ "$1" = --id=GPU-1234 ] && echo 97', 0.97),
        ("echo '[N/A]'", None),
        ("echo 50; exit 9", None),
        ("true", None),
    ],
)
def test_the_driver_says_how_busy_torchs_device_is(
    driver: Callable[[str], None], line: str, load: float | None
) -> None:
    assert gpu_load("cuda") is None  # no program yet
    driver(line)
    assert gpu_load("cuda") == load
    assert gpu_load("cpu") is None


def test_the_load_is_the_mean_of_answers_that_nobody_waits_for(driver: Callable[[str], None]) -> None:
    load = GpuLoad("cuda")
    for percent in (90, 70):
        driver(f"echo {percent}")
        load.mean()
        assert load._asking is not None
        load._asking.join()
    assert load.mean() == pytest.approx(0.8)
    # That asked once more; the answer must not come after the driver has gone.
    asking = load._asking
    assert asking is not None
    asking.join()
    assert GpuLoad("cpu").mean() is None


def test_progress_of_a_gpus_task_says_load_and_of_pictures_the_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELLTALE_GPU_HOUR_PRICE", "2.5")
    monkeypatch.setattr(GpuLoad, "mean", lambda self: 0.965)
    run = StepRun(LocalStore(tmp_path), "step", "d")
    pictures, epochs = run.progress(10, device="cuda"), run.progress(10, "epochs", done=2, device="cuda")
    for progress in (pictures, epochs):
        progress.advance()
    assert "per thousand pictures, GPU busy 96%" in pictures.description()
    assert "3 of 10 epochs" in epochs.description()
    assert "thousand" not in epochs.description()


def test_full_precision_turns_tf32_off_for_a_gpu_alone() -> None:
    before = torch.backends.cudnn.allow_tf32
    with full_precision("cuda"):
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == (False, True)
    with full_precision("cpu"):
        assert torch.backends.cudnn.allow_tf32 == before
    assert torch.backends.cudnn.allow_tf32 == before


def test_progress_without_a_price_names_none_and_nothing_done_has_no_end() -> None:
    assert Progress("shard", 10, clock=lambda: 0.0).description() == "shard: 0 of 10 pictures, 0.0 per second"
