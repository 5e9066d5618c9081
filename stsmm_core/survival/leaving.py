"""Test patients of many sites by the time they leave the risk set, in the data and in bootstrap samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.time_grid import group_ends, shareable_times


@dataclass(frozen=True, eq=False)
class Leaving:
    """Events and censorings of one site by time.

    Attributes:
        times: days, increasing, shape (steps,).
        events, censored: how many at each, shape (samples, steps).
        moved: whether times were moved to make them shareable; a time then stands for those of its group
            (`time_grid.group_ends`), and the last one for all later times too.
    """

    times: NDArray[np.float64]
    events: NDArray[np.float64]
    censored: NDArray[np.float64]
    moved: bool


def count_leaving(
    *, time: NDArray[np.float64], event: NDArray[np.float64], samples: NDArray[np.float64], minimum: int
) -> Leaving:
    """What a site may tell: at least `minimum` rows leave at each time; nothing where it has fewer.

    Args:
        time, event: shape (rows,).
        samples: how often each row is in each sample, shape (samples, rows).
        minimum: of rows; more than the minimum of patients where a patient has several.
    """
    if len(time) < minimum:
        time, event, samples = time[:0], event[:0], samples[:, :0]
    times, place = np.unique(shareable_times(time, minimum=minimum), return_inverse=True)
    belongs = (place[:, None] == np.arange(len(times))).astype(float)
    return Leaving(times, (samples * (event > 0)) @ belongs, (samples * (event <= 0)) @ belongs, minimum > 1)


def survival_at(sites: Sequence[Leaving], at: float) -> NDArray[np.float64]:
    """Kaplan-Meier estimate of all sites together at one time, shape (samples,).

    Not a number where nobody in a sample was observed that long and its curve has not fallen to 0, as in
    `kaplan_meier.resampled_survival`.
    """
    times = np.concatenate([site.times for site in sites])
    events = np.concatenate([site.events for site in sites], axis=1)
    censored = np.concatenate([site.censored for site in sites], axis=1)
    return _product(times, times, events, censored, at)


def survival_bounds(sites: Sequence[Leaving], at: float) -> tuple[float, float]:
    """The least and the largest value that the estimate could have, had no time been moved.

    It is least where events come as late and censorings as early as they may, and largest the other way round: an
    event before a censoring takes its own share alone, one after it a part of the censored patient's too.
    """
    spans = [_span(site) for site in sites]
    earliest, latest = (np.concatenate(ends) for ends in zip(*spans, strict=True))
    events = np.concatenate([site.events[:1] for site in sites], axis=1)
    censored = np.concatenate([site.censored[:1] for site in sites], axis=1)
    # An event that may fall on either side of the time counts against survival at its very end, or not at all.
    late_event = np.where((earliest <= at) & (latest > at), at, latest)
    early_event = np.where(latest > at, latest, earliest)
    low = _product(late_event, earliest, events, censored, at)[0]
    high = _product(early_event, latest, events, censored, at)[0]
    return (0.0 if np.isnan(low) else float(low)), (1.0 if np.isnan(high) else float(high))


def _span(site: Leaving) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The earliest and the latest that a patient counted at each time may have left."""
    if not site.moved or len(site.times) == 0:
        return site.times, site.times
    ends = group_ends(site.times)[:-1]
    return np.nextafter(np.append(-np.inf, ends), np.inf), np.append(ends, np.inf)


def _product(
    event_times: NDArray[np.float64],
    censoring_times: NDArray[np.float64],
    events: NDArray[np.float64],
    censored: NDArray[np.float64],
    at: float,
) -> NDArray[np.float64]:
    times, place = np.unique(np.concatenate([event_times, censoring_times]), return_inverse=True)
    steps = len(event_times)
    belongs = (place[:, None] == np.arange(len(times))).astype(float)
    happened, lost = events @ belongs[:steps], censored @ belongs[steps:]
    at_risk = np.cumsum((happened + lost)[:, ::-1], axis=1)[:, ::-1]
    share = np.divide(happened, at_risk, out=np.zeros_like(happened), where=happened > 0)
    survival = np.prod(1 - share[:, times <= at], axis=1)
    followed = (happened + lost)[:, times >= at].sum(axis=1) > 0
    return np.where(followed | (survival == 0), survival, np.nan)
