"""An exact Cox regression: the questions of the server and the sums that come back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stsmm_core.cohort.covariates import ColumnSums, Design, candidates_of
from stsmm_core.config import Experiment
from stsmm_core.protocol.keys import Numbers, ProtocolError, read_array
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


def columns_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> ColumnAnswer:
    """Inverse of `columns_to_numbers`."""
    shape = (len(candidates_of(experiment.data.variables)),)
    return ColumnAnswer(
        ColumnSums(
            int(read_array(numbers, "patients", ())),
            read_array(numbers, "first", shape),
            read_array(numbers, "second", shape),
            read_array(numbers, "withheld", shape) > 0,
        ),
        int(read_array(numbers, "events", ())),
        times_from_numbers(numbers),
        float(read_array(numbers, "largest-move", ())),
    )


def times_to_numbers(times: Floats) -> Numbers:
    """The event times of all sites."""
    return {EVENT_TIMES: times.tolist()}


def times_from_numbers(numbers: Mapping[str, Any]) -> Floats:
    """Inverse of `times_to_numbers`; of whoever sends them, they must increase."""
    times = read_array(numbers, EVENT_TIMES, (len(numbers.get(EVENT_TIMES, ())),))
    if (np.diff(times) <= 0).any():
        raise ProtocolError(f"field '{EVENT_TIMES}' does not increase")
    return times


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


def sums_from_numbers(numbers: Mapping[str, Any], experiment: Experiment, *, times: int, columns: int) -> RiskSetSums:
    """Inverse of `sums_to_numbers`."""
    nothing = Moments(np.zeros(times), np.zeros((times, columns)), np.zeros((times, columns, columns)))
    efron = experiment.cox.ties == "efron"
    sums = RiskSetSums(
        read_array(numbers, "events", (times,)),
        read_array(numbers, "event-total", (columns,)),
        _moments_from_numbers(numbers, "at-risk", times, columns),
        _moments_from_numbers(numbers, "tied", times, columns) if efron else nothing,
    )
    if (sums.events < 0).any() or (sums.at_risk.zeroth < 0).any() or (np.rint(sums.events) != sums.events).any():
        raise ProtocolError("a count of events or a sum of hazards is none")
    return sums


def likelihood_to_numbers(likelihood: PartialLikelihood) -> Numbers:
    """A site's own partial likelihood with its derivatives."""
    return {
        "value": likelihood.value,
        "gradient": likelihood.gradient.tolist(),
        "information": _upper(likelihood.information),
    }


def likelihood_from_numbers(numbers: Mapping[str, Any], *, columns: int) -> PartialLikelihood:
    """Inverse of `likelihood_to_numbers`."""
    return PartialLikelihood(
        float(read_array(numbers, "value", ())),
        read_array(numbers, "gradient", (columns,)),
        _symmetric(read_array(numbers, "information", (columns * (columns + 1) // 2,)), columns),
    )


def baseline_to_numbers(baseline: BaselineHazard) -> Numbers:
    """A site's own cumulative baseline hazard."""
    return {EVENT_TIMES: baseline.times.tolist(), "log-cumulative-hazard": baseline.log_cumulative_hazard.tolist()}


def baseline_from_numbers(numbers: Mapping[str, Any]) -> BaselineHazard:
    """Inverse of `baseline_to_numbers`."""
    times = times_from_numbers(numbers)
    return BaselineHazard(times, read_array(numbers, "log-cumulative-hazard", times.shape))


def _moments_to_numbers(moments: Moments, prefix: str) -> Numbers:
    return {
        f"{prefix}.zeroth": moments.zeroth.tolist(),
        f"{prefix}.first": moments.first.ravel().tolist(),
        f"{prefix}.second": _upper(moments.second),
    }


def _moments_from_numbers(numbers: Mapping[str, Any], prefix: str, times: int, columns: int) -> Moments:
    return Moments(
        read_array(numbers, f"{prefix}.zeroth", (times,)),
        read_array(numbers, f"{prefix}.first", (times, columns)),
        _symmetric(read_array(numbers, f"{prefix}.second", (times, columns * (columns + 1) // 2)), columns),
    )


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
