"""The one place that decides how many threads a process computes with, and that lets them work beside each other."""

import contextlib
import functools
import os
import queue
import re
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from storage.errors import SpecError

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS_SETTING = "TELLTALE_THREADS"
# What libraries ask, when they are imported, for the size of their pools.
_LINEAR_ALGEBRA_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_POOL_SETTINGS = (*_LINEAR_ALGEBRA_SETTINGS, "POLARS_MAX_THREADS")

MOST_TASKS = 1024

_LOOK_S = 0.1


def limit_threads() -> None:
    """Give torch one thread per task, so that parallel tasks do not multiply thread pools.

    Floating-point sums depend on the number of threads, so results are only identical with this fixed.
    """
    import torch

    torch.set_num_threads(1)


def limit_linear_algebra() -> None:
    """Give the libraries below NumPy, SciPy and scikit-learn one thread, for as long as the process lasts.

    An eigenvector's last bits depend on their number, which is a machine's number of cores where nobody says otherwise.
    Never for the length of a block: of two tasks that leave such blocks in turn the second one restores what the first
    had set, for the whole process, or (threadpoolctl 3.8) only the thread that was first may set anything.
    """
    from threadpoolctl import OpenBLASController

    # What is imported only now or later asks for it here; what is there already has asked.
    os.environ.update(dict.fromkeys(_LINEAR_ALGEBRA_SETTINGS, "1"))
    # Else this does nothing, silently, in any thread but the one that set OpenBLAS's threads first. All set the same.
    OpenBLASController.clear_controlling_thread(force=True)
    _linear_algebra().limit(limits=1)


@functools.cache
def _linear_algebra() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def threads_environment(threads: int) -> dict[str, str]:
    """The settings under which a new process computes with so many threads, in its tasks and in their libraries."""
    return dict.fromkeys((*_POOL_SETTINGS, THREADS_SETTING), str(threads))


def parallel_tasks() -> int:
    """How many tasks a flow computes at once (`TELLTALE_THREADS`, default the number of usable cores).

    Raises:
        SpecError: the setting is no number from 1 to 1024.
    """
    configured = os.environ.get(THREADS_SETTING)
    if not configured:
        return len(os.sched_getaffinity(0))
    if not re.fullmatch(r"[0-9]{1,4}", configured) or not 1 <= int(configured) <= MOST_TASKS:
        raise SpecError(f"{THREADS_SETTING}: expected tasks at once, from 1 to {MOST_TASKS}, got {configured!r}")
    return int(configured)


def helper_threads(device: str) -> int:
    """How many threads decode or encode pictures for one task: all where it has a GPU to itself, else one."""
    return 1 if device == "cpu" else parallel_tasks()


def made_ahead(function: Callable[[Item], Result], items: Iterable[Item], device: str) -> Iterator[Result]:
    """`function` of every item, in order: by all threads and ahead of a GPU, on a CPU when the result is asked for."""
    if device == "cpu":
        return map(function, items)
    threads = helper_threads(device)
    return in_order(function, items, threads=threads, ahead=threads)


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """`function` of every item, in order, by so many threads, while a thread of its own draws the items.

    At most `ahead` results wait for the caller: then the drawing is held back. An error of `items` or of `function` is
    raised in its turn. After one, and when the caller closes it early (`contextlib.closing`), no more than the item at
    hand is drawn.
    """
    waiting: queue.Queue[Future[Result] | None] = queue.Queue(maxsize=max(1, ahead))
    stopped = threading.Event()

    def put(future: Future[Result] | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(future, timeout=_LOOK_S)
                return

    def draw() -> None:
        try:
            for item in items:
                put(pool.submit(function, item))
                if stopped.is_set():
                    break
        except BaseException as error:
            failed: Future[Result] = Future()
            failed.set_exception(error)
            put(failed)
        put(None)

    with ThreadPoolExecutor(threads) as pool:
        # A caller that fails keeps this generator for as long as anybody keeps its traceback: a process can end anyway.
        drawing = threading.Thread(target=draw, name="drawing", daemon=True)
        drawing.start()
        try:
            while (future := waiting.get()) is not None:
                yield future.result()
        finally:
            stopped.set()
            drawing.join()
            pool.shutdown(cancel_futures=True)
