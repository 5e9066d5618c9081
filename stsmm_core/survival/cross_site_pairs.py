"""Pairs of patients of different sites, from cells of risk and time: ranked as far as the cells tell.

Where two cells overlap the order of a pair is open. It enters the figure by its probability, patients being spread
evenly over their cells, and corrected by what the same assumption gets wrong of the pairs within sites, whose order is
known (`with_cross_site`): risk and time are related within a cell too. The bounds give an open pair every possible
order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.cells import Cells
from stsmm_core.survival.concordance import TIE_TOLERANCE

Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class PairSums:
    """Weight of concordant (ties half) and of all comparable pairs; adds up over strata.

    Attributes:
        concordant, comparable: in each sample, the data themselves first, shape (samples,).
        low, high: concordant and comparable that give the lowest and the highest share which the data leave possible.
        unseen: at most so much weight of pairs of which nothing is known.
        open: weight of the comparable pairs whose order is open, shape (samples,).
        own_concordant, own_comparable, own_open: the same of the pairs within sites by their cells, in the data.
    """

    concordant: NDArray[np.float64]
    comparable: NDArray[np.float64]
    low: tuple[float, float]
    high: tuple[float, float]
    unseen: float
    open: NDArray[np.float64]
    own_concordant: float = 0.0
    own_comparable: float = 0.0
    own_open: float = 0.0

    def __add__(self, other: "PairSums") -> "PairSums":
        return PairSums(
            self.concordant + other.concordant,
            self.comparable + other.comparable,
            (self.low[0] + other.low[0], self.low[1] + other.low[1]),
            (self.high[0] + other.high[0], self.high[1] + other.high[1]),
            self.unseen + other.unseen,
            self.open + other.open,
            self.own_concordant + other.own_concordant,
            self.own_comparable + other.own_comparable,
            self.own_open + other.own_open,
        )

    def share(self) -> NDArray[np.float64]:
        """Concordant over comparable, not a number in a sample without a pair; shape (samples,)."""
        nothing = np.full(len(self.comparable), np.nan)
        return np.divide(self.concordant, self.comparable, out=nothing, where=self.comparable > 0)

    def bounds(self) -> tuple[float, float]:
        """What the share is at least and at most, whatever the order within cells; 0 and 1 where nothing is known."""
        least, most = self.low[1] + self.unseen, self.high[1] + self.unseen
        low = self.low[0] / least if least > 0 else 0.0
        return low, (self.high[0] + self.unseen) / most if most > 0 else 1.0


def exact_pairs(concordant: NDArray[np.float64], comparable: NDArray[np.float64]) -> PairSums:
    """Pairs within a site, which it has counted itself, shape (samples,)."""
    counted = float(concordant[0]), float(comparable[0])
    return PairSums(concordant, comparable, counted, counted, 0.0, np.zeros(len(concordant)))


def with_cross_site(within: PairSums, across: PairSums) -> PairSums:
    """All pairs: those within sites, exact, and those of different sites, corrected where their order is open.

    The correction is how much more often than the cells say an open pair within a site is concordant.
    """
    if across.own_open <= 0 or within.comparable[0] <= 0:
        return within + across
    expected = within.concordant[0] / within.comparable[0] * across.own_comparable
    correction = float(np.clip((expected - across.own_concordant) / across.own_open, -0.5, 0.5))
    return within + replace(across, concordant=across.concordant + correction * across.open)


def cross_site_pairs(sites: Sequence[Cells], *, risk_range: Range, time_range: Range) -> PairSums:
    """Harrell's pairs of patients of different sites: `first` are events, `second` censored patients.

    Args:
        risk_range, time_range: where patients of the open outermost cells are taken to lie, for the figure alone.
    """
    cells, apart = _together(sites)
    ranked = _higher(cells, risk_range)
    # An event and a censoring at one time are comparable, two events at one time are not.
    with_event, with_censored = _earlier(cells, time_range)
    events, censored = cells.first, cells.second
    concordant, comparable = np.zeros(len(events)), np.zeros(len(events))
    bounds, own = np.zeros(4), np.zeros(3)
    open_ = np.zeros(len(events))
    for order, partner in ((with_event, events), (with_censored, censored)):
        comparable += _weigh(events, order.likely * apart, partner)
        concordant += _weigh(events, order.likely * ranked.likely * apart, partner)
        open_ += _weigh(events, _open(order, ranked) * apart, partner)
        bounds += _extremes(order, ranked, apart, events[0], partner[0])
        own += _own(order, ranked, 1 - apart, events[0], partner[0], alone=partner is events)
    seen = float(events[0].sum() + censored[0].sum())
    everyone = seen + sum(site.unseen for site in sites)
    low, high = (float(bounds[0]), float(bounds[1])), (float(bounds[2]), float(bounds[3]))
    return PairSums(concordant, comparable, low, high, everyone**2 - seen**2, open_, *own.tolist())


def cross_site_cases(sites: Sequence[Cells], *, risk_range: Range, largest_weight: float) -> PairSums:
    """Pairs of a case and a control of different sites: `first` are weights of cases, `second` of controls.

    Args:
        largest_weight: of a single patient, to bound what the unseen ones could add.
    """
    cells, apart = _together(sites)
    ranked = _higher(cells, risk_range)
    cases, controls = cells.first, cells.second
    concordant = _weigh(cases, ranked.likely * apart, controls)
    comparable = _weigh(cases, apart, controls)
    low = float(_weigh(cases[:1], ranked.certain * apart, controls[:1])[0])
    high = float(_weigh(cases[:1], ranked.possible * apart, controls[:1])[0])
    unseen = sum(site.unseen for site in sites) * largest_weight
    all_cases, all_controls = float(cases[0].sum()), float(controls[0].sum())
    left = (all_cases + unseen) * (all_controls + unseen) - all_cases * all_controls
    whole = np.ones_like(apart)
    any_time = _Order(whole, whole, whole)
    open_ = _weigh(cases, _open(any_time, ranked) * apart, controls)
    own = _own(any_time, ranked, 1 - apart, cases[0], controls[0], alone=False)
    counted = float(comparable[0])
    return PairSums(concordant, comparable, (low, counted), (high, counted), left, open_, *own.tolist())


@dataclass(frozen=True, eq=False)
class _Order:
    """Whether the row's patient comes before the column's: as likely as not, certainly, possibly; (cells, cells)."""

    likely: NDArray[np.float64]
    certain: NDArray[np.float64]
    possible: NDArray[np.float64]


def _order(likely: NDArray[np.float64], certain: NDArray[np.bool_], impossible: NDArray[np.bool_]) -> _Order:
    return _Order(
        np.where(certain, 1.0, np.where(impossible, 0.0, likely)), certain.astype(float), (~impossible).astype(float)
    )


def _earlier(cells: Cells, ends: Range) -> tuple[_Order, _Order]:
    """Whether the row's time is smaller; and whether it is not larger."""
    low, high = cells.time_low, cells.time_high
    likely = _probability(np.clip(low, *ends), np.clip(high, *ends))
    # A box does not hold its lower edge.
    low = np.where(low < high, np.nextafter(low, np.inf), low)
    before, after = high[:, None] < low, low[:, None] > high
    not_after, not_before = high[:, None] <= low, low[:, None] >= high
    return _order(likely, before, not_before), _order(likely, not_after, after)


