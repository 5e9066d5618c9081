"""What sites tell of a model's development patients: baseline hazard, null and censoring curve from sums."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.baseline import BaselineHazard
from stsmm_core.survival.kaplan_meier import KaplanMeier
from stsmm_core.survival.time_counts import TimeCounts, count_times
from stsmm_core.survival.time_grid import shareable_times

PRIOR_EVENTS = 10.0
"""A site of so many expected events is moved half the way to its own hazard."""


@dataclass(frozen=True, eq=False)
class DevelopmentSums:
    """Development patients of one endpoint; adds up over sites.

    Attributes:
        counts: events and censored patients by time.
        log_hazards: logarithm of the sum of exp(risk) over the patients who leave at each of those times, shape
            (steps,); risks of a network can be too large for their exponentials.
    """

    counts: TimeCounts
    log_hazards: NDArray[np.float64]

    def __add__(self, other: "DevelopmentSums") -> "DevelopmentSums":
        counts = self.counts + other.counts
        log_hazards = np.full(len(counts.times), -np.inf)
        for part in (self, other):
            np.logaddexp.at(log_hazards, np.searchsorted(counts.times, part.counts.times), part.log_hazards)
        return DevelopmentSums(counts, log_hazards)

    def baseline(self) -> BaselineHazard:
        """Breslow's cumulative baseline hazard, that of `baseline.breslow` on the rows of all sites."""
        happened = self.counts.events > 0
        log_at_risk = np.logaddexp.accumulate(self.log_hazards[::-1])[::-1][happened]
        log_steps = np.log(self.counts.events[happened]) - log_at_risk
        return BaselineHazard(self.counts.times[happened], np.logaddexp.accumulate(log_steps))

    def null(self) -> KaplanMeier:
        """Kaplan-Meier curve of all development patients."""
        return self.counts.survival()

    def censoring(self) -> KaplanMeier:
        """Censoring curve G of all development patients."""
        return self.counts.censoring()

    @property
    def last_time(self) -> float:
        """Days up to which a development patient was watched; 0 without one."""
        return float(self.counts.times.max(initial=0.0))


def sum_development(
    risk: NDArray[np.float64], *, time: NDArray[np.float64], event: NDArray[np.float64], minimum: int
) -> DevelopmentSums:
    """What a site may tell: at least `minimum` patients leave at each time; nothing where it has fewer.

    Args:
        risk: log relative hazards on the reference of all sites, shape (patients,).
        time, event: of patients whose outcome is known.
    """
    if len(time) < minimum:
        risk, time, event = risk[:0], time[:0], event[:0]
    counts = count_times(time=time, event=event, minimum=minimum)
    place = np.searchsorted(counts.times, shareable_times(time, minimum=minimum))
    log_hazards = np.full(len(counts.times), -np.inf)
    np.logaddexp.at(log_hazards, place, risk)
    return DevelopmentSums(counts, log_hazards)


def recalibration(
    risk: NDArray[np.float64], *, time: NDArray[np.float64], event: NDArray[np.float64], baseline: BaselineHazard
) -> float:
    """What a site multiplies the hazard of all sites by: (observed + k) / (expected + k), k = `PRIOR_EVENTS`.

    The posterior mean of a factor with a gamma prior of mean 1 (shape and rate k) when observed events are Poisson with
    mean factor times expected; expected is the sum of H0(time) exp(risk) over the site's development patients.
    """
    expected = float(np.exp(baseline.log_cumulative_at(time) + risk).sum())
    return (float((event > 0).sum()) + PRIOR_EVENTS) / (expected + PRIOR_EVENTS)
