"""Linear heads: an SVM, logistic regression or discriminant, calibrated on val.

SVMs are fitted by libsvm (`sklearn.svm.SVC`, hinge loss, unregularised intercept) on one Gram matrix per training set,
which serves every C and is equal to `SVC(kernel="linear")`, the first project's.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from storage.digest import hash_fraction, hash_seed
from storage.errors import SpecError
from storage.objects import PartContent, Ref
from storage.store import Store
from storage.tables import FAKE, REAL, embedding_matrix, read_features
from storage.weights import read_weights, weight_parts
from tasks.data.splits import role
from tasks.detectors.discriminant import shrunken_discriminants
from tasks.detectors.logistic import fit_logistic
from tasks.spec.base import IN_A_RECIPE
from tasks.spec.detectors import HeadSpec, Loss
from tasks.spec.splits import Splits

Float = npt.NDArray[np.float64]
Integer = npt.NDArray[np.int64]
Text = npt.NDArray[np.str_]

# What a head's card calls it.
MODELS = {"hinge": "linear-svm", "logistic": "logistic-regression", "discriminant": "linear-discriminant"}

# The Gram matrix takes 8 bytes per pair of training rows: 0.8 GB. Of more rows, each source gives an equal share.
MAX_TRAIN_ROWS = 10_000
# libsvm's steps: minutes. Only hopeless candidates need more (large C, classes that overlap); what was found is noted.
MAX_ITERATIONS = 10_000_000
# A larger C takes longer and fits closer: candidates end once two in a row are this much worse on val than the best.
_WORSE_AUROC = 0.005

# A calibration never reverses the order of decisions: where val is at chance or below, p hardly moves from its mean.
MIN_SLOPE_PER_DEVIATION = 1e-3

_CHUNK_ROWS = 1_000


@dataclass(frozen=True)
class FeatureRows:
    """Feature rows in a fixed order: `identity` without the embedding, labels 0 or 1 (N,), sources (N,), X (N, D)."""

    identity: pl.DataFrame
    labels: Integer
    sources: Text
    X: npt.NDArray[np.float32]

    def take(self, rows: npt.NDArray[np.bool_] | Integer) -> FeatureRows:
        """Some of the rows, by mask or by number."""
        chosen = np.flatnonzero(rows) if rows.dtype == bool else rows
        return FeatureRows(self.identity[chosen], self.labels[chosen], self.sources[chosen], self.X[chosen])

    def roles(self, rotation: int, splits: Splits) -> Text:
        """What each row is in a rotation: train, val or test (N,)."""
        places = self.identity.select("split", "fold").iter_rows(named=True)
        return np.array([role(place, rotation, splits) for place in places], dtype=np.str_)


@dataclass(frozen=True)
class Machine:
    """A fitted machine on features as they are stored: `coef` (D,), `intercept`, and the C that it was fitted with."""

    c: float
    coef: Float
    intercept: float
    converged: bool

    def decisions(self, X: npt.NDArray[np.float32]) -> Float:
        """Decision values (N,), positive for fake, of features (N, D).

        Each row is summed by itself, so that a row's value does not depend on the rows beside it, to the last bit.
        """
        decisions = np.empty(len(X))
        for start in range(0, len(X), _CHUNK_ROWS):
            chunk = np.ascontiguousarray(X[start : start + _CHUNK_ROWS], dtype=np.float64)
            decisions[start : start + _CHUNK_ROWS] = (chunk * self.coef).sum(axis=1)
        return decisions + self.intercept


@dataclass(frozen=True)
class LinearHead:
    """One linear decision per rotation, on features as they are stored: scaling is folded into the coefficients.

    `coef` (R, D), `intercept` (R,), `c` (R,), `calibration` (R, 2) slope and offset, all float64. An uncalibrated head
    has slope 1 and offset 0.
    """

    coef: Float
    intercept: Float
    c: Float
    calibration: Float
    calibrated: bool

    def decisions(self, X: npt.NDArray[np.float32], rotation: int) -> Float:
        """Decision values (N,) of a rotation's machine; see `Machine.decisions`."""
        machine = Machine(self.c[rotation], self.coef[rotation], float(self.intercept[rotation]), converged=True)
        return machine.decisions(X)

    def probabilities(self, decisions: Float, rotation: int) -> Float:
        """p(fake) of decision values (N,); the logistic function of the plain decision for an uncalibrated head."""
        slope, offset = self.calibration[rotation]
        return _logistic(slope * decisions + offset)

    def parts(self, head: HeadSpec) -> dict[str, PartContent]:
        """The head as safetensors and a card."""
        tensors = {
            "coef": self.coef,
            "intercept": self.intercept,
            "c": self.c,
            "calibration": self.calibration,
        }
        card = {
            "model": MODELS[head.loss],
            "calibrated": self.calibrated,
            "head": head.model_dump(mode="json", context=IN_A_RECIPE),
        }
        return weight_parts(tensors, card)

    @classmethod
    def load(cls, store: Store, ref: Ref) -> LinearHead:
        """Read a head back; it gives equal scores."""
        tensors, card = read_weights(store, ref)
        return cls(**tensors, calibrated=card["calibrated"])


