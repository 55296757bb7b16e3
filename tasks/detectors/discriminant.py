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
    from scipy.linalg import solve

    X = X.astype(np.float64)
    prior = np.array([weights[y == label].sum() for label in (0, 1)]) / weights.sum()
    means = np.stack([np.average(X[y == label], axis=0, weights=weights[y == label]) for label in (0, 1)])
    difference = means[1] - means[0]
    centred = (X - means[y]) * np.sqrt(weights / weights.sum())[:, None]  # (N, D), S = centred.T @ centred
    variance = float(np.sum(centred**2)) / X.shape[1] or 1.0  # without any variance: the nearest mean
    is_wide = X.shape[1] > len(X)
    products = centred @ centred.T if is_wide else centred.T @ centred

    def discriminant(strength: float) -> tuple[Float, float]:
        ridge = strength * variance
        shrunken = (1 - strength) * products
        shrunken[np.diag_indices_from(shrunken)] += ridge
        if is_wide:  # Woodbury's identity
            within = centred.T @ solve(shrunken, centred @ difference, assume_a="pos")
            coef = (difference - (1 - strength) * within) / ridge
        else:
            coef = solve(shrunken, difference, assume_a="pos")
        return coef, float(np.log(prior[1] / prior[0]) - coef @ means.mean(axis=0))

    return discriminant
