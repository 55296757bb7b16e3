"""A store that counts what is asked of it, in the words of an object store."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import storage.store
from benchmarks.cost.model import FLOW
from storage.store import Listed, LocalStore, Store


class Tally:
    """Requests by verb and bytes read, for every step that asked; `FLOW` where a flow itself did.

    With one task at a time it also knows each step's processor seconds: from a task's first request, which looks its
    object up, to its last, after which the object is there. Unlike wall time they hardly grow on a busy machine.
    """

    def __init__(self) -> None:
        self.requests: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.tasks: defaultdict[str, list[CountingStore]] = defaultdict(list)
        self._lock = threading.Lock()

    def count(self, asker: str, verb: str, read: int = 0) -> None:
        """Note one request, and so many bytes of its answer."""
        with self._lock:
            self.requests[asker][verb] += 1
            self.requests[asker]["read_bytes"] += read

    def document(self) -> dict[str, dict[str, int]]:
        """As JSON takes it."""
        return {asker: dict(sorted(counts.items())) for asker, counts in sorted(self.requests.items())}

    def processor_seconds(self) -> dict[str, float]:
        """Of every step, all of its tasks together."""
        return {
            asker: round(sum(store.last - store.first for store in stores), 3)
            for asker, stores in sorted(self.tasks.items())
            if asker != FLOW
        }


class CountingStore:
    """A store that notes every request in the words of an object store: GET, PUT, HEAD, LIST, DELETE.

    It is no `LocalStore`, so that parts are read as they are from a bucket: whole, each with one GET.
    """

    def __init__(self, inner: Store, tally: Tally, asker: str) -> None:
        self._inner, self._tally, self._asker = inner, tally, asker
        self.first = self.last = time.process_time()
        tally.tasks[asker].append(self)

    def _count(self, verb: str, read: int = 0) -> None:
        self._tally.count(self._asker, verb, read)
        self.last = time.process_time()

    @property
    def url(self) -> str:
        return self._inner.url

    def read(self, key: str) -> bytes:
        data = b""
        try:
            data = self._inner.read(key)
        finally:
            self._count("GET", len(data))
        return data

    def write(self, key: str, data: bytes) -> None:
        try:
            self._inner.write(key, data)
        finally:
            self._count("PUT")

    def create(self, key: str, data: bytes) -> None:
        try:
            self._inner.create(key, data)
        finally:
            self._count("PUT")

    def size(self, key: str) -> int | None:
        try:
            return self._inner.size(key)
        finally:
            self._count("HEAD")

    def scan(self, prefix: str) -> Iterator[Listed]:
        try:
            yield from self._inner.scan(prefix)
        finally:
            self._count("LIST")

    def list(self, prefix: str) -> list[str]:
        return sorted(listed.key for listed in self.scan(prefix))

    def delete(self, key: str) -> None:
        try:
            self._inner.delete(key)
        finally:
            self._count("DELETE")

    def modified(self, key: str) -> float:
        try:
            return self._inner.modified(key)
        finally:
            self._count("HEAD")

    def is_exclusive(self) -> bool:
        return self._inner.is_exclusive()


@contextmanager
def counted(tally: Tally) -> Iterator[None]:
    """Within this block every local store that `open_store` opens counts for the task or flow that opened it."""
    from prefect.context import TaskRunContext

    def opened(root: Path) -> CountingStore:
        context = TaskRunContext.get()
        asker = FLOW if context is None else asker_name(context.task.name, context.parameters)
        return CountingStore(LocalStore(root), tally, asker)

    storage.store.LocalStore = opened  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        storage.store.LocalStore = LocalStore  # type: ignore[misc]


def asker_name(task: str, parameters: dict[str, Any]) -> str:
    """The name under which a task's requests count: its step's, that of `embed` with the kind of its extractor."""
    return f"embed/{parameters['arguments']['extractor'].kind}" if task == "embed" else task