def head_rows(store: Store, refs: Sequence[Ref], head: HeadSpec) -> FeatureRows:
    """The rows of the head's sources among feature shards, in an order that does not depend on the shards'."""
    if not refs:
        raise SpecError(f"{head.fit.label}: there are no features of its views to fit on")
    rows = feature_rows(store, refs)
    return rows.take(np.isin(rows.sources, [*head.real, *head.fakes]))


def feature_rows(store: Store, refs: Sequence[Ref]) -> FeatureRows:
    """All rows of feature shards, sorted by source and image id."""
    features = read_features(store, refs)
    order = features.select(pl.arg_sort_by("source", "image_id", maintain_order=True)).to_series()
    features = features[order]
    return FeatureRows(
        features.drop("embedding"),
        features["label"].to_numpy().astype(np.int64),
        features["source"].to_numpy().astype(np.str_),
        embedding_matrix(features),
    )


def balanced_weights(labels: Integer, sources: Text, counts: Float | None = None) -> Float:
    """Weights (N,) with which each class counts half and, within it, each source the same; 1 on average per count.

    Args:
        labels: 0 or 1 (N,).
        sources: (N,).
        counts: how often each row is there (N,), for bootstrap samples; once without.
    """
    counts = np.ones(len(labels)) if counts is None else counts
    weights = np.zeros(len(labels))
    pairs = list(zip(labels.tolist(), sources.tolist(), strict=True))
    present = {pair for pair, count in zip(pairs, counts, strict=True) if count > 0}
    for label, source in present:
        rows = np.array([pair == (label, source) for pair in pairs])
        in_class = sum(other == label for other, _ in present)
        weights[rows] = counts[rows] * counts.sum() / (2 * in_class * counts[rows].sum())
    return weights


def standardisation(X: npt.NDArray[np.floating], weights: Float) -> tuple[Float, Float]:
    """Weighted mean (D,) and standard deviation (D,) of X (N, D); 1 for a feature that is constant."""
    X = X.astype(np.float64)
    mean = np.average(X, axis=0, weights=weights)
    deviation = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
    # The stored float32 resolve 6e-8 of a value: what varies by less is constant.
    constant = deviation <= 1e-7 * np.abs(X).max(axis=0)
    return mean, np.where(constant, 1.0, deviation)


def fit_linear_svm(X: npt.NDArray[np.floating], y: Integer, weights: Float, c: float) -> tuple[Float, float]:
    """A linear SVM with hinge loss: coefficients (D,) and intercept.

    Minimises |w|^2 / 2 + C sum_i weights_i max(0, 1 - y_i (w x_i + b)) with y in {0, 1} read as -1 and 1.

    Args:
        X: features (N, D).
        y: 0 or 1 (N,), both present.
        weights: positive (N,).
        c: the factor C of the loss.
    """
    X = X.astype(np.float64)
    dual, intercept, _ = fit_gram_svm(gram_matrix(X), y, weights, c)
    return dual @ X, intercept


def gram_matrix(X: npt.NDArray[np.floating]) -> Float:
    """Inner products (N, N) of the rows of X (N, D), in float64."""
    X = X.astype(np.float64)
    return X @ X.T


