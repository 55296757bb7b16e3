"""How familiar a picture is to a network: maximum probability, energy, and distance to the classes of its training.

A low score says that the picture comes from a source that the network was not trained on. Which score is low enough is
decided on val pictures of known sources (`tasks/evaluation/rejection.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.errors import SpecError

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

# The columns of `familiarity_scores`; higher is more familiar in each.
SCORES = ("max-probability", "energy", "distance")

COMPONENTS = 32
# A covariance of few or degenerate samples stays invertible, with a condition of at most COMPONENTS / MIN_SHRINKAGE.
MIN_SHRINKAGE = 1e-3

_PREFIX = "rejection."
_CHUNK_ROWS = 1_000


@dataclass(frozen=True)
class Familiarity:
    """What the distance score needs of a network's train pictures, all float32.

    `mean` (D,) of the features; `projection` (D, d) to whitened directions; `class_means` (k, d) in these. The squared
    euclidean distance of `(feature - mean) @ projection` to a class mean is the squared Mahalanobis distance.
    """

    mean: Float32
    projection: Float32
    class_means: Float32

    def tensors(self) -> dict[str, Float32]:
        """The three arrays under the names that they have in a weights object."""
        return {
            f"{_PREFIX}mean": self.mean,
            f"{_PREFIX}projection": self.projection,
            f"{_PREFIX}class_means": self.class_means,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[np.generic]]) -> Familiarity:
        """Read it back from among a weights object's tensors; SpecError where one is missing or of another shape."""
        names = [f"{_PREFIX}{name}" for name in ("mean", "projection", "class_means")]
        missing = [name for name in names if name not in tensors]
        if missing:
            raise SpecError(f"these weights have no rejection: missing {', '.join(missing)}; train the network again")
        mean, projection, class_means = (np.asarray(tensors[name], dtype=np.float32) for name in names)
        if (
            (mean.ndim, projection.ndim, class_means.ndim) != (1, 2, 2)
            or projection.shape[0] != mean.shape[0]
            or projection.shape[1] != class_means.shape[1]
        ):
            raise SpecError(
                "rejection: expected mean (D,), projection (D, d), class_means (k, d), "
                f"got {mean.shape}, {projection.shape}, {class_means.shape}"
            )
        return cls(mean, projection, class_means)


