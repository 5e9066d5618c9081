"""Brier score: squared error of an absolute risk, its null and its integral over time.

`samples` is how often each row is in each sample (`estimates.samples_of`); figures have shape (samples,).
"""

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.discrimination import case_and_control_weights, column_of
from stsmm_core.survival.predictions import Predictions


def brier(predictions: Predictions, samples: NDArray[np.float64], *, horizon: float) -> NDArray[np.float64]:
    """Brier score of the model at a horizon in days (Graf 1999), weighted by the inverse of the censoring survival."""
    return _score(predictions, samples, predictions.absolute_risk, horizon)


def null_brier(predictions: Predictions, samples: NDArray[np.float64], *, horizon: float) -> NDArray[np.float64]:
    """Brier score at a horizon in days of the development patients' Kaplan-Meier curve, the same for everyone."""
    return _score(predictions, samples, predictions.null_risk, horizon)


def index_of_prediction_accuracy(
    predictions: Predictions, samples: NDArray[np.float64], *, horizon: float
) -> NDArray[np.float64]:
    """1 - Brier / null Brier (Kattan and Gerds 2018): 0 knows no more than the null model, below 0 less."""
    null = null_brier(predictions, samples, horizon=horizon)
    score = brier(predictions, samples, horizon=horizon)
    return 1 - np.divide(score, null, out=np.full(len(samples), np.nan), where=null > 0)


def integrated_brier(predictions: Predictions, samples: NDArray[np.float64], *, until: float) -> NDArray[np.float64]:
    """Mean of the model's Brier score over the grid's times up to `until` days, by the trapezoidal rule.

    Not a number where the grid has fewer than two times up to then.
    """
    return _integral(predictions, samples, predictions.absolute_risk, until)


def integrated_null_brier(
    predictions: Predictions, samples: NDArray[np.float64], *, until: float
) -> NDArray[np.float64]:
    """The same of the null model."""
    return _integral(predictions, samples, predictions.null_risk, until)


def _integral(
    predictions: Predictions, samples: NDArray[np.float64], risk: NDArray[np.float64], until: float
) -> NDArray[np.float64]:
    times = predictions.times[: column_of(predictions, until) + 1]
    if len(times) < 2:
        return np.full(len(samples), np.nan)
    errors = np.stack([squared_errors(predictions, risk, time) for time in times])
    return _mean(np.trapezoid(errors, times, axis=0) / (times[-1] - times[0]), samples)


def _score(
    predictions: Predictions, samples: NDArray[np.float64], risk: NDArray[np.float64], horizon: float
) -> NDArray[np.float64]:
    return _mean(squared_errors(predictions, risk, horizon), samples)


def squared_errors(predictions: Predictions, risk: NDArray[np.float64], horizon: float) -> NDArray[np.float64]:
    """Weighted squared error of each row at a horizon in days, of given absolute risks, shape (rows, T)."""
    case, control = case_and_control_weights(predictions, horizon)
    predicted = risk[:, column_of(predictions, horizon)]
    return case * (1 - predicted) ** 2 + control * predicted**2


def _mean(errors: NDArray[np.float64], samples: NDArray[np.float64]) -> NDArray[np.float64]:
    size = samples.sum(axis=1)
    return np.divide(samples @ errors, size, out=np.full(len(samples), np.nan), where=size > 0)
