"""Is it worth joining? Paired differences of C-indices, from pair counts by site.

All models of a comparison rank the same test patients in the same bootstrap samples, so a difference has an interval of
its own. The samples are of test patients with the models held fixed: training again is not in the interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stsmm_core.errors import RunError
from stsmm_core.survival.concordance import PairCounts, total
from stsmm_core.survival.estimates import Estimate, estimate, no_estimate

SiteCounts = Mapping[str, PairCounts]
"""Of one model and endpoint, by the site of the test patients."""

NO_PAIRS = "no comparable pairs"
NOT_A_MODEL_THERE = "normalisation layers stay at the sites: the others have no model for this one"
ALIKE = "both models rank these patients alike"


@dataclass(frozen=True, eq=False)
class Models:
    """The tests of one endpoint and one choice of weights.

    Attributes:
        alone: by the site that trained alone, its model at every site; or why it has none.
        without: by the site left out, the federation of the others at every site (not at the one left out where its
            model cannot be used there); or why there is none.
    """

    federated: SiteCounts
    centralised: SiteCounts
    alone: Mapping[str, SiteCounts | str]
    without: Mapping[str, SiteCounts | str]


@dataclass(frozen=True)
class Figure:
    """One number of the comparison, with its 95 % interval or the reason why it or its interval is missing.

    Attributes:
        name: a C-index (`federated`, …), a difference of two (`federated_minus_alone`, …), or `share_of_gain`.
        site: None for all sites together.
        n, events, pairs: test patients, their events and comparable pairs behind it.
    """

    name: str
    site: str | None
    value: float | None
    low: float | None
    high: float | None
    n: int
    events: int
    pairs: int
    reason: str | None = None


def compare_models(models: Models) -> list[Figure]:
    """All figures of one endpoint: the models over all sites, their gaps, and what joining changes at each site."""
    trained = {site: counts for site, counts in models.alone.items() if not isinstance(counts, str)}
    federated = total(models.federated.values())
    centralised = total(models.centralised.values())
    figures = [
        c_index("centralised", None, centralised),
        c_index("federated", None, federated),
        difference("federated_minus_centralised", None, federated, centralised),
        share_of_gain(federated, centralised),
    ]
    if trained:
        own = total([counts[site] for site, counts in trained.items()])
        joined = total([models.federated[site] for site in trained])
        figures += [
            c_index("alone", None, own),
            difference("federated_minus_alone", None, joined, own),
            *_everywhere(federated, [total(counts.values()) for counts in trained.values()]),
        ]
    for site in models.federated:
        figures += _at_site(models, site)
    for site, left in models.without.items():
        figures += _left_out(models.federated, site, left)
    return figures


def c_index(name: str, site: str | None, counts: PairCounts) -> Figure:
    """Harrell's C with its interval."""
    return _figure(name, site, _ratios(counts), counts)


def difference(name: str, site: str | None, first: PairCounts, second: PairCounts) -> Figure:
    """C of the first model minus C of the second, in the same samples.

    Raises:
        RunError: when the two were not tested on the same patients in the same samples.
    """
    _check_paired(first, second)
    found = _figure(name, site, _ratios(first) - _ratios(second), first)
    alike = np.array_equal(first.concordant_replicates, second.concordant_replicates)
    return replace(found, reason=ALIKE) if found.value == 0 and alike else found


def share_of_gain(federated: PairCounts, centralised: PairCounts) -> Figure:
    """(C federated - 0.5) / (C centralised - 0.5); only where pooling is shown to rank better than chance.

    Raises:
        RunError: as `difference`.
    """
    _check_paired(federated, centralised)
    pooled = c_index("centralised", None, centralised)
    if pooled.low is None or pooled.low <= 0.5:
        reason = pooled.reason or "no gain to share: the centralised interval reaches 0.5"
        return _missing("share_of_gain", None, reason, federated)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (_ratios(federated) - 0.5) / (_ratios(centralised) - 0.5)
    return _figure("share_of_gain", None, shares, federated)


def _everywhere(federated: PairCounts, local: Sequence[PairCounts]) -> list[Figure]:
    """Mean C of the models trained alone, each on the test patients of all sites."""
    for each in local:
        _check_paired(federated, each)
    mean = np.mean([_ratios(each) for each in local], axis=0)
    return [
        _figure("alone_everywhere", None, mean, federated),
        _figure("federated_minus_alone_everywhere", None, _ratios(federated) - mean, federated),
    ]


def _at_site(models: Models, site: str) -> list[Figure]:
    """What a site has from the federation on its own test patients, and what from training alone."""
    federated, alone = models.federated[site], models.alone[site]
    figures = [
        c_index("centralised", site, models.centralised[site]),
        c_index("federated", site, federated),
    ]
    if isinstance(alone, str):
        reason = f"no model of its own ({alone})"
        names = ("alone", "federated_minus_alone")
        return figures + [_missing(name, site, reason, federated) for name in names]
    return [
        *figures,
        c_index("alone", site, alone[site]),
        difference("federated_minus_alone", site, federated, alone[site]),
    ]


def _left_out(federated: SiteCounts, site: str, left: SiteCounts | str) -> list[Figure]:
    """What is lost when a site is left out: at the others, and at the site itself; positive is a loss."""
    others = [name for name in federated if name != site]
    whole = total([federated[name] for name in others])
    if isinstance(left, str):
        return [_missing("loss_of_others", site, left, whole), _missing("loss_of_site", site, left, federated[site])]
    loss_of_others = difference("loss_of_others", site, whole, total([left[name] for name in others]))
    if site not in left:
        return [loss_of_others, _missing("loss_of_site", site, NOT_A_MODEL_THERE, federated[site])]
    return [loss_of_others, difference("loss_of_site", site, federated[site], left[site])]


def _ratios(counts: PairCounts) -> NDArray[np.float64]:
    """C of the data and of each bootstrap sample, shape (1 + replicates,); not a number where nothing compares."""
    concordant = np.append(counts.concordant, counts.concordant_replicates)
    comparable = np.append(counts.comparable, counts.comparable_replicates)
    return np.divide(concordant, comparable, out=np.full(len(comparable), np.nan), where=comparable > 0)


def _check_paired(first: PairCounts, second: PairCounts) -> None:
    same = (
        first.comparable == second.comparable
        and first.patients == second.patients
        and np.array_equal(first.comparable_replicates, second.comparable_replicates)
    )
    if not same:
        raise RunError(
            "two models of the comparison were not tested on the same patients in the same bootstrap samples, so their "
            "difference has no meaning; start the comparison again in a new --out"
        )


def _figure(name: str, site: str | None, values: NDArray[np.float64], counts: PairCounts) -> Figure:
    if not np.isfinite(values[0]):
        return _missing(name, site, "no event" if counts.events == 0 else NO_PAIRS, counts)
    return _of_estimate(name, site, estimate(values, n=counts.patients, events=counts.events), counts)


def _missing(name: str, site: str | None, reason: str, counts: PairCounts) -> Figure:
    return _of_estimate(name, site, no_estimate(reason, n=counts.patients, events=counts.events), counts)


def _of_estimate(name: str, site: str | None, found: Estimate, counts: PairCounts) -> Figure:
    pairs = int(counts.comparable)
    return Figure(name, site, found.value, found.low, found.high, found.n, found.events, pairs, found.reason)
