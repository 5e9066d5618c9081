"""An exact Cox regression: the questions of the server and the sums that come back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stsmm_core.cohort.covariates import ColumnSums, Design, candidates_of
from stsmm_core.cohort.dictionary import LONGEST_TIME_DAYS
from stsmm_core.config import Experiment
from stsmm_core.protocol.keys import (
    LARGEST_COUNT,
    LARGEST_NUMBER,
    ROUNDING,
    Numbers,
    ProtocolError,
    check_sums,
    read_array,
    read_count,
    read_counts,
    read_times,
)
from stsmm_core.survival.baseline import BaselineHazard
from stsmm_core.survival.risk_set_sums import Floats, Moments, PartialLikelihood, RiskSetSums
from stsmm_core.training.cox import ColumnAnswer
from stsmm_core.training.cox_site import CoxTerm

COX_COLUMNS_ACTION = "cox_columns"
COX_SUMS_ACTION = "cox_sums"
COX_LIKELIHOOD_ACTION = "cox_likelihood"
COX_BASELINE_ACTION = "cox_baseline"
COX_RISKS_ACTION = "cox_risks"

ENDPOINT = "endpoint"
EVENT_TIMES = "event-times"

LARGEST_COVARIATE = 1e9
"""Covariates are standardised: the value of one patient among n is at most the root of n, and more where it is rare."""
LARGEST_HAZARD = 1e150
"""Sums of exp(risk) are large while a fit looks for its coefficients; ratios and squares of such sums are finite."""
ROUNDED_PRODUCTS = 1e-6
"""How far below 0 rounding alone can take an eigenvalue of correlations."""


def columns_to_numbers(answer: ColumnAnswer) -> Numbers:
    """A site's column sums and event times."""
    return {
        "patients": answer.sums.patients,
        "events": answer.events,
        "first": answer.sums.first.tolist(),
        "second": answer.sums.second.tolist(),
        "withheld": answer.sums.withheld.astype(int).tolist(),
        EVENT_TIMES: answer.event_times.tolist(),
        "largest-move": answer.largest_move_days,
    }


def columns_from_numbers(
    numbers: Mapping[str, Any], experiment: Experiment, *, most: int = LARGEST_COUNT
) -> ColumnAnswer:
    """Inverse of `columns_to_numbers`, of at most so many patients."""
    shape = (len(candidates_of(experiment.data.variables)),)
    patients = read_count(numbers, "patients", most=most)
    events = read_count(numbers, "events", most=patients)
    first = read_array(numbers, "first", shape)
    second = read_array(numbers, "second", shape, low=0, high=LARGEST_NUMBER**2)
    check_sums(np.array(patients), first, second, "second", largest=LARGEST_COVARIATE)
    return ColumnAnswer(
        ColumnSums(patients, first, second, read_counts(numbers, "withheld", shape, most=1) > 0),
        events,
        times_from_numbers(numbers, most=events),
        float(read_array(numbers, "largest-move", (), low=0, high=LONGEST_TIME_DAYS)),
    )


def times_to_numbers(times: Floats) -> Numbers:
    """The event times of all sites."""
    return {EVENT_TIMES: times.tolist()}


def times_from_numbers(numbers: Mapping[str, Any], *, most: int = LARGEST_COUNT) -> Floats:
    """Inverse of `times_to_numbers`; of whoever sends them, they must increase, at most one an event."""
    return read_times(numbers, EVENT_TIMES, most=most)


def term_to_numbers(term: CoxTerm, prefix: str) -> Numbers:
    """A model as far as a risk needs it."""
    return {
        f"{prefix}.columns": list(term.design.columns),
        f"{prefix}.means": list(term.design.means),
        f"{prefix}.scales": list(term.design.scales),
        f"{prefix}.coefficients": term.coefficients.tolist(),
    }


def term_from_numbers(numbers: Mapping[str, Any], prefix: str, experiment: Experiment) -> CoxTerm:
    """Inverse of `term_to_numbers`."""
    width = len(candidates_of(experiment.data.variables))
    shape = (len(numbers.get(f"{prefix}.columns", ())),)
    columns = read_array(numbers, f"{prefix}.columns", shape).astype(int)
    scales = read_array(numbers, f"{prefix}.scales", shape)
    if not (np.diff(columns) > 0).all() or not ((columns >= 0) & (columns < width)).all() or (scales <= 0).any():
        raise ProtocolError(f"field '{prefix}.columns' or '{prefix}.scales' is no design")
    means = read_array(numbers, f"{prefix}.means", shape)
    design = Design(tuple(columns.tolist()), tuple(means.tolist()), tuple(scales.tolist()))
    return CoxTerm(design, read_array(numbers, f"{prefix}.coefficients", shape))


def sums_to_numbers(sums: RiskSetSums, experiment: Experiment) -> Numbers:
    """Risk-set sums; those over tied events with Efron's treatment alone, as they tell most."""
    numbers: Numbers = {"events": sums.events.tolist(), "event-total": sums.event_total.tolist()}
    numbers |= _moments_to_numbers(sums.at_risk, "at-risk")
    if experiment.cox.ties == "efron":
        numbers |= _moments_to_numbers(sums.tied, "tied")
    return numbers


