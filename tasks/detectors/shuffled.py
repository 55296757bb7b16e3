"""The control with shuffled labels: whether a linear head learns anything from labels that say nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from storage.digest import hash_seed
from storage.objects import ROWS, Ref
from tasks.detectors.discriminant import discriminants_of_labels
from tasks.detectors.logistic import fit_logistic
from tasks.detectors.svm import (
    FeatureRows,
    Float,
    Integer,
    Machine,
    auroc_of,
    balanced_weights,
    fit_gram_svm,
    gram_matrix,
    head_rows,
    refuse_one_class,
    standardisation,
    train_sample,
)
from tasks.recipe import Output, StepRun, step
from tasks.spec.detectors import HeadSpec, Loss
from tasks.spec.splits import Splits


def shuffled_aurocs(
    rows: FeatureRows, head: HeadSpec, splits: Splits, repeats: int, seed: int
) -> list[tuple[float | None, int]]:
    """AUROC on test rows, and their number, of heads fitted to labels that say nothing.

    In every repeat each group keeps its labels or has all of them reversed, by the toss of a coin, in train and test
    alike. So the expected AUROC is exactly 0.5, unless something of a test group is known to the head: a group torn
    between train and test, or test rows in the fit. Rotation 0, and the middle one of the C candidates, or strengths
    of shrinkage. None where a class is missing from train or test.
    """
    roles = rows.roles(0, splits)
    train, test = train_sample(rows.take(roles == "train")), rows.take(roles == "test")
    refuse_one_class(train, head, "train", 0)
    c = sorted(head.svm.c_values)[len(head.svm.c_values) // 2]
    mean, scale = np.zeros(train.X.shape[1]), np.ones(train.X.shape[1])
    if head.svm.standardise:
        mean, scale = standardisation(train.X, np.ones(len(train.labels)))
    X = (train.X - mean) / scale
    groups = np.unique(rows.identity["group_id"].to_numpy())
    shuffled: dict[int, tuple[Integer, Integer]] = {}
    for repeat in range(repeats):
        coins = np.random.default_rng(hash_seed("shuffled", seed, repeat)).integers(0, 2, len(groups))
        train_labels, test_labels = (
            part.labels ^ coins[np.searchsorted(groups, part.identity["group_id"].to_numpy())] for part in (train, test)
        )
        if len(np.unique(train_labels)) == len(np.unique(test_labels)) == 2:
            shuffled[repeat] = train_labels, test_labels
    coefs = _coefficients(head.loss, X, [labels for labels, _ in shuffled.values()], c)
    aurocs = {
        # Without the intercept: AUROC depends on the order alone.
        repeat: auroc_of(labels, Machine(c, coef / scale, 0.0, True).decisions(test.X), np.ones(len(labels)))
        for (repeat, (_, labels)), coef in zip(shuffled.items(), coefs, strict=True)
    }
    return [(aurocs.get(repeat), len(test.labels)) for repeat in range(repeats)]


def _coefficients(loss: Loss, X: Float, labels: Sequence[Integer], c: float) -> Iterator[Float]:
    """Coefficients (D,) for each of many labels (N,) of X (N, D); it prepares what all share.

    Classes are balanced, but for discriminants, for which every row counts once.
    """
    if loss == "discriminant":
        yield from discriminants_of_labels(X, np.stack(labels), c) if labels else ()
        return
    gram = gram_matrix(X) if loss == "hinge" else None
    for y in labels:
        weights = balanced_weights(y, y.astype(np.str_))
        yield fit_logistic(X, y, weights, c)[0] if gram is None else fit_gram_svm(gram, y, weights, c)[0] @ X


def mean_interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Mean and 95 % t-interval; no interval of fewer than two values, nothing at all of none."""
    from scipy.stats import t

    if not values:
        return None, None, None
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


@step(
    "control/shuffled",
    version=1,
    label=lambda *, head, **_: f"{head.fit.label}/{head.views[0].name}",
    libraries=("scikit-learn", "numpy"),
)
def shuffled_control(
    run: StepRun, *, head: HeadSpec, features: tuple[Ref, ...], splits: Splits, repeats: int, seed: int
) -> Output:
    """Whether a head learns anything from labels that say nothing: AUROC of every repeat, and their mean's interval.

    It is tested in the views that it is fitted on.
    """
    rows = head_rows(run.store, features, head)
    outcomes = shuffled_aurocs(rows, head, splits, repeats, seed)
    table = pa.table(
        {
            "repeat": pa.array(range(repeats), pa.int16()),
            "auroc": pa.array([auroc for auroc, _ in outcomes], pa.float64()),
            "n": pa.array([n for _, n in outcomes], pa.int32()),
        }
    )
    valid = [auroc for auroc, _ in outcomes if auroc is not None]
    mean, low, high = mean_interval(valid)
    return Output({ROWS: table}, {"mean": mean, "low": low, "high": high, "repeats": len(valid)})
