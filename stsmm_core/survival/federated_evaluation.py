"""Figures of a model on the test patients of many sites, from what each site tells (`site_sums.SiteTest`).

With a minimum cell size of one each figure is that of `evaluation.evaluate` on the rows of all sites, given the same
bootstrap samples. Else the pairs of patients of different sites, and the time of the observed risk, are known up to
bounds that come with the figure. The rest is exact either way, given the development curves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.cells import RISK_RANGE_SD
from stsmm_core.survival.common_scale import Scale
from stsmm_core.survival.cross_site_pairs import (
    PairSums,
    cross_site_cases,
    cross_site_pairs,
    exact_pairs,
    with_cross_site,
)
from stsmm_core.survival.development import DevelopmentSums
from stsmm_core.survival.estimates import Estimate, estimate, no_estimate, too_few_events
from stsmm_core.survival.evaluation import too_little
from stsmm_core.survival.leaving import survival_at, survival_bounds
from stsmm_core.survival.site_sums import GROUPS, Development, HorizonSums, SiteTest

FIGURES = ("auc", "brier", "brier_null", "ipa", "oe", "brier_site", "ipa_site", "oe_site")
"""Figures at a horizon; those of `site` use each site's own baseline hazard."""


@dataclass(frozen=True)
class Figure:
    """An estimate, and what is sure of it.

    Attributes:
        bounds: the figure of the pooled rows lies between them; None where the two are equal.
        left_out: at most so many patients are not in the figure, because their site has fewer than its minimum; the
            bounds of a C-index and an AUC allow for them, other figures are those of the rest.
    """

    estimate: Estimate
    bounds: tuple[float, float] | None
    left_out: int = 0


@dataclass(frozen=True)
class Group:
    """Test patients of like predicted risk: its mean, and the observed risk (weighted by 1 / G) with its interval."""

    n: int
    predicted: float
    observed: Estimate


def pooled_c(sites: Sequence[SiteTest], scale: Scale, development: Development, *, head: int, endpoint: int) -> Figure:
    """Harrell's C over all pairs within a fold, those of different sites among them."""
    ranks = [site.ranks[head][endpoint] for site in sites]
    within = reduce(add, (exact_pairs(rank.concordant, rank.comparable) for rank in ranks))
    across = reduce(
        add,
        (
            cross_site_pairs(
                [rank.cells[fold] for rank in ranks],
                risk_range=_risk_range(scale, fold, head, endpoint),
                time_range=(0.0, sums[endpoint].last_time),
            )
            for fold, sums in enumerate(development)
        ),
    )
    n, events = sum(rank.patients for rank in ranks), sum(rank.events for rank in ranks)
    return _pair_figure(with_cross_site(within, across), n=n, events=events, left_out=_left_out(sites, head, endpoint))


def figures_at(
    sites: Sequence[SiteTest],
    scale: Scale,
    development: Development,
    *,
    endpoint: int,
    place: int,
    horizon: float,
) -> dict[str, Figure]:
    """The first head's figures at a horizon, keyed by `FIGURES`; a reason instead of a value where there is none.

    Args:
        place: of the horizon among those that the sites were asked about.
        horizon: days.
    """
    told = [site.risks[endpoint].horizons[place] for site in sites]
    n, events = sum(site.ranks[0][endpoint].patients for site in sites), sum(each.events for each in told)
    left_out = _left_out(sites, 0, endpoint)
    reason = _why_not(told, [each[endpoint] for each in development], horizon, events)
    if reason is not None:
        return {name: Figure(no_estimate(reason, n=n, events=events), None) for name in FIGURES}

    def exact(values: NDArray[np.float64]) -> Figure:
        return Figure(_estimate(values, n, events), None, left_out)

    total = {
        name: np.sum([getattr(each, name) for each in told], axis=0)
        for name in ("size", "brier", "brier_null", "brier_site", "expected", "expected_site")
    }
    figures = {name: exact(_ratio(total[name], total["size"])) for name in ("brier", "brier_null", "brier_site")}
    figures["ipa"] = exact(1 - _ratio(total["brier"], total["brier_null"]))
    figures["ipa_site"] = exact(1 - _ratio(total["brier_site"], total["brier_null"]))
    observed, low, high = _observed(sites, endpoint=endpoint, place=place, horizon=horizon)
    for name in ("expected", "expected_site"):
        factor = _ratio(total["size"], total[name])
        bounds = None if low == high else (low * float(factor[0]), high * float(factor[0]))
        figures[name.replace("expected", "oe")] = Figure(_estimate(observed * factor, n, events), bounds, left_out)
    pairs = _case_pairs(told, scale, development, endpoint=endpoint, horizon=horizon)
    figures["auc"] = _pair_figure(pairs, n=n, events=events, left_out=left_out)
    return figures