def _higher(cells: Cells, ends: Range) -> _Order:
    """Whether the row's risk is the higher; a tie of two points is one half, certainly and possibly."""
    low, high = cells.risk_low, cells.risk_high
    likely = 1 - _probability(np.clip(low, *ends), np.clip(high, *ends))
    box = low < high
    low, high = np.where(box, low + TIE_TOLERANCE, low), np.where(box, high - TIE_TOLERANCE, high)
    order = _order(likely, low[:, None] - high > TIE_TOLERANCE, low - high[:, None] > TIE_TOLERANCE)
    tied = ~box[:, None] & ~box & (np.abs(low[:, None] - low) <= TIE_TOLERANCE)
    return _Order(*(np.where(tied, 0.5, each) for each in (order.likely, order.certain, order.possible)))


def _probability(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(row < column) of values spread evenly over their cells, ties half."""
    a, b = low[:, None], high[:, None]
    width, other = b - a, high - low

    def area(end: NDArray[np.float64]) -> NDArray[np.float64]:
        """Integral of the row's distribution function up to the column's edge."""
        inside = np.clip(end - a, 0.0, width)
        return np.divide(inside**2, 2 * width, out=np.zeros(np.shape(inside)), where=width > 0) + np.maximum(
            end - b, 0.0
        )

    spread = np.divide(area(high) - area(low), other, out=np.zeros((len(low), len(low))), where=other > 0)
    # The column is a point: the share of the row's cell below it.
    share = np.divide(np.clip(low - a, 0.0, width), width, out=np.zeros((len(low), len(low))), where=width > 0)
    point = np.where(width > 0, share, np.where(a < low, 1.0, np.where(a == low, 0.5, 0.0)))
    return np.where(other > 0, spread, point)


def _open(order: _Order, ranked: _Order) -> NDArray[np.float64]:
    """How likely a pair is comparable, where it is not certain whether it is or who of the two has the higher risk."""
    return order.likely * ((order.certain < order.possible) | (ranked.certain < ranked.possible))


def _own(
    order: _Order,
    ranked: _Order,
    together: NDArray[np.float64],
    events: NDArray[np.float64],
    partner: NDArray[np.float64],
    *,
    alone: bool,
) -> NDArray[np.float64]:
    """Concordant, comparable and open pairs within sites by their cells; alone: nobody is paired with oneself."""
    pairs = order.likely * together
    each = (pairs * ranked.likely, pairs, _open(order, ranked) * together)
    sums = np.array([events @ one @ partner for one in each])
    return sums - np.array([np.diag(one) @ events for one in each]) if alone else sums


def _extremes(
    order: _Order, ranked: _Order, apart: NDArray[np.float64], events: NDArray[np.float64], partner: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Concordant and comparable of the lowest share, then of the highest.

    A pair of open comparability counts where that moves the share in the direction sought.
    """
    certain, open_ = order.certain * apart, (order.possible - order.certain) * apart
    at_worst, at_best = open_ * (ranked.certain < 1), open_ * (ranked.possible > 0)
    return np.array(
        [
            events @ (certain * ranked.certain) @ partner,
            events @ (certain + at_worst) @ partner,
            events @ (certain * ranked.possible + at_best) @ partner,
            events @ (certain + at_best) @ partner,
        ]
    )


def _together(sites: Sequence[Cells]) -> tuple[Cells, NDArray[np.float64]]:
    """All cells, and 1 where two are of different sites, shape (cells, cells)."""

    def gather(name: str) -> NDArray[np.float64]:
        return np.concatenate([getattr(site, name) for site in sites], axis=-1)

    everything = Cells(
        gather("risk_low"),
        gather("risk_high"),
        gather("time_low"),
        gather("time_high"),
        gather("first"),
        gather("second"),
        sum(site.unseen for site in sites),
    )
    ends = np.cumsum([0, *(len(site) for site in sites)])
    apart = np.ones((ends[-1], ends[-1]))
    for start, end in pairwise(ends):
        apart[start:end, start:end] = 0.0
    return everything, apart


def _weigh(rows: NDArray[np.float64], pairs: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the pairs in each sample, shape (samples,)."""
    return np.asarray(((rows @ pairs) * columns).sum(axis=1))