def fit_familiarity(
    features: npt.ArrayLike,
    classes: npt.ArrayLike,
    count: int,
    *,
    components: int = COMPONENTS,
    shrinkage: float | None = None,
) -> Familiarity:
    """Class means and the inverse root of the tied within-class covariance, in the main directions of the features.

    Lee, Lee, Lee & Shin 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial
    Attacks", eq. 1, within the first `components` principal components of all features (fewer where their rank is
    lower). The covariance is shrunk towards a multiple of the identity, by the share of Ledoit & Wolf 2004 where
    `shrinkage` is None, but by `MIN_SHRINKAGE` at least.

    Args:
        features: (N, D) pooled penultimate features of train pictures.
        classes: (N,) int, 0 <= class < count.
        count: number of classes.
        components: dimensions that are kept.
        shrinkage: share in [0, 1] to use instead.

    Raises:
        SpecError: a class has no row, an unknown class, unequal lengths, non-finite features, or no spread within
            the classes (every class has one picture, or equal ones).
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    X, labels = _validated(features, classes, count)
    mean = X.mean(axis=0)
    X -= mean
    directions = _principal_directions(X, components)  # (D, d)
    projected = X @ directions  # (N, d)
    class_means = np.stack([projected[labels == label].mean(axis=0) for label in range(count)])  # (k, d)
    within = projected - class_means[labels]
    covariance = within.T @ within / len(within)  # (d, d)
    spread = np.trace(covariance) / len(covariance)
    if not spread > np.finfo(np.float32).eps * np.mean(projected**2):
        raise SpecError("the distance score needs classes with at least two different train pictures; got equal ones")
    share = shrinkage
    if share is None:
        share = max(MIN_SHRINKAGE, ledoit_wolf_shrinkage(within, assume_centered=True))
    variances, axes = np.linalg.eigh((1 - share) * covariance + share * spread * np.eye(len(covariance)))
    if variances[0] <= 0:
        raise SpecError(f"the within-class covariance is singular with shrinkage {share:g}; use more")
    whitening = axes / np.sqrt(variances)  # (d, d)
    return Familiarity(
        mean.astype(np.float32),
        (directions @ whitening).astype(np.float32),
        (class_means @ whitening).astype(np.float32),
    )


def familiarity_scores(
    logits: npt.ArrayLike, features: npt.ArrayLike, familiarity: Familiarity, temperature: float
) -> Float:
    """How familiar each picture is: float64 (N, 3), columns `SCORES`, higher is more familiar.

    max-probability: the largest softmax probability of the calibrated logits, in (0, 1] (Hendrycks & Gimpel 2017).
    energy: logsumexp of the uncalibrated logits, minus the free energy at T = 1 (Liu, Wang, Owens & Li 2020).
    distance: minus the squared Mahalanobis distance to the nearest class mean, at most 0 (Lee et al. 2018, eq. 2).
    A row's distance does not depend on the rows beside it, to the last bit.

    Args:
        logits: (N, k), uncalibrated.
        features: (N, D), the features that the network's last layer reads.
        familiarity: fitted on the same network's train pictures.
        temperature: calibration; logits are divided by it before the softmax.

    Raises:
        SpecError: shapes that do not fit each other or the fit, non-finite values, or a temperature that is not
            positive.
    """
    from scipy.special import logsumexp

    raw, X = np.asarray(logits, dtype=np.float64), np.asarray(features)
    expected = (len(familiarity.class_means), len(familiarity.mean))
    if raw.ndim != 2 or X.ndim != 2 or len(raw) != len(X) or (raw.shape[1], X.shape[1]) != expected:
        raise SpecError(
            f"expected logits (N, {expected[0]}) and features (N, {expected[1]}), got {raw.shape} and {X.shape}"
        )
    if not (np.isfinite(raw).all() and np.isfinite(X).all()):
        raise SpecError("logits and features must be finite")
    if not (np.isfinite(temperature) and temperature > 0):
        raise SpecError(f"the temperature must be positive, got {temperature}")
    scaled = raw / temperature
    max_probability = np.exp(scaled.max(axis=1, initial=-np.inf) - logsumexp(scaled, axis=1))
    return np.stack([max_probability, logsumexp(raw, axis=1), -_nearest_squared_distance(X, familiarity)], axis=1)


def _validated(features: npt.ArrayLike, classes: npt.ArrayLike, count: int) -> tuple[Float, npt.NDArray[np.int64]]:
    X, labels = np.array(features, dtype=np.float64), np.asarray(classes)
    if X.ndim != 2 or labels.shape != X.shape[:1] or not X.size:
        raise SpecError(f"expected features (N, D) and classes (N,), got {X.shape} and {labels.shape}")
    if (X[0] == X).all():
        raise SpecError("the distance score needs features that differ; all train pictures have the same")
    if not np.isfinite(X).all():
        raise SpecError(f"features must be finite; {int((~np.isfinite(X)).any(axis=1).sum())} of {len(X)} rows are not")
    unknown = sorted(set(labels.tolist()) - set(range(count)))
    if unknown:
        raise SpecError(f"classes must lie in 0 .. {count - 1}, got {unknown[:5]}")
    empty = sorted(set(range(count)) - set(labels.tolist()))
    if empty:
        raise SpecError(f"the distance score needs train pictures of every class; none of class {empty}")
    return X, labels.astype(np.int64)


def _principal_directions(centred: Float, components: int) -> Float:
    """Orthonormal directions (D, d) of the largest variances of centred features (N, D), d <= their rank."""
    variances, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    rank = int(np.sum(variances > variances[-1] * max(centred.shape) * np.finfo(np.float64).eps))
    kept: Float = directions[:, ::-1][:, : min(components, rank)]
    return kept


def _nearest_squared_distance(features: npt.NDArray[np.floating], familiarity: Familiarity) -> Float:
    """Squared distance to the nearest class mean in whitened directions: (N, D) -> (N,)."""
    directions = np.ascontiguousarray(familiarity.projection.T, dtype=np.float64)  # (d, D)
    nearest = np.empty(len(features))
    for start in range(0, len(features), _CHUNK_ROWS):
        centred = features[start : start + _CHUNK_ROWS].astype(np.float64) - familiarity.mean
        # A matrix product would add a row up differently in another batch.
        projected = np.stack([(centred * direction).sum(axis=1) for direction in directions], axis=1)  # (n, d)
        offsets = projected[:, None, :] - familiarity.class_means  # (n, k, d)
        nearest[start : start + _CHUNK_ROWS] = (offsets**2).sum(axis=2).min(axis=1)
    return nearest
