"""Linear discriminant analysis with a shrunken covariance: a linear head for many correlated features, in closed form.

Fisher 1936; the covariance is shrunken towards a multiple of the identity (Friedman 1989; Ledoit & Wolf 2004).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def shrunken_discriminants(
    X: npt.NDArray[np.floating], y: npt.NDArray[np.int64], weights: Float
) -> Callable[[float], tuple[Float, float]]:
    """The linear discriminant of a training set, by the strength of shrinkage.

    The pooled covariance within the classes S becomes (1 - a) S + a trace(S) / D identity. Weights count rows, so that
    classes are as likely as their weights say. With equal weights it is scikit-learn's
    `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=a)`. Each strength solves one system of min(N, D) equations.

    Args:
        X: features (N, D).
        y: 0 or 1 (N,), both present.
        weights: positive (N,).

    Returns:
        What gives coefficients (D,) and intercept for a strength a, 0 < a <= 1.
    """
    X = X.astype(np.float64)
    prior = np.array([weights[y == label].sum() for label in (0, 1)]) / weights.sum()
    means = np.stack([np.average(X[y == label], axis=0, weights=weights[y == label]) for label in (0, 1)])
    difference = means[1] - means[0]
    centred = (X - means[y]) * np.sqrt(weights / weights.sum())[:, None]  # (N, D), S = centred.T @ centred
    solve = _shrunken(centred)

    def discriminant(strength: float) -> tuple[Float, float]:
        coef = solve(strength, difference)
        return coef, float(np.log(prior[1] / prior[0]) - coef @ means.mean(axis=0))

    return discriminant


def discriminants_of_labels(X: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], strength: float) -> Float:
    """The directions of the linear discriminants of one training set under many labels, from one factorisation.

    Every row counts once. In place of S stands the covariance of all rows, whatever their class: T = S + p q d d^T, of
    the classes' shares p and q and the difference d of their means. The solution of (r I + (1 - a) T) w = d has the
    direction that S would give it: the term of rank one scales it by a positive number (Sherman & Morrison 1950). The
    ridge is r = a trace(T) / D for all labels, so that `shrunken_discriminants` has these directions at the somewhat
    larger strength b with b / (1 - b) trace(S) = a / (1 - a) trace(T).

    Args:
        X: features (N, D).
        labels: 0 or 1 (R, N), both present in each row.
        strength: a, 0 < a <= 1.

    Returns:
        Coefficients (R, D), each up to a positive factor.
    """
    centred = X.astype(np.float64)
    centred = (centred - centred.mean(axis=0)) / np.sqrt(len(centred))  # (N, D), T = centred.T @ centred
    counts = labels.sum(axis=1, keepdims=True)
    differences = (labels / counts - (1 - labels) / (labels.shape[1] - counts)) @ centred  # (R, D)
    return _shrunken(centred)(strength, differences.T).T


def _shrunken(centred: Float) -> Callable[[float, Float], Float]:
    """What solves (r I + (1 - a) C) w = d for a strength a and one or many d (D,) or (D, R); r = a trace(C) / D.

    `centred` (N, D) gives the covariance C = centred.T @ centred.
    """
    from scipy.linalg import solve

    variance = float(np.sum(centred**2)) / centred.shape[1] or 1.0  # without any variance: the nearest mean
    is_wide = centred.shape[1] > len(centred)
    products = centred @ centred.T if is_wide else centred.T @ centred

    def solution(strength: float, differences: Float) -> Float:
        ridge = strength * variance
        shrunken = (1 - strength) * products
        shrunken[np.diag_indices_from(shrunken)] += ridge
        if is_wide:  # Woodbury's identity
            within = centred.T @ solve(shrunken, centred @ differences, assume_a="pos")
            kept: Float = (differences - (1 - strength) * within) / ridge
            return kept
        found: Float = solve(shrunken, differences, assume_a="pos")
        return found

    return solution
