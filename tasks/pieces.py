"""What is finished of an object that is not: kept in the store, where an attempt after a lost worker goes on."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from storage.digest import sha256_hex
from storage.errors import ObjectMissing
from storage.objects import parquet_bytes, table_of
from storage.store import Store

logger = logging.getLogger(__name__)

# So much work is lost at most with a worker, beside what it has just begun. What takes less is never written twice.
PERIOD_S = 60.0


class Due:
    """Tells when enough was done, since the beginning or since the last time that it was kept, to keep it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept = clock()

    def __call__(self) -> bool:
        return self._clock() - self._kept >= PERIOD_S

    def kept(self) -> None:
        """What is done so far is safe."""
        self._kept = self._clock()


class Pieces:
    """Finished rows of one object, as Parquet files in a folder of the store that belongs to its recipe.

    A file's name carries a piece of its content's digest, so that a damaged one is recognised. Two workers on one
    recipe may both write: whoever reads takes each row once. `due` says when to write.
    """

    def __init__(self, store: Store, folder: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._folder = folder
        self.due = Due(clock)
        self._may_remain = False

    def read(self) -> Iterator[pa.Table]:
        """What earlier attempts finished, by the pieces' numbers; damaged ones are removed with a warning."""
        for key in self._keys():
            self._may_remain = True
            try:
                data = self._store.read(key)
            except ObjectMissing:  # the attempt that it belonged to has just finished
                continue
            if sha256_hex(data)[:12] != key.removesuffix(".parquet")[-12:]:
                logger.warning("damaged piece %s: removed, what it held is computed again", key)
                self._store.delete(key)
                continue
            yield table_of(data)

    def write(self, table: pa.Table, number: int = 0) -> None:
        """Keep what was finished since the last piece."""
        data = parquet_bytes(table)
        self._may_remain = True
        self._store.write(f"{self._folder}/piece-{number:09d}-{sha256_hex(data)[:12]}.parquet", data)
        self.due.kept()

    def remove(self) -> None:
        """The object is finished and holds all of it. Nothing is looked for where nothing was read or written."""
        if self._may_remain:
            for key in self._keys():
                self._store.delete(key)

    def _keys(self) -> list[str]:
        return [key for key in self._store.list(self._folder) if key.startswith(f"{self._folder}/piece-")]


class RowPieces(Pieces):
    """Pieces of an object whose rows are finished one by one."""

    def __init__(
        self, store: Store, folder: str, schema: pa.Schema, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(store, folder, clock)
        self._schema = schema
        self._rows: list[dict[str, Any]] = []

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows that earlier attempts finished, some of them twice."""
        for table in self.read():
            yield from table.to_pylist()

    def add(self, row: dict[str, Any]) -> None:
        """Take a finished row; now and then, all since the last time are written."""
        self._rows.append(row)
        if self.due():
            self.write(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []
