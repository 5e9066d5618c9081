"""Kaplan-Meier curves: of the event, of censoring, and how long patients were followed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri


@dataclass(frozen=True, eq=False)
class KaplanMeier:
    """A Kaplan-Meier curve: 1 before the first time, constant after the last.

    Attributes:
        times: distinct observed times in days, increasing, shape (steps,).
        survival: the curve from each time on, shape (steps,).
        relative_variance: Greenwood's sum, the variance of log survival, shape (steps,); infinite where the curve is 0.
    """

    times: NDArray[np.float64]
    survival: NDArray[np.float64]
    relative_variance: NDArray[np.float64]

    def at(self, times: ArrayLike) -> NDArray[np.float64]:
        """S(t), continuous from the right, in the shape of `times`."""
        return np.concatenate([[1.0], self.survival])[np.searchsorted(self.times, times, side="right")]

    def before(self, times: ArrayLike) -> NDArray[np.float64]:
        """S(t-), the value just before each time, in the shape of `times`."""
        return np.concatenate([[1.0], self.survival])[np.searchsorted(self.times, times, side="left")]

    def standard_error(self, times: ArrayLike) -> NDArray[np.float64]:
        """Greenwood's standard error of S(t); not a number where the curve has reached 0."""
        variance = np.concatenate([[0.0], self.relative_variance])[np.searchsorted(self.times, times, side="right")]
        with np.errstate(invalid="ignore"):
            return self.at(times) * np.sqrt(variance)

    def interval(self, times: ArrayLike, *, level: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log-log interval (Kalbfleisch and Prentice 2002); not a number where the curve is still 1 or already 0."""
        return log_log_interval(self.at(times), self.standard_error(times), level=level)


@dataclass(frozen=True)
class MedianFollowUp:
    """Median potential follow-up in days with its 95 % interval; None where the curve does not fall to one half."""

    median: float | None
    low: float | None
    high: float | None


def log_log_interval(
    probability: NDArray[np.float64], error: NDArray[np.float64], *, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interval that is symmetric on the scale of log(-log p); not a number where p is 0 or 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = np.where((probability > 0) & (probability < 1), probability, np.nan)
        width = ndtri((1 + level) / 2) * error / (inside * np.abs(np.log(inside)))
        return inside ** np.exp(width), inside ** np.exp(-width)


def kaplan_meier(
    *, time: NDArray[np.float64], event: NDArray[np.float64], weight: NDArray[np.float64] | None = None
) -> KaplanMeier:
    """Product-limit estimate (Kaplan and Meier 1958).

    Args:
        time, event: days and 1 or 0, shape (rows,).
        weight: how many patients each row stands for, shape (rows,); one each where it is not given.

    Raises:
        ValueError: when a time is not a number.
    """
    weight = np.ones(len(time)) if weight is None else weight
    times, lost, happened = _steps(time, event, weight)
    at_risk = np.cumsum((lost + happened)[::-1])[::-1]
    return product_limit(times, happened, at_risk)


def censoring_curve(*, time: NDArray[np.float64], event: NDArray[np.float64]) -> KaplanMeier:
    """Kaplan-Meier curve G of the censoring times (reverse Kaplan-Meier).

    Where an event and a censoring fall on one day the event comes first: its patient is not at risk of censoring.
    """
    times, lost, happened = _steps(time, event, np.ones(len(time)))
    at_risk = np.cumsum((lost + happened)[::-1])[::-1] - happened
    return product_limit(times, lost, at_risk)


def median_follow_up(*, time: NDArray[np.float64], event: NDArray[np.float64]) -> MedianFollowUp:
    """Median follow-up by the reverse Kaplan-Meier method (Schemper and Smith 1996).

    The interval holds the times at which the log-log interval of the curve contains one half (Brookmeyer and Crowley
    1982).
    """
    curve = censoring_curve(time=time, event=event)
    low, high = curve.interval(curve.times)
    low = np.where(curve.survival == 0, 0.0, low)
    return MedianFollowUp(*(_first_time(curve.times, bound) for bound in (curve.survival, low, high)))


def resampled_survival(
    *, time: NDArray[np.float64], event: NDArray[np.float64], samples: NDArray[np.float64], at: float
) -> NDArray[np.float64]:
    """Kaplan-Meier estimate at one time in bootstrap samples.

    Args:
        time, event: shape (rows,).
        samples: how often each row was drawn, shape (samples, rows).
        at: days.

    Returns:
        S(at) of each sample, shape (samples,); not a number where nobody in a sample was observed that long and its
        curve has not fallen to 0, for it then says nothing of that time.
    """
    order = np.argsort(time, kind="stable")
    time, happened, samples = time[order], event[order] > 0, samples[:, order]
    first_of_tie = np.searchsorted(time, time, side="left")
    at_risk = np.cumsum(samples[:, ::-1], axis=1)[:, ::-1][:, first_of_tie]
    reached = happened & (time <= at)
    starts = np.unique(first_of_tie[reached])
    if len(starts) == 0:
        survival = np.ones(len(samples))
    else:
        deaths = np.add.reduceat(np.where(reached, samples, 0.0), starts, axis=1)
        with np.errstate(invalid="ignore"):
            survival = np.prod(1 - np.nan_to_num(deaths / at_risk[:, starts]), axis=1)
    followed = samples[:, time >= at].sum(axis=1) > 0
    return np.where(followed | (survival == 0), survival, np.nan)


def product_limit(
    times: NDArray[np.float64], happened: NDArray[np.float64], at_risk: NDArray[np.float64]
) -> KaplanMeier:
    """Product-limit estimate from counts.

    Args:
        times: distinct times in days, increasing, shape (steps,).
        happened: how many events fell on each, shape (steps,).
        at_risk: how many could have had one there, shape (steps,).
    """
    share = np.divide(happened, at_risk, out=np.zeros(len(times)), where=happened > 0)
    left = at_risk - happened
    # Fractional weights add up with rounding errors, and the last step must still reach 0.
    left[np.isclose(share, 1)] = 0.0
    with np.errstate(divide="ignore"):
        terms = np.divide(happened, at_risk * left, out=np.zeros(len(times)), where=happened > 0)
    return KaplanMeier(times, np.cumprod(1 - share), np.cumsum(terms))


def _steps(
    time: NDArray[np.float64], event: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Distinct times, and what was censored and what happened at each."""
    if not np.isfinite(time).all():
        raise ValueError("time holds a value that is not a number")
    times, step = np.unique(time, return_inverse=True)
    happened = event > 0
    lost = np.bincount(step, np.where(happened, 0.0, weight), minlength=len(times))
    events = np.bincount(step, np.where(happened, weight, 0.0), minlength=len(times))
    return times, lost.astype(float), events.astype(float)


def _first_time(times: NDArray[np.float64], curve: NDArray[np.float64]) -> float | None:
    reached = np.flatnonzero(curve <= 0.5)
    return float(times[reached[0]]) if len(reached) else None