def fit_gram_svm(
    gram: Float, y: Integer, weights: Float, c: float, tolerance: float = 1e-3
) -> tuple[Float, float, bool]:
    """`fit_linear_svm` from the Gram matrix (N, N): dual coefficients (N,), of which `dual @ X` are the primal ones.

    Returns:
        Dual coefficients, intercept, and whether libsvm reached its tolerance within `MAX_ITERATIONS`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC

    machine = SVC(kernel="precomputed", C=c, tol=tolerance, max_iter=MAX_ITERATIONS, cache_size=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # returned instead
        machine.fit(gram, y, sample_weight=weights)
    dual = np.zeros(len(y))
    dual[machine.support_] = machine.dual_coef_[0]
    return dual, float(machine.intercept_[0]), machine.fit_status_ == 0


def fit_platt(decisions: Float, y: Integer, weights: Float) -> tuple[float, float]:
    """Slope and offset with which the logistic function of the decisions is p(fake) (Platt 1999).

    Minimises the weighted cross-entropy against Platt's smoothed targets, (n + 1) / (n + 2) for the n fakes and
    1 / (n + 2) for the n photographs (Lin, Lin & Weng 2007, equation 1). The slope is kept positive
    (`MIN_SLOPE_PER_DEVIATION`).
    """
    from scipy.optimize import minimize

    n_fake, n_real = np.sum(y == FAKE), np.sum(y == REAL)
    targets = np.where(y == FAKE, (n_fake + 1) / (n_fake + 2), 1 / (n_real + 2))
    centre, scale = float(decisions.mean()), float(decisions.std()) or 1.0
    scaled = (decisions - centre) / scale

    def cross_entropy(parameters: Float) -> tuple[float, Float]:
        logits = parameters[0] * scaled + parameters[1]
        loss = np.logaddexp(0.0, logits) - targets * logits
        residuals = weights * (_logistic(logits) - targets)
        return float(np.mean(weights * loss)), np.array([np.mean(residuals * scaled), np.mean(residuals)])

    found = minimize(
        cross_entropy,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(MIN_SLOPE_PER_DEVIATION, None), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1_000},
    )
    slope, offset = found.x
    return float(slope / scale), float(offset - slope * centre / scale)


def fit_head(rows: FeatureRows, head: HeadSpec, splits: Splits) -> tuple[LinearHead, list[dict[str, object]]]:
    """Fit a head on train rows, choose C and calibrate on val rows, once per rotation; test rows are never looked at.

    C is chosen by `choose_c`, p(fake) calibrated by `fit_platt`. A head with one candidate and without calibration
    leaves val alone.

    Returns:
        The head, and what to note of each rotation.

    Raises:
        SpecError: a class has no row in train, or in val where val is needed.
    """
    fitted = [_fit_rotation(rows, rows.roles(r, splits), head, r) for r in range(splits.rotations)]
    machines, calibrations, notes = zip(*fitted, strict=True)
    svm = LinearHead(
        coef=np.stack([machine.coef for machine in machines]),
        intercept=np.array([machine.intercept for machine in machines]),
        c=np.array([machine.c for machine in machines]),
        calibration=np.array(calibrations),
        calibrated=head.svm.calibrate,
    )
    return svm, list(notes)


def _fit_rotation(
    rows: FeatureRows, roles: Text, head: HeadSpec, rotation: int
) -> tuple[Machine, tuple[float, float], dict[str, object]]:
    started = time.monotonic()
    train = train_sample(rows.take(roles == "train"))
    counts = _bootstrap_counts(train, head.fit.seed, rotation)
    train, counts = train.take(counts > 0), counts[counts > 0]
    refuse_one_class(train, head, "train", rotation)
    weights = balanced_weights(train.labels, train.sources, counts)

    mean, scale = np.zeros(train.X.shape[1]), np.ones(train.X.shape[1])
    if head.svm.standardise:
        mean, scale = standardisation(train.X, weights)
    X = (train.X - mean) / scale
    fit_scaled = _fits(head.loss, X, train.labels, weights)

    def fit(c: float) -> Machine:
        scaled, intercept, converged = fit_scaled(c)
        coef = scaled / scale
        return Machine(c, coef, intercept - float(coef @ mean), converged)

    notes: dict[str, object] = {"n_train": _count_sources(train, head)}
    candidates = sorted(head.svm.c_values)
    calibration = (1.0, 0.0)
    if not head.svm.looks_at_val:
        machine = fit(candidates[0])
    else:
        val = rows.take(roles == "val")
        refuse_one_class(val, head, "val", rotation)
        val_weights = balanced_weights(val.labels, val.sources)
        machine, aurocs = choose_c(fit, candidates, val, val_weights)
        notes |= {"n_val": _count_sources(val, head), "val_auroc_by_c": aurocs}
        if head.svm.calibrate:
            calibration = fit_platt(machine.decisions(val.X), val.labels, val_weights)
    notes |= {"c": machine.c, "converged": machine.converged, "seconds": round(time.monotonic() - started, 3)}
    return machine, calibration, notes


def _fits(loss: Loss, X: Float, y: Integer, weights: Float) -> Callable[[float], tuple[Float, float, bool]]:
    """What gives coefficients, intercept, and whether they converged for a candidate C; it prepares what all share."""
    if loss == "logistic":
        return lambda c: fit_logistic(X, y, weights, c)
    if loss == "discriminant":
        discriminant = shrunken_discriminants(X, y, weights)
        return lambda c: (*discriminant(c), True)
    gram = gram_matrix(X)

    def fit(c: float) -> tuple[Float, float, bool]:
        dual, intercept, converged = fit_gram_svm(gram, y, weights, c)
        return dual @ X, intercept, converged

    return fit


def choose_c(
    fit: Callable[[float], Machine], candidates: Sequence[float], val: FeatureRows, weights: Float
) -> tuple[Machine, dict[str, float]]:
    """The machine with the best weighted AUROC on val, of equally good ones (1e-6) that with the smallest C.

    Candidates are tried in ascending order, until two in a row are worse than the best by 0.005.

    Returns:
        The machine, and the AUROC of every C that was tried.
    """
    best: Machine | None = None
    aurocs: dict[str, float] = {}
    worse_in_a_row = 0
    for c in candidates:
        machine = fit(c)
        auroc = auroc_of(val.labels, machine.decisions(val.X), weights)
        aurocs[f"{c:g}"] = round(auroc, 6)
        if best is None or aurocs[f"{c:g}"] > aurocs[f"{best.c:g}"]:
            best = machine
        is_worse = aurocs[f"{c:g}"] < aurocs[f"{best.c:g}"] - _WORSE_AUROC
        worse_in_a_row = worse_in_a_row + 1 if is_worse else 0
        if worse_in_a_row == 2:
            break
    assert best is not None
    return best, aurocs


def auroc_of(labels: Integer, decisions: Float, weights: Float) -> float:
    """The weighted AUROC of decisions (N,) by labels 0 or 1 (N,)."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, decisions, sample_weight=weights))


