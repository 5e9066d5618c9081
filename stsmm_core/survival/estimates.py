"""Figures with their bootstrap interval over patients."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.concordance import TIE_TOLERANCE
from stsmm_core.survival.predictions import Predictions

LEVEL = 0.95
LEAST_EVENTS = 5
"""Test patients with an event that a figure needs: with fewer its bootstrap interval is far too narrow."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrap SD and 95 % percentile interval over patients, or the reason why there is none.

    Attributes:
        n: patients behind it.
        events: patients with an event (by the horizon where there is one).
        reason: why the value, or its interval alone, is missing.
    """

    value: float | None
    sd: float | None
    low: float | None
    high: float | None
    n: int
    events: int
    reason: str | None = None


def draw_patients(patients: int, replicates: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How often each patient is drawn in each bootstrap sample, shape (replicates, patients).

    Drawn once an endpoint and used for all its models and figures, so that their differences are paired.
    """
    if patients == 0:
        return np.zeros((replicates, 0))
    return rng.multinomial(patients, np.full(patients, 1 / patients), size=replicates).astype(float)


def samples_of(predictions: Predictions, multiplicities: NDArray[np.float64]) -> NDArray[np.float64]:
    """How often each row is in each sample, shape (1 + replicates, rows); the first sample is the data themselves.

    A patient's rows in repeated cross-validation are drawn together.

    Args:
        multiplicities: shape (replicates, patients), from `draw_patients`; `Predictions.patient` numbers its columns.
    """
    return np.concatenate([np.ones((1, len(predictions))), multiplicities[:, predictions.patient]])


def estimate(values: NDArray[np.float64], *, n: int, events: int) -> Estimate:
    """The figure of the data and its spread over bootstrap samples.

    Samples that do not give the figure are left out of the interval. Where the rest do not vary, or are fewer than
    half, there is no interval but a reason: patients all in order are not certainty.

    Args:
        values: the figure in each sample, the data themselves first; shape (1 + replicates,).
    """
    value, replicates = float(values[0]), values[1:]
    usable = replicates[np.isfinite(replicates)]
    if len(usable) == 0 or 2 * len(usable) < len(replicates):
        return Estimate(value, None, None, None, n, events, "too few events for an interval")
    if np.ptp(usable) < TIE_TOLERANCE:
        return Estimate(value, None, None, None, n, events, "the same in every bootstrap sample")
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    sd = float(np.std(usable, ddof=1)) if len(usable) > 1 else None
    return Estimate(value, sd, float(low), float(high), n, events)


def too_few_events(events: int) -> str | None:
    """The reason why so few events give no figure; None where they are enough."""
    if events == 0:
        return "no event"
    return f"fewer than {LEAST_EVENTS} events" if events < LEAST_EVENTS else None


def no_estimate(reason: str, *, n: int, events: int) -> Estimate:
    """A figure that cannot be given, and why."""
    return Estimate(None, None, None, None, n, events, reason)
