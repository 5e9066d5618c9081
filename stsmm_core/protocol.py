"""What crosses the wire: message types, record keys and layouts, known to both ends.

Everything is a flat list of numbers or a short string; docs/wire.md says of each field what it reveals.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stsmm_core.cohort.clinical import ClinicalEncoding, ClinicalSummary
from stsmm_core.cohort.dictionary import VARIABLES, Category, Number
from stsmm_core.config import Experiment
from stsmm_core.errors import StsmmError
from stsmm_core.imaging.flag_kinds import KINDS_AS_READ
from stsmm_core.survival.concordance import PairCounts
from stsmm_core.training.centre import SiteDescription
from stsmm_core.training.losses import LossChanges, LossSums
from stsmm_core.training.trainer import RoundLosses

EXPERIMENT = "experiment"
"""Key of the run configuration that holds the resolved experiment as TOML text."""
SITES_VARIABLE = "STSMM_SITES"
"""Environment variable of a simulation: the folder of site files; virtual node i takes i.toml."""
RUN_VARIABLE = "STSMM_RUN"
"""Environment variable of the server: its run folder."""

SITES = "sites"
"""Key of the run configuration: sites to wait for at the start."""

QUERY = "query"
PREDICT_ACTION = "predict"
PAIRS_ACTION = "pairs"

ARRAYS = "arrays"
CONFIG = "config"
METRICS = "metrics"
SITE = "site"
REFUSAL = "refusal"

ROUND = "server-round"
FOLD = "fold"
CHANNELS = "channels"
NAME = "name"
SCHEMA = "schema-version"
WITHHELD_VARIABLES = "withheld"
BLENDING = "blending-weights"
WEIGHT = "weight"
"""How much a site's update counts in the average."""

Numbers = dict[str, Any]
"""A record of numbers and lists of numbers."""

WITHHELD = -1
"""A count below the site's minimum cell size."""


class ProtocolError(StsmmError):
    """A message does not have the agreed layout."""


# --- query: description of the site and sums for the encoding -------------------------------------------------------


def description_to_numbers(description: SiteDescription, experiment: Experiment) -> Numbers:
    """Counts and sums of a site's whole cohort."""

    def count(value: int | None) -> int:
        return WITHHELD if value is None else value

    return {
        "patients": count(description.patients),
        "with-image": count(description.with_image),
        "events": [count(description.events[name]) for name in experiment.data.endpoints],
        "image-flags": [count(description.image_flags.get(kind, 0)) for kind in KINDS_AS_READ],
    } | _summary_to_numbers(description.summary)


def description_from_numbers(
    numbers: Mapping[str, Any], identity: Mapping[str, Any], experiment: Experiment
) -> SiteDescription:
    """Inverse of `description_to_numbers`, with the strings that go beside it."""

    def count(value: Any) -> int | None:
        return None if int(value) == WITHHELD else int(value)

    site, channels, withheld = (identity.get(key) for key in (NAME, CHANNELS, WITHHELD_VARIABLES))
    if not isinstance(site, str) or not isinstance(channels, list) or not isinstance(withheld, list):
        raise ProtocolError("the site's name, channels or withheld variables are missing from the message")
    if not set(withheld) <= set(experiment.data.variables):
        raise ProtocolError("the site withholds a variable that the experiment does not ask for")
    events = _array(numbers, "events", (len(experiment.data.endpoints),))
    flagged = _array(numbers, "image-flags", (len(KINDS_AS_READ),))
    return SiteDescription(
        site,
        tuple(str(name) for name in channels),
        count(_array(numbers, "patients", ())),
        {name: count(value) for name, value in zip(experiment.data.endpoints, events, strict=True)},
        count(_array(numbers, "with-image", ())),
        _summary_from_numbers(numbers, experiment),
        tuple(withheld),
        {kind: count(value) for kind, value in zip(KINDS_AS_READ, flagged, strict=True)},
    )


def training_sums_to_numbers(training: ClinicalSummary) -> Numbers:
    """Sums of the continuous variables over a fold's training patients."""
    return {f"training.{key}": list(sums) for key, sums in training.numbers.items()}


def training_sums_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> ClinicalSummary:
    """Inverse of `training_sums_to_numbers`."""
    return ClinicalSummary(_sums_of_numbers(numbers, "training", experiment), {})


def _summary_to_numbers(summary: ClinicalSummary) -> Numbers:
    return {f"cohort.{key}": list(value) for key, value in (summary.numbers | summary.levels).items()}


