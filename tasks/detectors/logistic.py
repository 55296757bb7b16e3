"""Logistic regression: the linear head that an SVM becomes with the logistic loss in place of the hinge loss."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

# L-BFGS needs some hundred even with thousands of features; what was found after so many is noted as not converged.
MAX_ITERATIONS = 10_000


def fit_logistic(
    X: npt.NDArray[np.floating],
    y: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    c: float,
    tolerance: float = 1e-6,
) -> tuple[npt.NDArray[np.float64], float, bool]:
    """Coefficients (D,), intercept, and whether scikit-learn's L-BFGS ended within `MAX_ITERATIONS`.

    Minimises |w|^2 / 2 + C sum_i weights_i log(1 + exp(-y_i (w x_i + b))) with y in {0, 1} read as -1 and 1.

    Args:
        X: features (N, D).
        y: 0 or 1 (N,), both present.
        weights: positive (N,).
        c: the factor C of the loss.
        tolerance: of the largest component of the mean loss's gradient.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    machine = LogisticRegression(C=c, tol=tolerance, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # returned instead
        machine.fit(X.astype(np.float64), y, sample_weight=weights)
    return machine.coef_[0], float(machine.intercept_[0]), int(machine.n_iter_[0]) < MAX_ITERATIONS
