"""Reading and writing a feature shard: a fixed-size binary column against pyarrow's defaults for a list column."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Case, Unequal
from storage.objects import parquet_bytes, table_of
from storage.tables import FEATURE_COLUMNS, _feature_frame, embedding_matrix, features_table

ROWS = 1_000

Float = npt.NDArray[np.float32]


def _tables(dimensions: int) -> tuple[Float, pa.Table, pa.Table]:
    """Random features, as a table with a list column and as a feature shard."""
    values = np.random.default_rng(0).standard_normal((ROWS, dimensions), dtype=np.float32)
    identity = pa.table({name: [str(index) for index in range(ROWS)] for name in FEATURE_COLUMNS})
    listed = pa.FixedSizeListArray.from_arrays(values.ravel(), dimensions).cast(pa.list_(pa.float32()))
    return values, identity.append_column("embedding", listed), features_table(identity, values)


def _write_plainly(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _read_plainly(stored: bytes, dimensions: int) -> Float:
    column = pq.read_table(io.BytesIO(stored))["embedding"].combine_chunks()
    values: Float = column.flatten().to_numpy().reshape(-1, dimensions)
    return values


def _read_ours(stored: bytes) -> Float:
    matrix: Float = embedding_matrix(pl.concat([_feature_frame(table_of(stored))]))
    return matrix


def _check(values: Float, one: Float, other: Float) -> None:
    if not (np.array_equal(values, one) and np.array_equal(values, other)):
        raise Unequal("the features that were read are not those that were written")


@contextmanager
def reading_case(size: int, threads: int) -> Iterator[Case]:
    """A thousand rows of so many dimensions, from Parquet bytes to a matrix."""
    values, listed, binary = _tables(size)
    plain, ours = _write_plainly(listed), parquet_bytes(binary)

    def equality(one: Float, other: Float) -> str:
        _check(values, one, other)
        return "bit for bit"

    yield Case(lambda: _read_plainly(plain, size), lambda: _read_ours(ours), equality)


@contextmanager
def writing_case(size: int, threads: int) -> Iterator[Case]:
    """A thousand rows of so many dimensions, from a table to Parquet bytes."""
    values, listed, binary = _tables(size)

    def equality(one: bytes, other: bytes) -> str:
        _check(values, _read_plainly(one, size), _read_ours(other))
        return f"bit for bit; {len(one):,} bytes plainly, {len(other):,} bytes here"

    yield Case(lambda: _write_plainly(listed), lambda: parquet_bytes(binary), equality)
