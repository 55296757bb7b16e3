"""How far each generator's pictures are from the test photographs, in the same view."""

import numpy as np
import polars as pl
import pyarrow as pa

from storage.objects import ROWS, Ref
from storage.store import Store
from storage.tables import embedding_matrix, read_features
from tasks.evaluation.fidelity import InceptionFeatures, quality_rows
from tasks.features.inception import FEATURES
from tasks.recipe import Output, StepRun, step
from tasks.spec.views import Cell

QUALITY_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("resolution", pa.string()),
        ("jpeg_quality", pa.int16()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n_real", pa.int32()),
        ("n_fake", pa.int32()),
        ("note", pa.string()),
    ]
)


def evaluated_rows(features: pl.DataFrame) -> pl.DataFrame:
    """The rows that count as test: those of the test split, or all of them with rotating folds."""
    return features.filter((pl.col("split") == "test") | pl.col("fold").is_not_null())


@step("quality", version=2, label=lambda source, cell, **_: f"{source}/{cell.name}", libraries=("numpy", "scipy"))
def measure_quality(
    run: StepRun,
    *,
    source: str,
    cell: Cell,
    layer: str,
    real: tuple[Ref, ...],
    fake: tuple[Ref, ...],
    inception_real: tuple[Ref, ...],
    inception_fake: tuple[Ref, ...],
    inception_weights: str | None,
    seed: int,
) -> Output:
    """Distances between a generator's test pictures and the test photographs.

    On the experiment's own features always; FID, KID and IS where features of the 2015 Inception network are given,
    whose weights are named as `sha256:<hex>`.
    """
    inception = None
    if inception_weights is not None:
        real_rows, fake_rows = (_test_matrix(run.store, refs) for refs in (inception_real, inception_fake))
        inception = InceptionFeatures(
            real=real_rows[:, :FEATURES],
            fake=fake_rows[:, :FEATURES],
            fake_probabilities=fake_rows[:, FEATURES:].astype(np.float64),
            digest=inception_weights.removeprefix("sha256:"),
        )
    rows = quality_rows(_test_matrix(run.store, real), _test_matrix(run.store, fake), layer, seed, inception)
    place = {"source": source, "resolution": str(cell.resolution), "jpeg_quality": cell.jpeg_quality}
    return Output({ROWS: pa.Table.from_pylist([place | dict(row) for row in rows], schema=QUALITY_SCHEMA)})


def _test_matrix(store: Store, refs: tuple[Ref, ...]) -> np.ndarray:
    return embedding_matrix(evaluated_rows(read_features(store, refs)))