def sums_from_numbers(
    numbers: Mapping[str, Any], experiment: Experiment, *, times: int, columns: int, most: int = LARGEST_COUNT
) -> RiskSetSums:
    """Inverse of `sums_to_numbers`, of at most so many patients.

    Raises:
        ProtocolError: when a field is not of the agreed layout, or no patients have such sums.
    """
    nothing = Moments(np.zeros(times), np.zeros((times, columns)), np.zeros((times, columns, columns)))
    efron = experiment.cox.ties == "efron"
    sums = RiskSetSums(
        read_counts(numbers, "events", (times,), most=most),
        read_array(numbers, "event-total", (columns,)),
        _moments_from_numbers(numbers, "at-risk", times, columns),
        _moments_from_numbers(numbers, "tied", times, columns) if efron else nothing,
    )
    if sums.events.sum() > most:
        raise ProtocolError(f"field 'events' counts more than the {most} patients of the site")
    if (sums.at_risk.zeroth[sums.events > 0] == 0).any():
        raise ProtocolError("field 'at-risk.zeroth' has nobody at risk at the time of an event")
    if (sums.tied.zeroth > sums.at_risk.zeroth * (1 + ROUNDING)).any():
        raise ProtocolError("field 'tied.zeroth' holds more than field 'at-risk.zeroth'")
    return sums


def likelihood_to_numbers(likelihood: PartialLikelihood) -> Numbers:
    """A site's own partial likelihood with its derivatives."""
    return {
        "value": likelihood.value,
        "gradient": likelihood.gradient.tolist(),
        "information": _upper(likelihood.information),
    }


def likelihood_from_numbers(numbers: Mapping[str, Any], *, columns: int) -> PartialLikelihood:
    """Inverse of `likelihood_to_numbers`.

    Raises:
        ProtocolError: when a field is not of the agreed layout, or the information is that of no likelihood.
    """
    triangle = read_array(
        numbers, "information", (columns * (columns + 1) // 2,), low=-(LARGEST_NUMBER**2), high=LARGEST_NUMBER**2
    )
    information = _symmetric(triangle, columns)
    # It is a difference: what rounding leaves is small against the whole of it, not against each column's part.
    if columns and np.linalg.eigvalsh(information).min() < -ROUNDED_PRODUCTS * (1 + np.trace(information)):
        raise ProtocolError("field 'information' is that of no likelihood")
    return PartialLikelihood(
        float(read_array(numbers, "value", ())), read_array(numbers, "gradient", (columns,)), information
    )


def baseline_to_numbers(baseline: BaselineHazard) -> Numbers:
    """A site's own cumulative baseline hazard."""
    return {EVENT_TIMES: baseline.times.tolist(), "log-cumulative-hazard": baseline.log_cumulative_hazard.tolist()}


def baseline_from_numbers(numbers: Mapping[str, Any], *, most: int = LARGEST_COUNT) -> BaselineHazard:
    """Inverse of `baseline_to_numbers`, of at most so many patients."""
    times = times_from_numbers(numbers, most=most)
    return BaselineHazard(times, read_array(numbers, "log-cumulative-hazard", times.shape))


def _moments_to_numbers(moments: Moments, prefix: str) -> Numbers:
    return {
        f"{prefix}.zeroth": moments.zeroth.tolist(),
        f"{prefix}.first": moments.first.ravel().tolist(),
        f"{prefix}.second": _upper(moments.second),
    }


def _moments_from_numbers(numbers: Mapping[str, Any], prefix: str, times: int, columns: int) -> Moments:
    zeroth = read_array(numbers, f"{prefix}.zeroth", (times,), low=0, high=LARGEST_HAZARD)
    first, triangles = (
        read_array(numbers, f"{prefix}.{name}", (times, size), low=-LARGEST_HAZARD, high=LARGEST_HAZARD)
        for name, size in (("first", columns), ("second", columns * (columns + 1) // 2))
    )
    second = _symmetric(triangles, columns)
    if (np.diagonal(second, axis1=1, axis2=2) > zeroth[:, None] * LARGEST_COVARIATE**2 * (1 + ROUNDING)).any():
        raise ProtocolError(f"field '{prefix}.second' holds too large a sum for field '{prefix}.zeroth'")
    products = np.zeros((times, 1 + columns, 1 + columns))
    products[:, 0, 0], products[:, 0, 1:], products[:, 1:, 0], products[:, 1:, 1:] = zeroth, first, first, second
    _check_products(products, f"{prefix}.second")
    return Moments(zeroth, first, second)


def _check_products(matrices: Floats, key: str) -> None:
    """Whether symmetric matrices can be sums of weighted products: none of their eigenvalues is negative.

    Raises:
        ProtocolError: naming the field, when one is.
    """
    diagonal = np.diagonal(matrices, axis1=-2, axis2=-1)
    if (diagonal < 0).any():
        raise ProtocolError(f"field '{key}' holds a negative sum of squares")
    # As correlations: what is left does not depend on the sizes. Of the square roots, as a product could overflow.
    root = np.where(diagonal > 0, np.sqrt(diagonal), 1.0)
    if (np.linalg.eigvalsh(matrices / root[..., None] / root[..., None, :]) < -ROUNDED_PRODUCTS).any():
        raise ProtocolError(f"field '{key}' holds sums of squares and products that no patients have")


def _upper(matrices: Floats) -> list[float]:
    """The upper triangles of symmetric matrices."""
    rows, columns = np.triu_indices(matrices.shape[-1])
    return matrices[..., rows, columns].ravel().tolist()


def _symmetric(triangles: Floats, size: int) -> Floats:
    """Inverse of `_upper`, with the triangles along the last axis."""
    rows, columns = np.triu_indices(size)
    matrices = np.zeros((*triangles.shape[:-1], size, size))
    matrices[..., rows, columns] = triangles
    matrices[..., columns, rows] = triangles
    return matrices
