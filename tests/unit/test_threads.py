"""Work of threads beside each other: in order, not too far ahead, and never swallowing an error."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from storage.local import LocalStore
from storage.objects import notes_of
from tasks.networks.familiarity import fit_familiarity
from tasks.recipe import Output, StepRun, step
from tasks.threads import helper_threads, in_order, made_ahead, parallel_tasks, threads_environment


def test_results_come_in_the_order_of_the_items_however_long_each_takes() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * 2

    assert list(in_order(slow_first, range(20), threads=4, ahead=3)) == [item * 2 for item in range(20)]


def test_items_are_drawn_in_one_other_thread() -> None:
    drawn_in: set[str] = set()

    def items() -> Iterator[int]:
        for item in range(3):
            drawn_in.add(threading.current_thread().name)
            yield item

    assert list(in_order(str, items(), threads=2, ahead=1)) == ["0", "1", "2"]
    assert len(drawn_in) == 1
    assert threading.current_thread().name not in drawn_in


def test_a_slow_caller_holds_the_drawing_back() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for item in range(50):
            drawn.append(item)
            yield item

    results = in_order(str, items(), threads=2, ahead=4)
    assert next(results) == "0"
    time.sleep(0.2)
    # What the caller has, what waits, and the one that is about to.
    assert len(drawn) <= 1 + 4 + 1
    results.close()
    assert len(drawn) <= 1 + 4 + 2


@pytest.mark.parametrize("where", ["items", "function"])
def test_an_error_is_raised_in_its_turn(where: str) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        if where == "items":
            raise MemoryError("no more")
        yield from range(3, 100)

    def function(item: int) -> int:
        if where == "function" and item == 3:
            raise MemoryError("no more")
        return item

    results = in_order(function, items(), threads=2, ahead=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(MemoryError, match="no more"):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name == "drawing"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_made_ahead_comes_in_order_and_only_ahead_of_a_gpu(device: str) -> None:
    drawn: list[int] = []
    made = made_ahead(lambda item: drawn.append(item) or -item, range(4), device)  # type: ignore[func-returns-value]
    assert next(made) == 0
    assert (drawn == [0]) or device == "cuda"
    assert list(made) == [-1, -2, -3]
    assert sorted(drawn) == [0, 1, 2, 3]


def test_only_a_task_with_a_gpu_takes_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELLTALE_THREADS", "6")
    assert (helper_threads("cpu"), helper_threads("cuda")) == (1, 6)


def test_a_new_process_is_told_its_threads_in_all_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = threads_environment(3)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        assert environment[name] == "3"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert parallel_tasks() == 3


def test_a_step_computes_its_linear_algebra_on_one_thread_whatever_ran_beside_it_before(tmp_path: Path) -> None:
    """Of two blocks that limit threads and end in turn one stays in force; only the first thread may limit them."""
    from threadpoolctl import OpenBLASController, threadpool_limits

    OpenBLASController.clear_controlling_thread(force=True)
    first, second = threadpool_limits(limits=3), threadpool_limits(limits=2)
    first.restore_original_limits()
    second.restore_original_limits()
    store = LocalStore(tmp_path)
    task = threading.Thread(target=used_threads.compute, args=(store,))
    task.start()
    task.join()
    made = used_threads.lookup(store)
    assert notes_of(store, made)["threads"] == [1]


def test_a_step_gives_libraries_that_are_loaded_later_one_thread_as_well(tmp_path: Path) -> None:
    assert printed("notes_of(store, used_threads.compute(store)[0])['threads']", tmp_path, threads=3) == "[1]"


def test_familiarity_is_the_same_on_any_number_of_cores(tmp_path: Path) -> None:
    """The eigenvectors below it had other last bits with one thread than with more."""
    digest = "read_part(store, familiar.compute(store)[0], 'sha256').decode()"
    one, two = (printed(digest, tmp_path / str(threads), threads) for threads in (1, 2))
    assert one == two


def printed(expression: str, folder: Path, threads: int) -> str:
    """What an expression is in a new process that was given so many threads, with a store in a folder."""
    code = (
        "import sys; from pathlib import Path; from storage.objects import notes_of, read_part;"
        "from storage.local import LocalStore; from tests.unit.test_threads import familiar, used_threads;"
        f"store = LocalStore(Path(sys.argv[1])); print({expression})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env=os.environ | threads_environment(threads),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@step("used-threads", version=1, label=lambda: "all")
def used_threads(run: StepRun) -> Output:
    """How many threads the libraries of linear algebra have, each number once."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info

    found = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    return Output({}, {"threads": sorted(found)})


@step("familiar", version=1, label=lambda: "all")
def familiar(run: StepRun) -> Output:
    """What a network is familiar with, of made features that are as wide as MobileNetV2's."""
    random = np.random.default_rng(1280)
    features = np.maximum(random.normal(size=(174, 1280)), 0).astype(np.float32)
    found = fit_familiarity(features, np.arange(174) % 3, 3)
    data = b"".join(np.ascontiguousarray(value).tobytes() for value in vars(found).values())
    return Output({"sha256": hashlib.sha256(data).hexdigest().encode()})
