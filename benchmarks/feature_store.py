"""Reading and writing a feature shard: a fixed-size binary column against pyarrow's defaults for a list column.

    python benchmarks/feature_store.py [ROWS] [DIMENSIONS]

Prints the median of five alternating pairs and the range of the ratios.
"""

import io
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from storage.objects import parquet_bytes
from storage.tables import FEATURE_COLUMNS, _feature_frame, embedding_matrix, features_table

PAIRS = 5


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main(rows: int = 1000, dimensions: int = 4096) -> None:
    """Measure both ways on the same random features."""
    values = np.random.default_rng(0).standard_normal((rows, dimensions), dtype=np.float32)
    identity = pa.table({name: [str(index) for index in range(rows)] for name in FEATURE_COLUMNS})
    ours = features_table(identity, values)
    plain = identity.append_column(
        "embedding", pa.FixedSizeListArray.from_arrays(values.ravel(), dimensions).cast(pa.list_(pa.float32()))
    )
    stored = parquet_bytes(ours)

    def write_plain() -> bytes:
        sink = io.BytesIO()
        pq.write_table(plain, sink)
        return sink.getvalue()

    stored_plain = write_plain()

    def read_plain() -> np.ndarray:
        column = pq.read_table(io.BytesIO(stored_plain))["embedding"].combine_chunks()
        return column.flatten().to_numpy().reshape(rows, dimensions)

    def read_ours() -> np.ndarray:
        return embedding_matrix(pl.concat([_feature_frame(pq.read_table(io.BytesIO(stored)))]))

    assert np.array_equal(read_plain(), read_ours())
    for name, plainly, here in (
        ("write", write_plain, lambda: parquet_bytes(ours)),
        ("read to NumPy", read_plain, read_ours),
    ):
        pairs = [(seconds(plainly), seconds(here)) for _ in range(PAIRS)]
        ratios = sorted(plain_s / our_s for plain_s, our_s in pairs)
        print(
            f"{name}: list column {statistics.median(p for p, _ in pairs) * 1e3:.1f} ms, "
            f"fixed-size binary {statistics.median(o for _, o in pairs) * 1e3:.1f} ms, "
            f"ratio {statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        )
    print(f"bytes: list column {len(stored_plain):,}, fixed-size binary {len(stored):,}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
