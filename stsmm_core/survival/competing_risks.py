"""Cumulative incidence where another event can come first."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stsmm_core.survival.kaplan_meier import log_log_interval


@dataclass(frozen=True, eq=False)
class CumulativeIncidence:
    """Probability of one cause of event by each time, 0 before the first time.

    Attributes:
        times: distinct observed times in days, increasing, shape (steps,).
        incidence, variance: from each time on, shape (steps,).
    """

    times: NDArray[np.float64]
    incidence: NDArray[np.float64]
    variance: NDArray[np.float64]

    def at(self, times: ArrayLike) -> NDArray[np.float64]:
        """Incidence at each time, in the shape of `times`."""
        return np.concatenate([[0.0], self.incidence])[np.searchsorted(self.times, times, side="right")]

    def interval(self, times: ArrayLike, *, level: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log-log interval; not a number where the incidence is 0 or 1."""
        variance = np.concatenate([[0.0], self.variance])[np.searchsorted(self.times, times, side="right")]
        return log_log_interval(self.at(times), np.sqrt(variance), level=level)


def aalen_johansen(*, time: NDArray[np.float64], cause: NDArray[np.int64], of: int) -> CumulativeIncidence:
    """Aalen-Johansen estimate of the cumulative incidence of one cause.

    Args:
        time: days, shape (patients,).
        cause: 0 censored, 1, 2, … the event that came first, shape (patients,).
        of: the cause whose incidence is wanted; all others compete.

    The variance is Aalen's (1978), as in Pintilie, Competing Risks (2006), equation 4.5.
    """
    if not np.isfinite(time).all():
        raise ValueError("time holds a value that is not a number")
    times, step = np.unique(time, return_inverse=True)
    wanted, events, everyone = (
        np.bincount(step[rows], minlength=len(times)).astype(float) for rows in (cause == of, cause > 0, cause >= 0)
    )
    at_risk = np.cumsum(everyone[::-1])[::-1]
    free_before = np.concatenate([[1.0], np.cumprod(1 - events / at_risk)[:-1]])
    incidence = np.cumsum(free_before * wanted / at_risk)
    return CumulativeIncidence(times, incidence, _variance(incidence, free_before, wanted, events, at_risk))


def _variance(
    incidence: NDArray[np.float64],
    free_before: NDArray[np.float64],
    wanted: NDArray[np.float64],
    events: NDArray[np.float64],
    at_risk: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Sum over earlier steps of the three terms; a step that leaves nobody at risk adds none."""

    def ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)

    of_survival = ratio(events, (at_risk - 1) * (at_risk - events))
    binomial = wanted * (at_risk - wanted)
    of_cause = np.cumsum(free_before**2 * ratio(binomial, at_risk**2 * (at_risk - 1)))
    shared = free_before * ratio(binomial, at_risk * (at_risk - events) * (at_risk - 1))
    # Σ (I(t) - I_j)² a_j, expanded, so that running sums suffice.
    squared = (
        incidence**2 * np.cumsum(of_survival)
        - 2 * incidence * np.cumsum(incidence * of_survival)
        + np.cumsum(incidence**2 * of_survival)
    )
    crossed = incidence * np.cumsum(shared) - np.cumsum(incidence * shared)
    return squared + of_cause - 2 * crossed
