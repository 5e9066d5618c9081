"""Whether events are coded the wrong way round: they then come late in follow-up, and to most patients."""

import numpy as np
from numpy.typing import NDArray

CRITICAL = 1.645
"""Of a standard normal, one-sided 5 %."""
FEWEST = 5
"""Events, and censored patients, below which nothing is said."""


def event_order(time: NDArray[np.float64], event: NDArray[np.float64]) -> float:
    """How early events come among all times, in standard errors; above 0 early, below 0 late.

    The mean logarithm of the number at risk at the events (the loss of a Cox model without covariates) against its
    mean and variance when the events are dealt to the patients at random.

    Args:
        time, event: shape (patients,), none missing, with at least one event and one censored patient.
    """
    at_risk = len(time) - np.searchsorted(np.sort(time), time, side="left")
    score = np.log(at_risk)
    events, patients = float(event.sum()), len(time)
    variance = score.var() / events * (patients - events) / (patients - 1)
    if variance == 0:
        return 0.0
    return float((score[event == 1].mean() - score.mean()) / np.sqrt(variance))


def looks_inverted(time: NDArray[np.float64], event: NDArray[np.float64]) -> bool:
    """Whether more than half of the patients have an event, and events come later than chance.

    A sign that 0 and 1 are exchanged, no proof: a cohort that was followed to the end, and lost a few patients early,
    looks the same. Patients without a time are not counted.
    """
    known = np.isfinite(time) & np.isfinite(event)
    time, event = time[known], event[known]
    events = event.sum()
    if min(events, len(event) - events) < FEWEST or events <= len(event) / 2:
        return False
    return event_order(time, event) < -CRITICAL
