"""The test of a federated run: what all sites told, and the figures made of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from stsmm_core.cohort.dictionary import DAYS_PER_YEAR
from stsmm_core.config import Experiment
from stsmm_core.survival.common_scale import OutputSums, Scale
from stsmm_core.survival.development import DevelopmentSums
from stsmm_core.survival.estimates import Estimate
from stsmm_core.survival.evaluation import label
from stsmm_core.survival.federated_evaluation import Figure, figures_at, groups_at, pooled_c
from stsmm_core.survival.site_sums import Development, SiteTest


@dataclass(frozen=True, eq=False)
class FederatedTest:
    """What the sites told.

    Attributes:
        scale: common reference and unit of risk.
        development: sums over all sites, [fold][endpoint].
        sites: what each told of its test patients, by name.
    """

    scale: Scale
    development: Development
    sites: Mapping[str, SiteTest]


def run_test(
    ask_scale: Callable[[], Mapping[str, OutputSums]],
    ask_development: Callable[[Scale], Mapping[str, Sequence[Sequence[DevelopmentSums]]]],
    ask_test: Callable[[Scale, Development], Mapping[str, SiteTest]],
) -> FederatedTest:
    """Three questions to all sites, each with the sums of the answers to the one before.

    Args:
        ask_scale, ask_development, ask_test: the sites' answers by name, at least one.
    """
    scale = reduce(add, ask_scale().values()).scale()
    shares = list(ask_development(scale).values())
    development = [
        [reduce(add, (share[fold][column] for share in shares)) for column in range(len(first))]
        for fold, first in enumerate(shares[0])
    ]
    return FederatedTest(scale, development, ask_test(scale, development))


def horizons_in_days(experiment: Experiment) -> list[float]:
    """The experiment's horizons."""
    return [years * DAYS_PER_YEAR for years in experiment.evaluation.horizons_years]


def pooled_results(test: FederatedTest, experiment: Experiment) -> dict[str, dict[str, dict[str, Any]]]:
    """For metrics.json, [head][endpoint]: `pooled_c`, and of the first head `horizons`, keyed by years."""
    sites = list(test.sites.values())
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for head, name in enumerate(experiment.heads):
        results[name] = {
            endpoint: {"pooled_c": _figure(pooled_c(sites, test.scale, test.development, head=head, endpoint=column))}
            for column, endpoint in enumerate(experiment.data.endpoints)
        }
    for column, endpoint in enumerate(experiment.data.endpoints):
        results[experiment.heads[0]][endpoint]["horizons"] = {
            label(years): _at_horizon(test, column, place, years * DAYS_PER_YEAR)
            for place, years in enumerate(experiment.evaluation.horizons_years)
        }
    return results


def _at_horizon(test: FederatedTest, column: int, place: int, horizon: float) -> dict[str, Any]:
    sites = list(test.sites.values())
    figures = figures_at(sites, test.scale, test.development, endpoint=column, place=place, horizon=horizon)
    told = {name: _figure(figure) for name, figure in figures.items()}
    if figures["oe"].estimate.value is None:
        return told | {"groups": []}
    groups = [
        {"n": group.n, "predicted": group.predicted, "observed": _estimate(group.observed)}
        for group in groups_at(sites, endpoint=column, place=place)
    ]
    return told | {"groups": groups}


def _figure(figure: Figure) -> dict[str, Any]:
    bounds = None if figure.bounds is None else list(figure.bounds)
    return _estimate(figure.estimate) | {"bounds": bounds, "left_out": figure.left_out}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    told: dict[str, Any] = {
        "value": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "n": estimate.n,
        "events": estimate.events,
    }
    return told if estimate.reason is None else told | {"reason": estimate.reason}