def _logistic(logits: Float) -> Float:
    from scipy.special import expit

    probabilities: Float = expit(logits)
    return probabilities


def train_sample(train: FeatureRows) -> FeatureRows:
    """The training rows themselves, or `MAX_TRAIN_ROWS` of them: of each source those with the smallest hashes."""
    if len(train.labels) <= MAX_TRAIN_ROWS:
        return train
    ids = train.identity["image_id"].to_list()
    hashes = pl.DataFrame({"source": train.sources, "hash": [hash_fraction("svm", image_id) for image_id in ids]})
    rank = hashes.select(pl.col("hash").rank("ordinal").over("source")).to_series().to_numpy()
    return train.take(np.sort(np.argsort(rank, kind="stable")[:MAX_TRAIN_ROWS]))


def _bootstrap_counts(train: FeatureRows, seed: int, rotation: int) -> Float:
    """How often each row is in the sample (N,): once for seed 0, else as often as its group is drawn.

    Groups are drawn among those with the same sources, so that no source vanishes from the sample.
    """
    if seed == 0:
        return np.ones(len(train.labels))
    sources_of: dict[str, set[str]] = {}
    groups = train.identity["group_id"].to_list()
    for group, source in zip(groups, train.sources.tolist(), strict=True):
        sources_of.setdefault(group, set()).add(source)
    strata: dict[tuple[str, ...], list[str]] = {}
    for group in sorted(sources_of):
        strata.setdefault(tuple(sorted(sources_of[group])), []).append(group)
    random = np.random.default_rng(hash_seed("bootstrap", seed, rotation))
    counts: dict[str, int] = dict.fromkeys(sources_of, 0)
    for stratum in sorted(strata):
        for index in random.integers(0, len(strata[stratum]), len(strata[stratum])):
            counts[strata[stratum][index]] += 1
    return np.array([counts[group] for group in groups], dtype=np.float64)


def refuse_one_class(rows: FeatureRows, head: HeadSpec, split: str, rotation: int) -> None:
    """Raise `SpecError` where a class has no row in a split."""
    for label, name, sources in ((REAL, "real", head.real), (FAKE, "fake", head.fakes)):
        if not np.any(rows.labels == label):
            raise SpecError(
                f"{head.fit.label}: no {name} picture in {split} (rotation {rotation}) of {', '.join(sources)}; "
                "it needs more pictures, other splits, or sources as large as the canonical side or the window"
            )


def _count_sources(rows: FeatureRows, head: HeadSpec) -> dict[str, int]:
    return {source: int(np.sum(rows.sources == source)) for source in (*head.real, *head.fakes)}
