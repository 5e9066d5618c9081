"""The query: what a site says of its cohort, and its sums for the encoding."""

from collections.abc import Mapping
from typing import Any

from stsmm_core.cohort.clinical import ClinicalSummary
from stsmm_core.cohort.dictionary import VARIABLES, Category, Number
from stsmm_core.config import Experiment
from stsmm_core.imaging.flag_kinds import KINDS_AS_READ
from stsmm_core.protocol.keys import (
    CHANNELS,
    LARGEST_COUNT,
    LARGEST_NUMBER,
    MOST_PATIENTS,
    NAME,
    WITHHELD,
    WITHHELD_VARIABLES,
    Numbers,
    ProtocolError,
    check_sums,
    most_patients,
    read_array,
    read_counts,
)
from stsmm_core.training.centre import SiteDescription

BEYOND_RANGE = 10.0
"""A value may lie so many times beyond the range of its variable: that of a size taken from a mask is not checked."""


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

    patients = count(read_counts(numbers, "patients", (), most=MOST_PATIENTS, withheld=True))
    site, channels, withheld = (identity.get(key) for key in (NAME, CHANNELS, WITHHELD_VARIABLES))
    if not isinstance(site, str) or not isinstance(channels, list) or not isinstance(withheld, list):
        raise ProtocolError("the site's name, channels or withheld variables are missing from the message")
    if not set(withheld) <= set(experiment.data.variables):
        raise ProtocolError("the site withholds a variable that the experiment does not ask for")
    most = most_patients(patients)
    events, flagged, with_image = (
        read_counts(numbers, key, shape, most=most, withheld=True)
        for key, shape in (
            ("events", (len(experiment.data.endpoints),)),
            ("image-flags", (len(KINDS_AS_READ),)),
            ("with-image", ()),
        )
    )
    return SiteDescription(
        site,
        tuple(str(name) for name in channels),
        patients,
        {name: count(value) for name, value in zip(experiment.data.endpoints, events, strict=True)},
        count(with_image),
        _summary_from_numbers(numbers, experiment, most),
        tuple(withheld),
        {kind: count(value) for kind, value in zip(KINDS_AS_READ, flagged, strict=True)},
    )


def training_sums_to_numbers(training: ClinicalSummary) -> Numbers:
    """Sums of the continuous variables over a fold's training patients."""
    return {f"training.{key}": list(sums) for key, sums in training.numbers.items()}


def training_sums_from_numbers(
    numbers: Mapping[str, Any], experiment: Experiment, *, most: int = LARGEST_COUNT
) -> ClinicalSummary:
    """Inverse of `training_sums_to_numbers`, of at most so many patients."""
    return ClinicalSummary(_sums_of_numbers(numbers, "training", experiment, most), {})


def _summary_to_numbers(summary: ClinicalSummary) -> Numbers:
    return {f"cohort.{key}": list(value) for key, value in (summary.numbers | summary.levels).items()}


def _summary_from_numbers(numbers: Mapping[str, Any], experiment: Experiment, most: int) -> ClinicalSummary:
    levels = {
        key: tuple(read_counts(numbers, f"cohort.{key}", (len(variable.levels),), most=most).tolist())
        for key, variable in ((key, VARIABLES[key]) for key in experiment.data.variables)
        if isinstance(variable, Category)
    }
    return ClinicalSummary(_sums_of_numbers(numbers, "cohort", experiment, most), levels)


def _sums_of_numbers(
    numbers: Mapping[str, Any], group: str, experiment: Experiment, most: int
) -> dict[str, tuple[float, float, float]]:
    sums: dict[str, tuple[float, float, float]] = {}
    for key in experiment.data.variables:
        variable = VARIABLES[key]
        if isinstance(variable, Number):
            field = f"{group}.{key}"
            three = read_array(numbers, field, (3,), high=LARGEST_NUMBER**2)
            n, first, second = three.tolist()
            if not 0 <= n <= most or n != int(n):
                raise ProtocolError(f"field '{field}' begins with a number that is not a count from 0 to {most}")
            largest = BEYOND_RANGE * max(abs(variable.low), abs(variable.high))
            check_sums(three[:1], three[1:2], three[2:], field, largest=largest)
            sums[key] = (n, first, second)
    return sums
