"""From log relative hazards to survival: the baseline hazard."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BaselineHazard:
    """The hazard of a patient whose log relative hazard is 0.

    Attributes:
        times: days, increasing: those of events.
        log_cumulative: logarithm of the cumulative hazard from each of them on.
    """

    times: Floats
    log_cumulative: Floats

    def survival(self, risk: ArrayLike, times: ArrayLike) -> Floats:
        """exp(-H0(t) exp(risk)), shape (patients, times): 1 before the first event, constant beyond the last.

        Args:
            risk: log relative hazards, shape (patients,).
            times: days, any and in any order.
        """
        steps = np.append(-np.inf, self.log_cumulative)
        baseline = steps[np.searchsorted(self.times, np.asarray(times, dtype=float), side="right")]
        with np.errstate(over="ignore"):  # a hazard beyond all numbers leaves nobody
            return np.exp(-np.exp(baseline + np.asarray(risk, dtype=float)[:, None]))


def breslow(risk: Floats, *, time: Floats, event: Floats) -> BaselineHazard:
    """Breslow's estimator (Biometrics 1974, doi 10.2307/2529620): events at each time over the hazard of those at risk.

    Args:
        risk: log relative hazards, shape (patients,).
        time: days, shape (patients,).
        event: 1.0 event, 0.0 censored, shape (patients,).
    """
    times, deaths = np.unique(time[event > 0], return_counts=True)
    order = np.argsort(time, kind="stable")
    largest = risk.max(initial=-np.inf)  # taken out and put back as a logarithm, so that nothing overflows
    at_risk = np.cumsum(np.exp(risk[order] - largest)[::-1])[::-1]
    first = np.searchsorted(time[order], times, side="left")
    return BaselineHazard(times, np.log(np.cumsum(deaths / at_risk[first])) - largest)
