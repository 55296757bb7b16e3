"""What is finished of a shard that is not: kept in the store, so that an attempt after a lost worker goes on there."""

import logging
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from storage.digest import sha256_hex
from storage.errors import ObjectMissing
from storage.objects import parquet_bytes, table_of
from storage.store import Store
from storage.tables import IMAGE_SCHEMA

logger = logging.getLogger(__name__)

# So much work is lost at most with a worker. Shorter shards are never written twice.
PERIOD_S = 60.0


class Pieces:
    """Finished rows of an image shard (`IMAGE_SCHEMA`) as Parquet files in a folder of the store.

    A file's name carries a piece of its content's digest, so that a damaged one is recognised. Two workers on one
    recipe may both write: of rows with the same identifier one is read.
    """

    def __init__(self, store: Store, folder: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._folder = folder
        self._clock = clock
        self._written = clock()
        self._rows: list[dict[str, Any]] = []

    def read(self) -> dict[str, dict[str, Any]]:
        """The rows that earlier attempts finished, by image; damaged files are removed with a warning."""
        found: dict[str, dict[str, Any]] = {}
        for key in self._keys():
            try:
                data = self._store.read(key)
            except ObjectMissing:  # the attempt that it belonged to has just finished
                continue
            if sha256_hex(data)[:12] != key.removesuffix(".parquet")[-12:]:
                logger.warning("damaged piece %s: removed, its pictures are made again", key)
                self._store.delete(key)
                continue
            found |= {row["image_id"]: row for row in table_of(data).to_pylist()}
        return found

    def add(self, row: dict[str, Any]) -> None:
        """Take a finished row; now and then, all since the last time are written."""
        self._rows.append(row)
        if self._clock() - self._written >= PERIOD_S:
            data = parquet_bytes(pa.Table.from_pylist(self._rows, schema=IMAGE_SCHEMA))
            self._store.write(f"{self._folder}/pictures-{sha256_hex(data)[:12]}.parquet", data)
            self._rows = []
            self._written = self._clock()

    def remove(self) -> None:
        """The shard is finished: the object is about to hold all of it."""
        for key in self._keys():
            self._store.delete(key)

    def _keys(self) -> list[str]:
        return [key for key in self._store.list(self._folder) if key.startswith(f"{self._folder}/pictures-")]
