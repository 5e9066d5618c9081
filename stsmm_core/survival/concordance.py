"""Harrell's C-index from pair counts, so that sites can be added up without seeing a patient."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

TIE_TOLERANCE = 1e-8
"""Risks nearer than this count as tied (scikit-survival's default)."""


@dataclass(frozen=True)
class PairCounts:
    """Concordance of one endpoint in one stratum, or the sum over strata.

    Attributes:
        concordant: comparable pairs in which the patient with the earlier event has the higher risk; ties half.
        comparable: pairs whose order of events is known.
        concordant_replicates, comparable_replicates: the same in bootstrap samples of patients, shape (replicates,).
        patients, events: how many stand behind the counts.
    """

    concordant: float
    comparable: float
    concordant_replicates: NDArray[np.float64]
    comparable_replicates: NDArray[np.float64]
    patients: int
    events: int

    def __add__(self, other: "PairCounts") -> "PairCounts":
        return PairCounts(
            self.concordant + other.concordant,
            self.comparable + other.comparable,
            self.concordant_replicates + other.concordant_replicates,
            self.comparable_replicates + other.comparable_replicates,
            self.patients + other.patients,
            self.events + other.events,
        )

    def suppressed(self, minimum: int) -> "PairCounts":
        """The same, or zeros throughout where fewer than `minimum` patients stand behind the counts."""
        if self.patients >= minimum:
            return self
        return PairCounts(0.0, 0.0, 0 * self.concordant_replicates, 0 * self.comparable_replicates, 0, 0)


@dataclass(frozen=True)
class Concordance:
    """A C-index with its percentile bootstrap interval, or the reason why one of them is missing.

    The interval is too narrow below about 10 events (its coverage is then nearer 90 than 95 %).
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    events: int
    pairs: int
    reason: str | None = None


def compare_pairs(
    risk: NDArray[np.float64], *, time: NDArray[np.float64], happened: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Which pairs of patients are concordant (ties half) and which comparable (Harrell 1982).

    A pair is comparable when the shorter time is an event, or when times are equal and only one of them is an event.

    Returns:
        Concordant and comparable, shape (patients, patients) each: the row is the patient with the earlier event.
    """
    later = (time[:, None] < time) | ((time[:, None] == time) & ~happened)
    comparable = (happened[:, None] & later).astype(float)
    np.fill_diagonal(comparable, 0.0)
    return comparable * outranks(risk, risk), comparable


def outranks(risk: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where the first risk is the higher, one half where they are tied, shape (risks, others)."""
    gap = risk[:, None] - other
    return np.where(np.abs(gap) <= TIE_TOLERANCE, 0.5, gap > 0)


def count_pairs(
    risk: NDArray[np.float64],
    *,
    time: NDArray[np.float64],
    event: NDArray[np.float64],
    replicates: int,
    rng: np.random.Generator,
) -> PairCounts:
    """Count concordant and comparable pairs with bootstrap replicates over patients.

    Args:
        risk, time, event: shape (patients,). Patients whose risk or time is NaN are left out after the samples were
            drawn, so that risks of several models on the same patients share their samples.
    """
    if np.isinf(risk).any():
        raise ValueError("risk holds an infinite value")
    everyone = len(risk)
    known = np.isfinite(time) & np.isfinite(risk)
    risk, time, happened = risk[known], time[known], event[known] > 0
    concordant, comparable = compare_pairs(risk, time=time, happened=happened)
    chances = np.full(everyone, 1 / max(everyone, 1))
    drawn = rng.multinomial(everyone, chances, size=replicates) if everyone else np.zeros((replicates, 0))
    counts = drawn[:, known].astype(float)
    return PairCounts(
        float(concordant.sum()),
        float(comparable.sum()),
        np.einsum("bi,ij,bj->b", counts, concordant, counts, optimize=True),
        np.einsum("bi,ij,bj->b", counts, comparable, counts, optimize=True),
        len(risk),
        int(happened.sum()),
    )


def total(counts: Iterable[PairCounts]) -> PairCounts:
    """Add strata: only pairs within a stratum are compared."""
    return reduce(add, counts)


def concordance(counts: PairCounts, *, level: float = 0.95) -> Concordance:
    """Harrell's C with its percentile bootstrap interval.

    Replicates without a comparable pair carry no information and are left out of the interval. Where the rest do not
    vary, or are fewer than half, there is no interval but a reason (as `estimates.estimate`): a handful of patients all
    in order is not certainty.
    """
    pairs = int(counts.comparable)
    if pairs == 0:
        reason = "no event" if counts.events == 0 else "no comparable pairs"
        return Concordance(None, None, None, counts.patients, counts.events, 0, reason)
    usable = counts.comparable_replicates > 0
    ratios = counts.concordant_replicates[usable] / counts.comparable_replicates[usable]
    value = counts.concordant / counts.comparable
    if len(ratios) == 0 or 2 * len(ratios) < len(usable) or np.ptp(ratios) < TIE_TOLERANCE:
        reason = "too few events for an interval"
        return Concordance(value, None, None, counts.patients, counts.events, pairs, reason)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Concordance(value, float(low), float(high), counts.patients, counts.events, pairs)
