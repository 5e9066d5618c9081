"""A round: the encoding that goes out with it, and the loss sums that come back."""

from collections.abc import Mapping
from typing import Any

from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.cohort.dictionary import VARIABLES, Number
from stsmm_core.config import Experiment
from stsmm_core.protocol.keys import Numbers, read_array
from stsmm_core.training.losses import LossChanges, LossSums
from stsmm_core.training.trainer import RoundLosses


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


def losses_to_numbers(losses: RoundLosses) -> Numbers:
    """Loss sums of a site after a round."""
    numbers = _sums_to_numbers(losses.validation, "validation")
    if losses.train is not None and losses.train_change is not None and losses.validation_change is not None:
        numbers |= _sums_to_numbers(losses.train, "train")
        numbers |= _changes_to_numbers(losses.validation_change, "validation-change")
        numbers |= _changes_to_numbers(losses.train_change, "train-change")
    return numbers


def losses_from_numbers(numbers: Mapping[str, Any], experiment: Experiment, round_number: int) -> RoundLosses:
    """Inverse of `losses_to_numbers`; which fields are due follows from the round."""
    shape = len(experiment.heads), len(experiment.data.endpoints)
    validation = _sums_from_numbers(numbers, "validation", shape)
    if not experiment.is_checkpoint(round_number):
        return RoundLosses(validation)
    return RoundLosses(
        validation,
        _sums_from_numbers(numbers, "train", shape),
        _changes_from_numbers(numbers, "validation-change", shape),
        _changes_from_numbers(numbers, "train-change", shape),
    )


def _sums_to_numbers(sums: LossSums, prefix: str) -> Numbers:
    return {f"{prefix}.loss": sums.loss.ravel().tolist(), f"{prefix}.events": sums.events.ravel().tolist()}


def _sums_from_numbers(numbers: Mapping[str, Any], prefix: str, shape: tuple[int, int]) -> LossSums:
    return LossSums(read_array(numbers, f"{prefix}.loss", shape), read_array(numbers, f"{prefix}.events", shape))


def _changes_to_numbers(changes: LossChanges, prefix: str) -> Numbers:
    return {
        f"{prefix}.change": changes.change.ravel().tolist(),
        f"{prefix}.events": changes.events.ravel().tolist(),
        f"{prefix}.covariance": changes.covariance.ravel().tolist(),
    }


def _changes_from_numbers(numbers: Mapping[str, Any], prefix: str, shape: tuple[int, int]) -> LossChanges:
    heads, endpoints = shape
    return LossChanges(
        read_array(numbers, f"{prefix}.change", shape),
        read_array(numbers, f"{prefix}.events", shape),
        read_array(numbers, f"{prefix}.covariance", (heads, 2 * endpoints, 2 * endpoints)),
    )
