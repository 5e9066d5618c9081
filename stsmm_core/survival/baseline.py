"""Baseline hazard: from log relative hazards to survival curves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class BaselineHazard:
    """Cumulative hazard of a patient whose risk is 0: a step function, 0 before the first event.

    Attributes:
        times: distinct event times in days, increasing, shape (steps,); empty where there was no event.
        log_cumulative_hazard: shape (steps,). Logarithms, because risks of a network can be large.
    """

    times: NDArray[np.float64]
    log_cumulative_hazard: NDArray[np.float64]

    def survival(self, risk: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
        """S(t) = exp(-H0(t) exp(risk)), shape (rows, T); constant after the last event.

        Without a single event the hazard is 0 and everyone survives: the data say no more.
        """
        with np.errstate(over="ignore"):
            return np.exp(-np.exp(self.log_cumulative_at(times) + risk[:, None]))

    def log_cumulative_at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """log H0(t), -inf before the first event, constant after the last; shape (T,)."""
        steps = np.concatenate([[-np.inf], self.log_cumulative_hazard])
        return steps[np.searchsorted(self.times, times, side="right")]


def breslow(risk: NDArray[np.float64], *, time: NDArray[np.float64], event: NDArray[np.float64]) -> BaselineHazard:
    """Breslow's estimate of the cumulative baseline hazard (1974) of given risks.

    Args:
        risk: log relative hazards of the patients that the hazard is estimated on, shape (patients,).
        time, event: shape (patients,); days.

    Raises:
        ValueError: when a risk or a time is not a number.
    """
    for name, values in (("risk", risk), ("time", time)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds a value that is not a number")
    order = np.argsort(-time, kind="stable")
    log_at_risk = np.logaddexp.accumulate(risk[order])
    times, events = np.unique(time[event > 0], return_counts=True)
    # The risk set of a time ends with the last patient observed at least that long.
    last = np.searchsorted(-time[order], -times, side="right") - 1
    return BaselineHazard(times, np.logaddexp.accumulate(np.log(events) - log_at_risk[last]))
