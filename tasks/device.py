"""The device that tasks compute on: its kind (`device` in recipes), one task at a time, its loss, load and price."""

import ctypes
import functools
import math
import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from storage.errors import SpecError, TelltaleError

PRICE_SETTING = "TELLTALE_GPU_HOUR_PRICE"
DRIVER_PROGRAM = "nvidia-smi"
ANSWER_WITHIN_S = 5.0

# How the libraries below torch begin the messages of errors that are raised as plain RuntimeError.
_DRIVER_MESSAGES = ("CUDA error", "CUDA driver error", "cuDNN error", "CUDNN_STATUS_", "CUBLAS_STATUS_", "NCCL error")

# A worker sees one GPU; tasks that run side by side would only take each other's memory.
_gpu = threading.Lock()


class DeviceLost(TelltaleError):
    """The device failed, not the work: a driver's error, or memory that it does not have. Another may do the work."""


def compute_device() -> str:
    """`cuda` where torch finds a usable GPU, else `cpu`."""
    if not has_driver():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@functools.cache
def has_driver() -> bool:
    """Whether a GPU's driver is there at all, NVIDIA's or AMD's: without one torch, seconds to import, is not asked.

    A run that finds everything made would otherwise import it for this answer alone.
    """
    if Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model, as Linux names it, else as Python does; the architecture where neither knows."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown"


@contextmanager
def device_alone(device: str) -> Iterator[None]:
    """Compute on a GPU one task at a time, with the device's own errors told from the work's.

    On `cpu` tasks run side by side, as ever. A process in which a GPU failed is of no more use: nothing that computes
    on it will work there again, whereas a new process, or another worker's GPU, can take the work over.

    Raises:
        DeviceLost: a driver's error, or out of memory, within the block.
    """
    with nullcontext() if device == "cpu" else _gpu:
        try:
            yield
        except RuntimeError as error:
            if not is_device_error(error):
                raise
            raise DeviceLost(f"{device} failed, {type(error).__name__}: {_first_line(error)}") from error


def is_device_error(error: BaseException) -> bool:
    """Whether an exception says that the device failed or has too little memory."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _DRIVER_MESSAGES)


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """Float32 that is float32, and the same sums each time: without TF32, which differs in the third digit.

    Half precision is a choice of the specification, never the device's own. Nothing changes on `cpu`.
    """
    import torch

    if device == "cpu":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


class GpuLoad:
    """How busy the driver says that the GPU is. Nobody waits for its answer: a call starts the next question."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._seen: list[float] = []
        self._asking: threading.Thread | None = None

    def mean(self) -> float | None:
        """The mean of all answers until now, 0..1; None without any, as on a CPU."""
        if self._device == "cpu":
            return None
        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=self._ask, daemon=True, name="load of the GPU")
            self._asking.start()
        return sum(self._seen) / len(self._seen) if self._seen else None

    def _ask(self) -> None:
        load = gpu_load(self._device)
        if load is not None:
            self._seen.append(load)


def gpu_load(device: str) -> float | None:
    """The share of the last moments in which the GPU computed, 0..1; None on a CPU, or where the driver says nothing.

    Takes a moment: the driver's own program is asked.
    """
    program = None if device == "cpu" else shutil.which(DRIVER_PROGRAM)
    if program is None:
        return None
    command = [program, f"--id={_driver_id()}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ANSWER_WITHIN_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    percent = answer.stdout.strip()
    return int(percent) / 100 if answer.returncode == 0 and percent.isdigit() else None


def _driver_id() -> str:
    """The driver's name of the device that torch calls its first: the numbers of the two need not agree."""
    import torch

    return f"GPU-{torch.cuda.get_device_properties(0).uuid}"


def hourly_price(device: str) -> float | None:
    """What an hour of the device costs (`TELLTALE_GPU_HOUR_PRICE`, in any currency); None on a CPU or where not set.

    Raises:
        SpecError: the setting is no positive number.
    """
    configured = os.environ.get(PRICE_SETTING)
    if device == "cpu" or not configured:
        return None
    try:
        price = float(configured)
    except ValueError:
        price = math.nan
    if not (math.isfinite(price) and price > 0):
        raise SpecError(f"{PRICE_SETTING}: expected the price of a GPU hour, such as 2.5, got {configured!r}")
    return price


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
