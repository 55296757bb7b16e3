"""The device that tasks compute on: its kind (`device` in recipes), one task at a time, its loss and its price."""

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from storage.errors import SpecError, TelltaleError

PRICE_SETTING = "TELLTALE_GPU_HOUR_PRICE"

# How the libraries below torch begin the messages of errors that are raised as plain RuntimeError.
_DRIVER_MESSAGES = ("CUDA error", "CUDA driver error", "cuDNN error", "CUDNN_STATUS_", "CUBLAS_STATUS_", "NCCL error")

# A worker sees one GPU; tasks that run side by side would only take each other's memory.
_gpu = threading.Lock()


class DeviceLost(TelltaleError):
    """The device failed, not the work: a driver's error, or memory that it does not have. Another may do the work."""


def compute_device() -> str:
    """`cuda` where torch finds a usable GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


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
