"""C chosen among eight by validation: one Gram matrix for all candidates, against a linear SVC fitted eight times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.harness import Case, Unequal
from benchmarks.inputs import features
from tasks.detectors.svm import FeatureRows, fit_head, standardisation
from tasks.features.vgg16 import Vgg16Spec
from tasks.spec.detectors import Fit, HeadSpec, SvmSpec
from tasks.spec.splits import FixedSplits
from tasks.spec.views import View

DIMENSIONS = 4_096
C_VALUES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
HELD_OUT = 500
RELATIVE = 1e-3
# How far the class means are apart, in standard deviations of each feature: errors remain, and C matters.
SHIFT = 0.05

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Chosen:
    """The C that validation chose, and the decisions of its machine on held-out points."""

    c: float
    decisions: Float


def labelled(rows: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Features (rows, 4096) of two classes in equal numbers that overlap a little, and their labels."""
    labels = np.arange(rows) % 2
    X = features(rows, DIMENSIONS, seed)
    direction = np.random.default_rng(1).standard_normal(DIMENSIONS).astype(np.float32)
    return X + SHIFT * labels[:, None].astype(np.float32) * direction, labels


@contextmanager
def svm_case(size: int, threads: int) -> Iterator[Case]:
    """So many training rows, a quarter as many to validate."""
    (train, y), (val, val_y), (held_out, _) = (
        labelled(rows, seed) for seed, rows in enumerate((size, size // 4, HELD_OUT))
    )
    rows = _feature_rows(np.concatenate([train, val]), np.concatenate([y, val_y]), size)

    def plain() -> Chosen:
        from sklearn.metrics import roc_auc_score
        from sklearn.svm import SVC

        mean, scale = standardisation(train, np.ones(size))
        X, X_val = (train - mean) / scale, (val - mean) / scale
        machines = [SVC(kernel="linear", C=c).fit(X, y) for c in C_VALUES]
        aurocs = [round(roc_auc_score(val_y, machine.decision_function(X_val)), 6) for machine in machines]
        best = machines[int(np.argmax(aurocs))]
        return Chosen(best.C, best.decision_function((held_out - mean) / scale))

    def ours() -> Chosen:
        head, _ = fit_head(rows, _head(), FixedSplits())
        return Chosen(float(head.c[0]), head.decisions(held_out, 0))

    def equality(one: Chosen, other: Chosen) -> str:
        if one.c != other.c:
            raise Unequal(f"plain chose C = {one.c:g}, ours {other.c:g}")
        difference = float(np.abs(one.decisions - other.decisions).max() / np.abs(one.decisions).max())
        if difference > RELATIVE:
            raise Unequal(f"decisions differ by {difference:.1e} of the largest, allowed {RELATIVE:.0e}")
        return (
            f"C = {one.c:g} both times; decisions on {HELD_OUT} held-out points differ by {difference:.0e} of the "
            "largest at most"
        )

    yield Case(plain, ours, equality)


def _head() -> HeadSpec:
    return HeadSpec(
        fit=Fit(detector="svm"),
        extractor=Vgg16Spec(),
        views=(View(path="fair", resolution="native"),),
        real=("real",),
        fakes=("fake",),
        svm=SvmSpec(c_values=C_VALUES, calibrate=False),
    )


def _feature_rows(X: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], train: int) -> FeatureRows:
    ids = [str(row) for row in range(len(labels))]
    sources = np.where(labels == 1, "fake", "real")
    splits = ["train" if row < train else "val" for row in range(len(labels))]
    identity = pl.DataFrame(
        {"image_id": ids, "group_id": ids, "source": sources, "label": labels, "split": splits, "fold": None}
    )
    return FeatureRows(identity, labels, sources.astype(np.str_), X)
