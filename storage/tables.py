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
        ("seed", pa.string()),  # the generator's, as it is stated; null for photographs
    ]
)

# Pictures in the form that every fair view starts from: JPEG files of the canonical side.
CANONICAL_SCHEMA = pa.schema(
    [
        *(IMAGE_SCHEMA.field(name) for name in ("image_id", "group_id", "source", "label", "split", "fold")),
        ("canonical", pa.binary()),
    ]
)

# What windows of the crop path are cut from: whole files, and the JPEG quality that each window is encoded at.
CROPPED_SCHEMA = pa.schema(
    [
        *CANONICAL_SCHEMA,
        ("width", pa.int32()),  # upright
        ("height", pa.int32()),
        ("quality", pa.int16()),
    ]
)

# What a published Parquet file of pictures calls itself: load_dataset("parquet") then shows pictures.
IMAGE_METADATA = {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})}

QUARANTINE_SCHEMA = pa.schema(
    [("source", pa.string()), ("image_id", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)

# Which detector, and which fit of it.
FIT_COLUMNS = (
    ("detector", pa.string()),
    ("seed", pa.int64()),  # the training seed
    ("fitted_on", pa.string()),  # the only generator that it was fitted on; null: all of them
    ("without", pa.string()),  # the only generator that it was not fitted on; null: none is missing
    ("role", pa.string()),  # detector, or probe: what sees no content and should be at chance
)

SCORE_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("group_id", pa.string()),
        ("source", pa.string()),
        ("label", pa.int8()),
        ("split", pa.string()),  # val or test: the picture's role in the rotation that scored it
        ("fold", pa.int16()),  # the rotation that scored it; 0 with fixed splits
        *FIT_COLUMNS,
        ("path", pa.string()),
        ("resolution", pa.string()),
        ("perturbation", pa.string()),  # such as q20; none where nothing happens to the picture
        ("p_fake", pa.float64()),
        ("decision", pa.float64()),  # the raw decision value, larger for fake; null where the detector failed
        ("class_probabilities", pa.list_(pa.float64())),  # null for a detector of two classes
    ]
)

# How familiar a network finds the pictures that it scored: beside the rows of a score object, one row for each.
FAMILIARITY = "familiarity.parquet"

FAMILIARITY_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("fold", pa.int16()),
        ("max_probability", pa.float64()),  # calibrated; higher is more familiar, here and below
        ("energy", pa.float64()),
        ("distance", pa.float64()),  # minus the squared Mahalanobis distance to the nearest class
    ]
)

# One row per cell, protocol, mix, fit, threshold and metric; `low` and `high` are 95 % bounds.
RESULT_SCHEMA = pa.schema(
    [
        ("protocol", pa.string()),  # fair, or beside it; seed; an ablation or audit stage; control (shuffled labels)
        ("resolution", pa.string()),
        ("perturbation", pa.string()),
        ("mix", pa.string()),
        *FIT_COLUMNS,
        ("threshold_rule", pa.string()),  # val, half, oracle, published, zero; null where no threshold is needed
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

# What a network's compression costs: one row per network, training seed, cell and metric. `change` is the paired
# difference from the experiment's first network; `low`, `high` and their kin are 95 % bounds.
COMPARISON_SCHEMA = pa.schema(
    [
        ("network", pa.string()),
        ("seed", pa.int64()),  # null for the mean over all of them
        ("resolution", pa.string()),
        ("perturbation", pa.string()),
        ("metric", pa.string()),  # class_accuracy, balanced_accuracy, auroc
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("change", pa.float64()),
        ("change_low", pa.float64()),
        ("change_high", pa.float64()),
        ("reason", pa.string()),  # why value or interval is null
        ("n", pa.int32()),
        ("n_groups", pa.int32()),
    ]
)

# How two detectors differ in a cell, or one between two cells of a resolution: one row per pair, mix and metric.
# `difference` is that of `detector` at `perturbation` minus that of `than_detector` at `than_perturbation`, on the
# pictures that both scored; `low` and `high` are 95 % bounds, `p` is two-sided and of this pair alone.
PAIR_SCHEMA = pa.schema(
    [
        ("resolution", pa.string()),
        ("perturbation", pa.string()),
        ("mix", pa.string()),
        ("detector", pa.string()),
        ("than_detector", pa.string()),
        ("than_perturbation", pa.string()),
        ("metric", pa.string()),  # auroc; accuracy, at each fold's val threshold
        ("difference", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("p", pa.float64()),
        ("reason", pa.string()),  # why the difference, or its interval and p, are null
        ("n_real", pa.int32()),
        ("n_fake", pa.int32()),
        ("n_left_out", pa.int32()),  # pictures that one of the two did not score
        ("n_groups", pa.int32()),
    ]
)

# How detectors rank by their AUROC in a cell: one row per mix and detector. Bounds are 95 % of resamples of groups.
RANK_SCHEMA = pa.schema(
    [
        ("resolution", pa.string()),
        ("perturbation", pa.string()),
        ("mix", pa.string()),
        ("detector", pa.string()),
        ("best", pa.bool_()),  # the one of rank 1; the first of equal ones
        ("rank", pa.float64()),
        ("rank_low", pa.float64()),
        ("rank_high", pa.float64()),
        ("reason", pa.string()),  # why rank or bounds are null
        ("n_groups", pa.int32()),
    ]
)

# What a network is, and what it weighs: one row per network and training seed, means over rotations.
NETWORK_SCHEMA = pa.schema(
    [
        ("network", pa.string()),
        ("seed", pa.int64()),
        ("kind", pa.string()),  # fine-tuned, magnitude-pruned, structure-pruned, distilled, alone, quantized
        ("of", pa.string()),  # the network that it was made from; null for the first, and for narrow students
        ("teachers", pa.string()),
        ("pretrained", pa.bool_()),  # false where all weights began at random
        ("parameters", pa.float64()),
        ("macs", pa.float64()),
        ("bytes", pa.float64()),  # the exported file
        ("compressed_bytes", pa.float64()),  # the same, by zlib: what zeros save
        ("zeros", pa.float64()),  # share of the weights
        ("in_float", pa.string()),  # layers that a quantized network keeps in float
        ("epochs", pa.float64()),
        ("loss", pa.float64()),
        ("training_accuracy", pa.float64()),
        ("validation_loss", pa.float64()),
        ("validation_accuracy", pa.float64()),
    ]
)

# Times are no content: this table is beside the results, never part of their digest.
LATENCY_SCHEMA = pa.schema(
    [
        ("network", pa.string()),
        ("runtime", pa.string()),  # onnxruntime, or torch for the first network run eagerly
        ("side", pa.int32()),  # of the square picture
        ("median_ms", pa.float64()),
        ("low_ms", pa.float64()),  # 5th percentile
        ("high_ms", pa.float64()),  # 95th percentile
        ("runs", pa.int32()),
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
