"""Survival curves of many sites from their counts of events and censorings by time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.kaplan_meier import KaplanMeier, product_limit
from stsmm_core.survival.time_grid import COARSE_STEP_DAYS, shareable_times


@dataclass(frozen=True, eq=False)
class TimeCounts:
    """How many patients had the event, and how many were censored, at each time; adds up over sites.

    Attributes:
        times: distinct times in days, increasing, shape (steps,).
        events, censored: patients at each, shape (steps,).
        largest_move_days: how far a time was moved at most to make it shareable (`largest_move`); the curves are those
            of the moved times, exact where it is 0.
    """

    times: NDArray[np.float64]
    events: NDArray[np.float64]
    censored: NDArray[np.float64]
    largest_move_days: float

    def __add__(self, other: "TimeCounts") -> "TimeCounts":
        """The same of both groups together, on the union of their times."""
        times, place = np.unique(np.concatenate([self.times, other.times]), return_inverse=True)

        def added(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.bincount(place, np.concatenate([mine, theirs]), minlength=len(times)).astype(float)

        return TimeCounts(
            times,
            added(self.events, other.events),
            added(self.censored, other.censored),
            max(self.largest_move_days, other.largest_move_days),
        )

    @property
    def patients(self) -> int:
        """Everybody who was counted."""
        return int(self.events.sum() + self.censored.sum())

    @property
    def at_risk(self) -> NDArray[np.float64]:
        """Patients observed at least so long, shape (steps,)."""
        return np.cumsum((self.events + self.censored)[::-1])[::-1]

    def survival(self) -> KaplanMeier:
        """The Kaplan-Meier curve of the event (`kaplan_meier.kaplan_meier` of the rows)."""
        return product_limit(self.times, self.events, self.at_risk)

    def censoring(self) -> KaplanMeier:
        """The curve of the censoring times, events first in a tie (`kaplan_meier.censoring_curve` of the rows)."""
        return product_limit(self.times, self.censored, self.at_risk - self.events)


def count_times(*, time: NDArray[np.float64], event: NDArray[np.float64], minimum: int) -> TimeCounts:
    """Counts that a site may share: at least `minimum` patients leave at each time.

    How many of those had the event is given as it is, be it one.

    Args:
        time, event: days and 1 or 0 of the patients whose outcome is known, shape (patients,).

    Raises:
        ValueError: as `shareable_times`.
    """
    moved = shareable_times(time, minimum=minimum)
    times, place = np.unique(moved, return_inverse=True)
    happened = event > 0
    events = np.bincount(place[happened], minlength=len(times)).astype(float)
    censored = np.bincount(place[~happened], minlength=len(times)).astype(float)
    return TimeCounts(times, events, censored, largest_move(time, moved))


def largest_move(time: NDArray[np.float64], moved: NDArray[np.float64]) -> float:
    """Most days that a time was moved, rounded up to a whole step: the exact number would tell one patient's day."""
    return float(np.ceil(np.abs(moved - time).max(initial=0.0) / COARSE_STEP_DAYS) * COARSE_STEP_DAYS)
