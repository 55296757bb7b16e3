"""Waiting for many tasks: successes and failures apart, and damaged objects mended by running again."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from storage.errors import DamagedObject, TelltaleError

T = TypeVar("T")

# Each attempt mends at least one damaged object; more than a few say that the store itself is broken.
REPAIRS = 5


def collect(futures: Iterable[Any]) -> list[Any]:
    """The results of all futures, in order. Every one is waited for before the first failure is raised.

    Raises:
        TelltaleError: the first failure itself if it is one of telltale's, with the number of others as a note.
    """
    results: list[Any] = []
    failures: list[Exception] = []
    for future in futures:
        try:
            results.append(future.result())
        except Exception as error:
            failures.append(error)
    if failures:
        first = next((error for error in failures if isinstance(error, DamagedObject)), failures[0])
        if len(failures) > 1:
            first.add_note(f"{len(failures) - 1} more of {len(results) + len(failures)} tasks failed")
        raise first
    return results


def mended(attempt: Callable[[], T]) -> T:
    """Run a stage again when a finished object turns out damaged: its manifest is void, so its step runs again."""
    from prefect.logging import get_run_logger

    for _ in range(REPAIRS):
        try:
            return attempt()
        except DamagedObject as error:
            get_run_logger().warning("%s", error)
    raise TelltaleError(f"objects were still damaged after {REPAIRS} attempts to make them again: check the store")
