"""Kaplan-Meier curves of the sites and of all their patients together, from counts that a site may share."""

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from stsmm_core.survival.time_counts import TimeCounts, count_times
from stsmm_core.training.centre import Centre

POOLED = "pooled"


def shared_counts(centre: Centre, *, minimum: int) -> dict[str, TimeCounts | None]:
    """Events and censorings of the whole cohort by time, an endpoint; None where they are of too few patients."""
    counts: dict[str, TimeCounts | None] = {}
    for column, endpoint in enumerate(centre.experiment.data.endpoints):
        time, event = centre.data.outcomes.time[:, column], centre.data.outcomes.event[:, column]
        known = np.isfinite(time)
        enough = not 0 < known.sum() < minimum
        counts[endpoint] = count_times(time=time[known], event=event[known], minimum=minimum) if enough else None
    return counts


def describe_curves(sites: Mapping[str, Mapping[str, TimeCounts | None]]) -> dict[str, Any]:
    """The `survival` part of metrics.json, by endpoint: a curve a site, the pooled one with its 95 % interval.

    Args:
        sites: `shared_counts` of each site.
    """
    endpoints = {endpoint: None for counts in sites.values() for endpoint in counts}
    return {endpoint: _describe({site: counts[endpoint] for site, counts in sites.items()}) for endpoint in endpoints}


def _describe(sites: Mapping[str, TimeCounts | None]) -> dict[str, Any]:
    known = {site: counts for site, counts in sites.items() if counts is not None and counts.patients > 0}
    if not known:
        return {"sites": {}, "pooled": None, "withheld": sorted(sites), "largest_move_days": 0.0}
    pooled = reduce(add, known.values())
    low, high = pooled.survival().interval(pooled.times)
    return {
        "sites": {site: _curve(counts) for site, counts in known.items()},
        POOLED: _curve(pooled) | {"low": _numbers(low), "high": _numbers(high)},
        "withheld": sorted(site for site, counts in sites.items() if counts is None),
        "largest_move_days": pooled.largest_move_days,
    }


def _curve(counts: TimeCounts) -> dict[str, Any]:
    return {
        "days": counts.times.tolist(),
        "survival": counts.survival().survival.tolist(),
        "at_risk": counts.at_risk.tolist(),
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
