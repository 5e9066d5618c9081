"""Loss sums of a group of patients: what a site may say of its losses, additive over sites."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stsmm_core.cohort.cohort import Outcomes
from stsmm_core.survival.cox_loss import Ties, cox_loss_sum, resampled_cox_loss_sums

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LossSums:
    """Negative log partial likelihood of each head, one risk set a site.

    Attributes:
        loss: summed over events, shape (heads, endpoints).
        events: events behind each sum, same shape.
    """

    loss: Array
    events: Array

    def __add__(self, other: "LossSums") -> "LossSums":
        return LossSums(self.loss + other.loss, self.events + other.events)

    def per_event(self) -> Array:
        """Loss of each head: the mean over events, added over endpoints, shape (heads,)."""
        return (self.loss / np.maximum(self.events, 1)).sum(axis=1)


@dataclass(frozen=True)
class LossChanges:
    """Change of `LossSums` between two checkpoints on the same patients, with its bootstrap covariance.

    A site that saw only one of the two checkpoints contributes zeros, so that a site joining late or
    dropping out never looks like a change of the loss.

    Attributes:
        change: later minus earlier sum, shape (heads, endpoints).
        events: events behind each change, same shape.
        covariance: of (change, events) under resampling of patients, shape (heads, 2 endpoints, 2 endpoints).
    """

    change: Array
    events: Array
    covariance: Array

    def __add__(self, other: "LossChanges") -> "LossChanges":
        return LossChanges(self.change + other.change, self.events + other.events, self.covariance + other.covariance)

    def per_event(self) -> Array:
        """Change of `LossSums.per_event`, shape (heads,)."""
        return (self.change / np.maximum(self.events, 1)).sum(axis=1)

    def variance(self) -> Array:
        """Variance of `per_event` by the delta method for a sum of ratios, shape (heads,)."""
        events = np.maximum(self.events, 1)
        gradient = np.concatenate([1 / events, -self.change / events**2], axis=1)
        # Where the ratio does not vary at all, rounding can leave a little less than 0.
        return np.maximum(np.einsum("ki,kij,kj->k", gradient, self.covariance, gradient), 0)


def sum_losses(outputs: Array, outcomes: Outcomes, present: NDArray[np.bool_], *, ties: Ties) -> LossSums:
    """Sum the losses of a group of patients.

    Args:
        outputs: log hazards, shape (heads, patients, endpoints).
        present: whether a head speaks of a patient at all, shape (heads, patients).
    """
    heads, _, endpoints = outputs.shape
    loss, events = np.zeros((heads, endpoints)), np.zeros((heads, endpoints))
    for head in range(heads):
        for endpoint in range(endpoints):
            rows = present[head] & np.isfinite(outcomes.time[:, endpoint])
            event = torch.from_numpy(outcomes.event[rows, endpoint])
            risk = torch.from_numpy(outputs[head, rows, endpoint])
            time = torch.from_numpy(outcomes.time[rows, endpoint])
            loss[head, endpoint] = cox_loss_sum(risk, time=time, event=event, ties=ties).item()
            events[head, endpoint] = event.sum().item()
    return LossSums(loss, events)


def no_change(heads: int, endpoints: int) -> LossChanges:
    """The contribution of a site that cannot compare two checkpoints."""
    shape = (heads, endpoints)
    return LossChanges(np.zeros(shape), np.zeros(shape), np.zeros((heads, 2 * endpoints, 2 * endpoints)))


def change_of_losses(
    before: Array,
    after: Array,
    outcomes: Outcomes,
    present: NDArray[np.bool_],
    *,
    ties: Ties,
    replicates: int,
    rng: np.random.Generator,
) -> LossChanges:
    """Compare the outputs of two checkpoints for the same patients; arguments as in `sum_losses`."""
    heads, patients, endpoints = after.shape
    earlier = sum_losses(before, outcomes, present, ties=ties)
    later = sum_losses(after, outcomes, present, ties=ties)
    covariance = no_change(heads, endpoints).covariance
    if patients:
        counts = rng.multinomial(patients, np.full(patients, 1 / patients), size=replicates)
        for head in range(heads):
            samples = np.zeros((2 * endpoints, replicates))
            for endpoint in range(endpoints):
                rows = present[head] & np.isfinite(outcomes.time[:, endpoint])
                time, event = outcomes.time[rows, endpoint], outcomes.event[rows, endpoint]
                drawn = counts[:, rows]
                old, new = (
                    resampled_cox_loss_sums(outputs[head, rows, endpoint], time=time, event=event, counts=drawn)
                    for outputs in (before, after)
                )
                samples[endpoint] = new - old
                samples[endpoints + endpoint] = drawn @ event
            covariance[head] = np.cov(samples)
    return LossChanges(later.loss - earlier.loss, later.events, covariance)
