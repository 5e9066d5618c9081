"""A round: the encoding that goes out with it, and the loss sums that come back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.cohort.dictionary import VARIABLES, Number
from stsmm_core.config import Experiment
from stsmm_core.protocol.keys import (
    BLENDING,
    EVENTS,
    LARGEST_COUNT,
    LARGEST_NUMBER,
    MISSED,
    PATIENTS,
    SEEN,
    TAUGHT,
    WEIGHT,
    Numbers,
    ProtocolError,
    read_array,
    read_count,
    read_counts,
)
from stsmm_core.training.kept_at_site import LARGEST_FACTOR
from stsmm_core.training.losses import LossChanges, LossSums
from stsmm_core.training.rounds import RoundLosses, TrainedRound


def encoding_to_numbers(encoding: ClinicalEncoding) -> Numbers:
    """Means and standard deviations over all sites."""
    return {f"encoding.{key}": list(value) for key, value in encoding.moments.items()}


def encoding_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> ClinicalEncoding:
    """Inverse of `encoding_to_numbers`."""
    moments: dict[str, tuple[float, float]] = {}
    for key in experiment.data.variables:
        if isinstance(VARIABLES[key], Number):
            mean, sd = read_array(numbers, f"encoding.{key}", (2,)).tolist()
            moments[key] = (mean, sd)
    return ClinicalEncoding(experiment.data.variables, moments)


@dataclass(frozen=True)
class Contribution:
    """What a site says of its training in a round.

    Attributes:
        weight: how much its update counts.
        seen, missed: whether it trained on a patient with, and without, each modality (`TrainedRound`).
        taught: whether it trained on an event of each endpoint among the patients of each head, [head][endpoint].
    """

    weight: float
    seen: tuple[bool, ...]
    missed: tuple[bool, ...]
    taught: tuple[tuple[bool, ...], ...]


def contribution_to_numbers(trained: TrainedRound, weight: float) -> Numbers:
    """Counts of a site's training set, and how much its update counts."""
    return {
        PATIENTS: trained.patients,
        EVENTS: trained.events,
        WEIGHT: float(weight),
        SEEN: [int(any_patient) for any_patient in trained.seen],
        MISSED: [int(any_patient) for any_patient in trained.missed],
        TAUGHT: [int(any_event) for head in trained.taught for any_event in head],
    }


def contribution_from_numbers(
    numbers: Mapping[str, Any], experiment: Experiment, *, most: int = LARGEST_COUNT
) -> Contribution:
    """Inverse of `contribution_to_numbers`.

    Args:
        most: patients that the site may have trained on.

    Raises:
        ProtocolError: when a count is none or too large, or the weight is not what the counts allow.
    """
    patients = read_count(numbers, PATIENTS, most=most)
    events = read_count(numbers, EVENTS, most=len(experiment.data.endpoints) * patients)
    weight = float(read_array(numbers, WEIGHT, ()))
    count = experiment.federation.weight_of(patients=patients, events=events)
    spread = LARGEST_FACTOR if experiment.federation.site_factor == "generalisation" else 1.0
    if not count / spread <= weight <= count * spread:
        raise ProtocolError("the update has no valid weight")
    modalities = (len(experiment.data.modalities),)
    flags = [read_array(numbers, key, modalities) for key in (SEEN, MISSED)]
    flags.append(read_array(numbers, TAUGHT, (len(experiment.heads), len(experiment.data.endpoints))))
    if not all(((each == 0) | (each == 1)).all() for each in flags):
        raise ProtocolError("the update does not say what it was trained on")
    seen, missed = (tuple(bool(value) for value in each) for each in flags[:2])
    return Contribution(weight, seen, missed, tuple(tuple(bool(value) for value in head) for head in flags[2]))


def blending_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> tuple[float, ...]:
    """Blending weights, one a head, sum 1."""
    weights = read_array(numbers, BLENDING, (len(experiment.heads),))
    if (weights < 0).any() or abs(weights.sum() - 1) > 1e-6:
        raise ProtocolError("the blending weights are not shares of 1")
    return tuple(cast(list[float], weights.tolist()))


def losses_to_numbers(losses: RoundLosses) -> Numbers:
    """Loss sums of a site after a round."""
    numbers = _sums_to_numbers(losses.validation, "validation")
    if losses.train is not None and losses.train_change is not None and losses.validation_change is not None:
        numbers |= _sums_to_numbers(losses.train, "train")
        numbers |= _changes_to_numbers(losses.validation_change, "validation-change")
        numbers |= _changes_to_numbers(losses.train_change, "train-change")
    return numbers


def losses_from_numbers(
    numbers: Mapping[str, Any], experiment: Experiment, round_number: int, *, most: int = LARGEST_COUNT
) -> RoundLosses:
    """Inverse of `losses_to_numbers`, of at most so many patients; which fields are due follows from the round."""
    shape = len(experiment.heads), len(experiment.data.endpoints)
    validation = _sums_from_numbers(numbers, "validation", shape, most)
    if not experiment.is_checkpoint(round_number):
        return RoundLosses(validation)
    return RoundLosses(
        validation,
        _sums_from_numbers(numbers, "train", shape, most),
        _changes_from_numbers(numbers, "validation-change", shape, most),
        _changes_from_numbers(numbers, "train-change", shape, most),
    )


def _sums_to_numbers(sums: LossSums, prefix: str) -> Numbers:
    return {f"{prefix}.loss": sums.loss.ravel().tolist(), f"{prefix}.events": sums.events.ravel().tolist()}


def _sums_from_numbers(numbers: Mapping[str, Any], prefix: str, shape: tuple[int, int], most: int) -> LossSums:
    loss = read_array(numbers, f"{prefix}.loss", shape)
    return LossSums(loss, read_counts(numbers, f"{prefix}.events", shape, most=most))


def _changes_to_numbers(changes: LossChanges, prefix: str) -> Numbers:
    return {
        f"{prefix}.change": changes.change.ravel().tolist(),
        f"{prefix}.events": changes.events.ravel().tolist(),
        f"{prefix}.covariance": changes.covariance.ravel().tolist(),
    }


def _changes_from_numbers(numbers: Mapping[str, Any], prefix: str, shape: tuple[int, int], most: int) -> LossChanges:
    heads, endpoints = shape
    covariances = heads, 2 * endpoints, 2 * endpoints
    squared = LARGEST_NUMBER**2
    return LossChanges(
        read_array(numbers, f"{prefix}.change", shape),
        read_counts(numbers, f"{prefix}.events", shape, most=most),
        read_array(numbers, f"{prefix}.covariance", covariances, low=-squared, high=squared),
    )