def _summary_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> ClinicalSummary:
    levels = {
        key: tuple(_array(numbers, f"cohort.{key}", (len(variable.levels),)).tolist())
        for key, variable in ((key, VARIABLES[key]) for key in experiment.data.variables)
        if isinstance(variable, Category)
    }
    return ClinicalSummary(_sums_of_numbers(numbers, "cohort", experiment), levels)


def _sums_of_numbers(
    numbers: Mapping[str, Any], group: str, experiment: Experiment
) -> dict[str, tuple[float, float, float]]:
    sums: dict[str, tuple[float, float, float]] = {}
    for key in experiment.data.variables:
        if isinstance(VARIABLES[key], Number):
            n, first, second = _array(numbers, f"{group}.{key}", (3,)).tolist()
            sums[key] = (n, first, second)
    return sums


# --- train and evaluate: encoding, losses ----------------------------------------------------------------------------


def encoding_to_numbers(encoding: ClinicalEncoding) -> Numbers:
    """Means and standard deviations over all sites."""
    return {f"encoding.{key}": list(value) for key, value in encoding.moments.items()}


def encoding_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> ClinicalEncoding:
    """Inverse of `encoding_to_numbers`."""
    moments: dict[str, tuple[float, float]] = {}
    for key in experiment.data.variables:
        if isinstance(VARIABLES[key], Number):
            mean, sd = _array(numbers, f"encoding.{key}", (2,)).tolist()
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
    return LossSums(_array(numbers, f"{prefix}.loss", shape), _array(numbers, f"{prefix}.events", shape))


def _changes_to_numbers(changes: LossChanges, prefix: str) -> Numbers:
    return {
        f"{prefix}.change": changes.change.ravel().tolist(),
        f"{prefix}.events": changes.events.ravel().tolist(),
        f"{prefix}.covariance": changes.covariance.ravel().tolist(),
    }


def _changes_from_numbers(numbers: Mapping[str, Any], prefix: str, shape: tuple[int, int]) -> LossChanges:
    heads, endpoints = shape
    return LossChanges(
        _array(numbers, f"{prefix}.change", shape),
        _array(numbers, f"{prefix}.events", shape),
        _array(numbers, f"{prefix}.covariance", (heads, 2 * endpoints, 2 * endpoints)),
    )


# --- evaluate.pairs: concordance counts ------------------------------------------------------------------------------


def pairs_to_numbers(pairs: Sequence[Sequence[PairCounts]]) -> Numbers:
    """Concordance counts, [head][endpoint], with their bootstrap replicates."""

    def gather(read: Callable[[PairCounts], Any]) -> list[float]:
        return np.array([[read(counts) for counts in head] for head in pairs], dtype=float).ravel().tolist()

    return {
        "concordant": gather(lambda counts: counts.concordant),
        "comparable": gather(lambda counts: counts.comparable),
        "concordant-replicates": gather(lambda counts: counts.concordant_replicates),
        "comparable-replicates": gather(lambda counts: counts.comparable_replicates),
        "patients": gather(lambda counts: counts.patients),
        "events": gather(lambda counts: counts.events),
    }


def pairs_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> list[list[PairCounts]]:
    """Inverse of `pairs_to_numbers`."""
    shape = len(experiment.heads), len(experiment.data.endpoints)
    replicates = (*shape, experiment.evaluation.bootstrap_replicates)
    concordant, comparable = _array(numbers, "concordant", shape), _array(numbers, "comparable", shape)
    patients, events = _array(numbers, "patients", shape), _array(numbers, "events", shape)
    concordant_replicates = _array(numbers, "concordant-replicates", replicates)
    comparable_replicates = _array(numbers, "comparable-replicates", replicates)
    return [
        [
            PairCounts(
                float(concordant[at]),
                float(comparable[at]),
                concordant_replicates[at],
                comparable_replicates[at],
                int(patients[at]),
                int(events[at]),
            )
            for at in ((head, endpoint) for endpoint in range(shape[1]))
        ]
        for head in range(shape[0])
    ]


def _array(numbers: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A field as a finite array of the agreed shape."""
    if key not in numbers:
        raise ProtocolError(f"field '{key}' is missing from the message")
    try:
        values = np.asarray(numbers[key], dtype=float)
    except (TypeError, ValueError):
        raise ProtocolError(f"field '{key}' holds something else than numbers") from None
    if values.size != int(np.prod(shape)):
        raise ProtocolError(f"field '{key}' holds {values.size} numbers, not {int(np.prod(shape))}")
    if not np.isfinite(values).all():
        raise ProtocolError(f"field '{key}' holds a value that is not a number")
    return values.reshape(shape)
