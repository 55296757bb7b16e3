"""Thresholds on scores, which val pictures give, for each fold its own."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from tasks.evaluation.classification import balanced_accuracy_threshold
from tasks.evaluation.intervals import Float, Measured


def val_thresholds(reference: pl.DataFrame) -> dict[int, float | None]:
    """Per fold the threshold on p(fake) that maximises balanced accuracy on val; None where val has one class only."""
    found: dict[int, float | None] = {}
    for (fold,), rows in reference.filter(pl.col("split") == "val").group_by(["fold"], maintain_order=True):
        both = rows["label"].n_unique() == 2
        found[int(str(fold))] = (
            balanced_accuracy_threshold(rows["label"].to_numpy(), rows["p_fake"].to_numpy()) if both else None
        )
    return found


def threshold_per_picture(folds: Sequence[int], thresholds: Mapping[int, float | None]) -> Float:
    """Each picture's own threshold (N,), that of its fold; NaN, which no score reaches, where its fold has none."""
    limits = [thresholds.get(fold) for fold in folds]
    return np.array([np.nan if limit is None else limit for limit in limits], dtype=np.float64)


def shown_threshold(limits: Float) -> Measured:
    """One number for the thresholds (N,) of all pictures: their mean over folds, where they differ."""
    distinct = np.unique(limits[~np.isnan(limits)])
    if not len(distinct):
        return Measured(None, reason="no fold has a threshold")
    note = f"mean of {len(distinct)} folds' thresholds" if len(distinct) > 1 else None
    return Measured(float(distinct.mean()), reason=note)
