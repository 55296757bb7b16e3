"""The schemas of telltale's tables, and the readers and writers of features."""

import json
from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from storage.errors import DamagedObject
from storage.objects import Ref, read_table
from storage.store import Store

REAL, FAKE = 0, 1

IMAGE_SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_id", pa.string()),
        ("group_id", pa.string()),
        ("source", pa.string()),
        ("label", pa.int8()),  # REAL or FAKE
        ("split", pa.string()),  # train, val, test; null with rotating folds
        ("fold", pa.int16()),  # null with fixed splits
        ("prompt", pa.string()),
        ("caption", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("width", pa.int32()),  # as stored, before EXIF orientation
        ("height", pa.int32()),
        ("format", pa.string()),
        ("jpeg_quality", pa.int16()),  # estimated from the quantisation table; null if not JPEG
        ("licence", pa.string()),
        ("sha256", pa.string()),
        ("phash", pa.string()),  # 16 hexadecimal digits
        ("seed", pa.int64()),  # the generator's seed; null for photographs
    ]
)

# What a published Parquet file of pictures calls itself: load_dataset("parquet") then shows pictures.
IMAGE_METADATA = {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})}

QUARANTINE_SCHEMA = pa.schema(
    [("source", pa.string()), ("image_id", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)

SCORE_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("group_id", pa.string()),
        ("source", pa.string()),
        ("label", pa.int8()),
        ("split", pa.string()),  # val or test: the picture's role in the rotation that scored it
        ("fold", pa.int16()),  # the rotation that scored it; 0 with fixed splits
        ("detector", pa.string()),
        ("path", pa.string()),
        ("resolution", pa.string()),
        ("jpeg_quality", pa.int16()),
        ("p_fake", pa.float64()),
        ("decision", pa.float64()),  # the raw decision value, positive for fake
        ("class_probabilities", pa.list_(pa.float64())),  # null for a detector of two classes
    ]
)

# One row per cell, protocol, mix, detector, threshold and metric; `low` and `high` are 95 % bounds.
RESULT_SCHEMA = pa.schema(
    [
        ("protocol", pa.string()),  # fair, seed, or the name of an ablation stage
        ("resolution", pa.string()),
        ("jpeg_quality", pa.int16()),
        ("mix", pa.string()),
        ("detector", pa.string()),
        ("threshold_rule", pa.string()),  # val, half, oracle, zero; null where no threshold is needed
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("reason", pa.string()),  # why value or interval is null
        ("n_real", pa.int32()),
        ("n_fake", pa.int32()),
        ("n_groups", pa.int32()),
    ]
)

FEATURE_COLUMNS = ("image_id", "group_id", "source", "label", "split", "fold")


def features_table(identity: pa.Table, embedding: np.ndarray) -> pa.Table:
    """A feature shard: the identity columns of an image shard and one embedding per row.

    Args:
        identity: table with `FEATURE_COLUMNS`, N rows.
        embedding: float32 (N, D).
    """
    values = np.ascontiguousarray(embedding, dtype="<f4")
    if values.ndim != 2 or len(values) != identity.num_rows:
        raise ValueError(f"embedding: expected ({identity.num_rows}, D), got {values.shape}")
    width = values.shape[1] * values.itemsize
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(values)])
    shape = {"embedding": json.dumps({"dtype": "<f4", "shape": [values.shape[1]]})}
    table = identity.select(list(FEATURE_COLUMNS)).combine_chunks().append_column("embedding", column)
    return table.replace_schema_metadata(shape)


def read_features(store: Store, refs: Sequence[Ref]) -> pl.DataFrame:
    """Read feature shards as one Polars frame with an `Array` column `embedding`, without copying the values."""
    return pl.concat([_feature_frame(read_table(store, ref)) for ref in refs])


def embedding_matrix(features: pl.DataFrame) -> np.ndarray:
    """The `embedding` column as float32 (N, D)."""
    return features["embedding"].to_numpy()


def _feature_frame(table: pa.Table) -> pl.DataFrame:
    metadata = (table.schema.metadata or {}).get(b"embedding")
    if metadata is None:
        raise DamagedObject("a feature shard without its embedding's dtype and shape")
    dimension = json.loads(metadata)["shape"][0]
    chunks = [
        np.frombuffer(
            chunk.buffers()[1], dtype="<f4", count=len(chunk) * dimension, offset=chunk.offset * dimension * 4
        )
        for chunk in table["embedding"].chunks
    ]
    flat = chunks[0] if len(chunks) == 1 else np.concatenate(chunks) if chunks else np.empty(0, "<f4")
    values = (
        pl.Series("embedding", flat).reshape((-1, dimension))
        if len(flat)
        else pl.Series("embedding", [], pl.Array(pl.Float32, dimension))
    )
    identity = pl.from_arrow(table.drop_columns(["embedding"]))
    assert isinstance(identity, pl.DataFrame)
    return identity.with_columns(values)
