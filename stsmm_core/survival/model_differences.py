"""Differences of two models on the same patients."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from stsmm_core.survival.estimates import LEVEL, Estimate, estimate, no_estimate, samples_of, too_few_events
from stsmm_core.survival.predictions import Predictions

Metric = Callable[[Predictions, NDArray[np.float64]], NDArray[np.float64]]
"""From predictions and samples, shape (samples, rows), to a figure each, (samples,), as `discrimination.harrell_c`."""


@dataclass(frozen=True)
class PairedDifference:
    """Figure of one model minus that of another, and the two-sided bootstrap p (None where there is no interval)."""

    difference: Estimate
    p: float | None


@dataclass(frozen=True)
class ResampledT:
    """Mean difference over folds with its 95 % interval and two-sided p."""

    mean: float
    low: float
    high: float
    p: float


def paired_difference(
    first: Predictions, second: Predictions, *, metric: Metric, multiplicities: NDArray[np.float64]
) -> PairedDifference:
    """Difference `first` - `second` of a figure, both in the same bootstrap samples of patients.

    p is twice the smaller share of samples in which the difference is at most, or at least, 0; one sample is added to
    each count, so that p is never 0 (Davison and Hinkley 1997, 4.2.3).

    Raises:
        ValueError: when the two are not predictions of the same rows in the same order.
    """
    _same_rows(first, second)
    samples = samples_of(first, multiplicities)
    values = metric(first, samples) - metric(second, samples)
    n = len(np.unique(first.patient))
    events = len(np.unique(first.patient[first.event > 0]))
    reason = too_few_events(events) or (None if np.isfinite(values[0]) else "no comparable pairs")
    if reason is not None:
        return PairedDifference(no_estimate(reason, n=n, events=events), None)
    difference = estimate(values, n=n, events=events)
    if difference.low is None:
        return PairedDifference(difference, None)
    replicates = values[1:][np.isfinite(values[1:])]
    smaller = min((replicates <= 0).sum(), (replicates >= 0).sum())
    return PairedDifference(difference, float(min(1.0, 2 * (smaller + 1) / (len(replicates) + 1))))


def differences_by_fold(
    first: Predictions, second: Predictions, *, fold: NDArray[np.intp], metric: Metric
) -> NDArray[np.float64]:
    """Difference `first` - `second` in each test fold, shape (folds,); not a number in a fold that does not give it.

    Args:
        fold: number of the test fold (of all repeats) of each row, shape (rows,).

    Raises:
        ValueError: when the two are not predictions of the same rows in the same order.
    """
    _same_rows(first, second)
    samples = np.stack([(fold == each).astype(float) for each in np.unique(fold)])
    return metric(first, samples) - metric(second, samples)


def resampled_t_test(differences: NDArray[np.float64], *, n_train: float, n_test: float) -> ResampledT | None:
    """Corrected resampled t test (Nadeau and Bengio 2003, section 3): folds share training patients.

    The variance of the mean over J folds is (1/J + n_test/n_train) times that of a difference.

    Args:
        differences: one a fold of (repeated) cross-validation; those that are not a number are left out.
        n_train, n_test: patients a fold, on average.

    Returns:
        None where fewer than two folds have a difference.
    """
    known = differences[np.isfinite(differences)]
    if len(known) < 2:
        return None
    mean = float(known.mean())
    error = float(np.sqrt((1 / len(known) + n_test / n_train) * known.var(ddof=1)))
    width = float(student.ppf((1 + LEVEL) / 2, len(known) - 1)) * error
    with np.errstate(divide="ignore"):
        statistic = np.divide(abs(mean), error) if mean else 0.0
    return ResampledT(mean, mean - width, mean + width, float(2 * student.sf(statistic, len(known) - 1)))


def _same_rows(first: Predictions, second: Predictions) -> None:
    for name in ("patient", "stratum", "time", "event"):
        if not np.array_equal(getattr(first, name), getattr(second, name)):
            raise ValueError(f"the two models were not tested on the same rows: {name} differs")
