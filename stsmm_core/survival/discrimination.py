"""Discrimination: Harrell's C, Uno's C and the time-dependent AUC, each within strata.

`samples` is how often each row is in each sample (`estimates.samples_of`), the data themselves first. Every figure is
given for each sample, shape (samples,), and is not a number in a sample without a pair to compare.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.concordance import compare_pairs, outranks
from stsmm_core.survival.predictions import Predictions

LEAST_CENSORING_SURVIVAL = 0.1
"""Figures weighted by the inverse of G use no time at which at most this share of the development patients would
still be followed: beyond it one patient stands for more than ten."""

Pairs = Callable[[Predictions], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""From the predictions of one stratum to the weight of its concordant and of all its pairs, (rows, rows) each."""


def harrell_c(predictions: Predictions, samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harrell's C-index (1982): pairs are summed over strata, ties in risk count one half."""
    return _concordant_share(predictions, samples, _comparable_pairs)


def uno_c(predictions: Predictions, samples: NDArray[np.float64], *, tau: float) -> NDArray[np.float64]:
    """Uno's C-index (2011): pairs whose earlier event lies before `tau` days, weighted by 1 / G(time-)².

    G is the censoring survival of the development patients.
    """

    def pairs(stratum: Predictions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        concordant, comparable = _comparable_pairs(stratum)
        weight = _inverse(stratum.censoring_before, stratum.time < tau)[:, None] ** 2
        return weight * concordant, weight * comparable

    return _concordant_share(predictions, samples, pairs)


def uno_tau(predictions: Predictions) -> float:
    """The truncation time of Uno's C in days, chosen from the data without regard to any model.

    It is the first time of a test patient that lies beyond the last development time, or at which the censoring
    survival G(time-) of the development patients is at most `LEAST_CENSORING_SURVIVAL`; where there is no such time,
    the largest test time.
    """
    unsupported = (predictions.censoring_before <= LEAST_CENSORING_SURVIVAL) | (
        predictions.time > predictions.last_development_time
    )
    return float(min(predictions.time[unsupported], default=max(predictions.time, default=0.0)))


def auc(predictions: Predictions, samples: NDArray[np.float64], *, horizon: float) -> NDArray[np.float64]:
    """Cumulative/dynamic AUC at a horizon in days (Uno 2007; Hung and Chiang 2010).

    Cases had their event by the horizon, weight 1 / G(time-); controls were followed beyond it, weight 1 / G(horizon),
    which cancels in a single stratum.
    """

    def pairs(stratum: Predictions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        case, control = case_and_control_weights(stratum, horizon)
        weight = case[:, None] * control
        return weight * outranks(stratum.risk, stratum.risk), weight

    return _concordant_share(predictions, samples, pairs)


def case_and_control_weights(
    predictions: Predictions, horizon: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inverse probability of censoring weights at a horizon in days (Graf 1999), shape (rows,) each.

    A row is a case (event by the horizon), a control (followed beyond it) or, censored before it, neither.
    """
    by_then = predictions.time <= horizon
    case = _inverse(predictions.censoring_before, by_then & (predictions.event > 0))
    control = _inverse(predictions.censoring_at[:, column_of(predictions, horizon)], ~by_then)
    return case, control


def column_of(predictions: Predictions, horizon: float) -> int:
    """Position of a horizon in the grid of times.

    Raises:
        ValueError: when the grid does not contain it.
    """
    columns = np.flatnonzero(np.isclose(predictions.times, horizon))
    if len(columns) == 0:
        raise ValueError(f"the grid of times does not contain {horizon:g} days")
    return int(columns[0])


def _comparable_pairs(stratum: Predictions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return compare_pairs(stratum.risk, time=stratum.time, happened=stratum.event > 0)


def _concordant_share(predictions: Predictions, samples: NDArray[np.float64], pairs: Pairs) -> NDArray[np.float64]:
    """Weight of the concordant pairs over that of all pairs, both summed over strata."""
    concordant, comparable = np.zeros(len(samples)), np.zeros(len(samples))
    for stratum in np.unique(predictions.stratum):
        rows = predictions.stratum == stratum
        ordered, every = pairs(predictions[rows])
        concordant += _weigh(ordered, samples[:, rows])
        comparable += _weigh(every, samples[:, rows])
    return np.divide(concordant, comparable, out=np.full(len(samples), np.nan), where=comparable > 0)


def _weigh(pairs: NDArray[np.float64], samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the pairs in each sample: a pair counts as often as both its patients were drawn."""
    return ((samples @ pairs) * samples).sum(axis=1)


def _inverse(censoring: NDArray[np.float64], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 / G of the given rows, 0 elsewhere; a row with G = 0 cannot be weighted and counts as censored."""
    return np.divide(1.0, censoring, out=np.zeros(len(censoring)), where=rows & (censoring > 0))
