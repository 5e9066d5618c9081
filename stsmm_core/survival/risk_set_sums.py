"""Cox regression from sums over risk sets, which add up over sites: the pooled model without a pooled row.

At given coefficients b the partial likelihood needs of the patients only, at each event time, the sums of exp(x b), of
x exp(x b) and of x x' exp(x b) over the risk set and (Efron) over the tied events, the number of events, and the
sum of x over all events (Lu et al., J Biomed Inform 2015, doi 10.1016/j.jbi.2015.06.004: WebDISCO).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.baseline import BaselineHazard

Floats = NDArray[np.float64]
Ties = Literal["breslow", "efron"]


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over a set of patients a time, each patient weighted by its relative hazard exp(x b).

    Attributes:
        zeroth: sums of the weights, shape (times,).
        first: of weight times x, shape (times, covariates).
        second: of weight times x x', shape (times, covariates, covariates).
    """

    zeroth: Floats
    first: Floats
    second: Floats

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.zeroth + other.zeroth, self.first + other.first, self.second + other.second)


@dataclass(frozen=True, eq=False)
class PartialLikelihood:
    """Log partial likelihood at some coefficients with its derivatives; adds up over strata.

    Attributes:
        value: the logarithm.
        gradient: shape (covariates,).
        information: minus the second derivative, shape (covariates, covariates).
    """

    value: float
    gradient: Floats
    information: Floats

    def __add__(self, other: "PartialLikelihood") -> "PartialLikelihood":
        return PartialLikelihood(
            self.value + other.value, self.gradient + other.gradient, self.information + other.information
        )


@dataclass(frozen=True, eq=False)
class RiskSetSums:
    """What a group of patients adds to the partial likelihood at given coefficients; adds up over sites.

    Attributes:
        events: at each event time of all sites, shape (times,).
        event_total: sum of x over the patients with an event, whenever it was, shape (covariates,).
        at_risk: over those observed at least so long.
        tied: over those whose event falls on the time. With zeros here ties are treated after Breslow, with the
            sums after Efron.
    """

    events: Floats
    event_total: Floats
    at_risk: Moments
    tied: Moments

    def __add__(self, other: "RiskSetSums") -> "RiskSetSums":
        return RiskSetSums(
            self.events + other.events,
            self.event_total + other.event_total,
            self.at_risk + other.at_risk,
            self.tied + other.tied,
        )

    def likelihood(self, coefficients: Floats) -> PartialLikelihood:
        """The partial likelihood at the coefficients that the sums were made with (Efron 1977; Breslow 1974)."""
        at, share = self._terms()
        size = self.at_risk.zeroth[at] - share * self.tied.zeroth[at]
        means = (self.at_risk.first[at] - share[:, None] * self.tied.first[at]) / size[:, None]
        whole = np.bincount(at, 1 / size, minlength=len(self.events))
        part = np.bincount(at, share / size, minlength=len(self.events))
        second = np.tensordot(whole, self.at_risk.second, 1) - np.tensordot(part, self.tied.second, 1)
        return PartialLikelihood(
            float(self.event_total @ coefficients - np.log(size).sum()),
            self.event_total - means.sum(axis=0),
            second - means.T @ means,
        )

    def baseline(self, times: Floats) -> BaselineHazard:
        """Cumulative hazard of a patient with x = 0, with the ties of the likelihood; `times` are those of the sums."""
        at, share = self._terms()
        steps = np.bincount(
            at, 1 / (self.at_risk.zeroth[at] - share * self.tied.zeroth[at]), minlength=len(self.events)
        )
        happened = self.events > 0
        return BaselineHazard(times[happened], np.log(np.cumsum(steps[happened])))

    def _terms(self) -> tuple[NDArray[np.intp], Floats]:
        """One term an event: its place among the times, and the share of the tied events that have left before it."""
        events = np.rint(self.events).astype(np.intp)
        at = np.repeat(np.arange(len(events)), events)
        earlier = np.arange(len(at)) - np.repeat(np.cumsum(events) - events, events)
        return at, earlier / np.maximum(events, 1)[at]


def sum_risk_sets(
    covariates: Floats, *, time: Floats, event: Floats, coefficients: Floats, times: Floats, ties: Ties
) -> RiskSetSums:
    """Sums of one group of patients.

    Args:
        covariates: shape (patients, covariates). They must be centred on means that all sites share, so that
            exp(x b) neither overflows nor vanishes.
        time, event: days and 1 or 0, shape (patients,).
        coefficients: shape (covariates,).
        times: distinct event times of all sites, increasing, shape (times,).

    Raises:
        ValueError: when an event falls on none of the times, or a value is not a number.
    """
    if not (np.isfinite(covariates).all() and np.isfinite(time).all()):
        raise ValueError("a covariate or a time is not a number")
    happened = event > 0
    step = np.searchsorted(times, time, side="right") - 1  # the last time at which a patient is still at risk
    exactly = (step >= 0) & (times[np.maximum(step, 0)] == time) if len(times) else np.zeros(len(time), dtype=bool)
    if (happened & ~exactly).any():
        raise ValueError("an event falls on none of the event times")
    weight = np.exp(covariates @ coefficients)
    seen = step >= 0
    leaving = _moments(covariates[seen], weight[seen], step[seen], len(times))
    counted = happened if ties == "efron" else np.zeros(len(time), dtype=bool)
    return RiskSetSums(
        np.bincount(step[happened], minlength=len(times)).astype(float),
        covariates[happened].sum(axis=0),
        Moments(*(_from_the_end(sums) for sums in (leaving.zeroth, leaving.first, leaving.second))),
        _moments(covariates[counted], weight[counted], step[counted], len(times)),
    )


def _moments(covariates: Floats, weight: Floats, step: NDArray[np.intp], steps: int) -> Moments:
    count = covariates.shape[1]
    moments = Moments(np.zeros(steps), np.zeros((steps, count)), np.zeros((steps, count, count)))
    order = np.argsort(step, kind="stable")
    reached, starts = np.unique(step[order], return_index=True)
    for at, start, end in zip(reached, starts, [*starts[1:], len(order)], strict=False):
        rows = order[start:end]
        weighted = covariates[rows] * weight[rows, None]
        moments.zeroth[at] = weight[rows].sum()
        moments.first[at] = weighted.sum(axis=0)
        moments.second[at] = weighted.T @ covariates[rows]
    return moments


def _from_the_end(sums: Floats) -> Floats:
    return np.cumsum(sums[::-1], axis=0)[::-1]