def groups_at(sites: Sequence[SiteTest], *, endpoint: int, place: int) -> list[Group]:
    """Groups of rising predicted risk that hold a patient."""
    told = [site.risks[endpoint].horizons[place] for site in sites]
    size, expected, observed = (
        np.sum([getattr(each, name) for each in told], axis=0)
        for name in ("group_size", "group_expected", "group_observed")
    )
    return [
        Group(
            int(size[0, group]),
            float(expected[0, group] / size[0, group]),
            _estimate(_ratio(observed[:, group], size[:, group]), int(size[0, group]), 0),
        )
        for group in range(GROUPS)
        if size[0, group] > 0
    ]


def _observed(
    sites: Sequence[SiteTest], *, endpoint: int, place: int, horizon: float
) -> tuple[NDArray[np.float64], float, float]:
    """Observed risk in each sample, and the least and the largest that Kaplan-Meier of the rows could give.

    It is Kaplan-Meier where the times are the patients' own. Where they were moved, it is the weight of the cases
    (1 / G) a patient, which needs no times and is nearer.
    """
    leaving = [site.risks[endpoint].leaving for site in sites]
    if not any(each.moved for each in leaving):
        observed = 1 - survival_at(leaving, horizon)
        return observed, float(observed[0]), float(observed[0])
    told = [site.risks[endpoint].horizons[place] for site in sites]
    cases = np.sum([each.observed for each in told], axis=0)
    low, high = survival_bounds(leaving, horizon)
    return _ratio(cases, np.sum([each.size for each in told], axis=0)), 1 - high, 1 - low


def _left_out(sites: Sequence[SiteTest], head: int, endpoint: int) -> int:
    """At most so many patients are at sites that tell of none."""
    ranks = [site.ranks[head][endpoint] for site in sites]
    return sum(cells.unseen for rank in ranks if rank.patients == 0 for cells in rank.cells)


def _case_pairs(
    told: Sequence[HorizonSums], scale: Scale, development: Development, *, endpoint: int, horizon: float
) -> PairSums:
    within = reduce(add, (exact_pairs(each.concordant, each.comparable) for each in told))
    across = reduce(
        add,
        (
            cross_site_cases(
                [each.cells[fold] for each in told],
                risk_range=_risk_range(scale, fold, 0, endpoint),
                largest_weight=1 / float(sums[endpoint].censoring().at(horizon)),
            )
            for fold, sums in enumerate(development)
        ),
    )
    return with_cross_site(within, across)


def _pair_figure(pairs: PairSums, *, n: int, events: int, left_out: int) -> Figure:
    values = pairs.share()
    reason = too_few_events(events) or (None if np.isfinite(values[0]) else "no comparable pairs")
    if reason is not None:
        return Figure(no_estimate(reason, n=n, events=events), None, left_out)
    exact = pairs.unseen == 0 and pairs.low == pairs.high
    return Figure(estimate(values, n=n, events=events), None if exact else pairs.bounds(), left_out)


def _why_not(
    told: Sequence[HorizonSums], development: Sequence[DevelopmentSums], horizon: float, events: int
) -> str | None:
    return too_little(
        horizon,
        last_time=min(sums.last_time for sums in development),
        censoring=min(float(sums.censoring().at(horizon)) for sums in development),
        beyond=sum(each.beyond for each in told),
        events=events,
    )


def _risk_range(scale: Scale, fold: int, head: int, endpoint: int) -> tuple[float, float]:
    sd = RISK_RANGE_SD * float(scale.sd[fold, head, endpoint])
    return -sd, sd


def _ratio(values: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(values, whole, out=np.full(len(values), np.nan), where=whole > 0)


def _estimate(values: NDArray[np.float64], n: int, events: int) -> Estimate:
    if not np.isfinite(values[0]):
        return no_estimate("the sums do not give it", n=n, events=events)
    return estimate(values, n=n, events=events)
