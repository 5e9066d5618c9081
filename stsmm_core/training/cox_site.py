"""A centre's part in an exact Cox regression: what it says of its patients, and what it keeps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.cohort.covariates import Design, candidate_values
from stsmm_core.cohort.splits import Rows
from stsmm_core.survival.baseline import BaselineHazard
from stsmm_core.survival.risk_set_sums import PartialLikelihood, RiskSetSums, Ties, sum_risk_sets
from stsmm_core.survival.time_counts import largest_move
from stsmm_core.survival.time_grid import shareable_times
from stsmm_core.training.centre import Centre
from stsmm_core.training.outputs import save_outputs
from stsmm_core.training.state import save_predictions

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CoxPatients:
    """Patients that one endpoint's model is fitted to.

    Attributes:
        candidates: candidate columns, shape (patients, candidates).
        time: days, moved to be shareable, shape (patients,).
        event: 1.0 or 0.0, shape (patients,).
        largest_move_days: how far a time was moved at most.
    """

    candidates: Floats
    time: Floats
    event: Floats
    largest_move_days: float

    @property
    def event_times(self) -> Floats:
        """Distinct times of events, increasing."""
        return np.unique(self.time[self.event > 0])


@dataclass(frozen=True, eq=False)
class CoxTerm:
    """A Cox model as far as a risk needs it: a design and a coefficient a column."""

    design: Design
    coefficients: Floats

    def risk(self, candidates: Floats) -> Floats:
        """Log hazard relative to the mean of the patients that the design was chosen on, shape (patients,)."""
        return self.design.covariates(candidates) @ self.coefficients


def cox_patients(centre: Centre, fold: int, encoding: ClinicalEncoding, endpoint: int, *, minimum: int) -> CoxPatients:
    """A centre's training and validation patients of a fold whose outcome is known.

    Cox regression has no epoch to select, so that the validation patients train too.

    Raises:
        ValueError: when they are fewer than the minimum (but some).
    """
    rows = development_rows(centre, fold)
    outcomes = centre.data.outcomes[rows]
    known = np.isfinite(outcomes.time[:, endpoint])
    time = outcomes.time[known, endpoint]
    moved = shareable_times(time, minimum=minimum)
    return CoxPatients(
        candidate_values(encoding, centre.data.clinical.iloc[rows[known]]),
        moved,
        outcomes.event[known, endpoint],
        largest_move(time, moved),
    )


def development_rows(centre: Centre, fold: int) -> Rows:
    """Rows that a model is fitted to; after the last fold comes the final model, of everybody."""
    if fold == len(centre.folds):
        return np.arange(len(centre.data.patients))
    return np.sort(np.concatenate([centre.folds[fold].train, centre.folds[fold].validation]))


def risk_set_sums(patients: CoxPatients, term: CoxTerm, times: Floats, *, ties: Ties) -> RiskSetSums:
    """Sums of these patients at the event times of all sites."""
    return sum_risk_sets(
        term.design.covariates(patients.candidates),
        time=patients.time,
        event=patients.event,
        coefficients=term.coefficients,
        times=times,
        ties=ties,
    )


def own_likelihood(patients: CoxPatients, term: CoxTerm, *, ties: Ties) -> PartialLikelihood:
    """The partial likelihood of these patients among themselves, a stratum of the site-stratified model."""
    return risk_set_sums(patients, term, patients.event_times, ties=ties).likelihood(term.coefficients)


def own_baseline(patients: CoxPatients, term: CoxTerm, *, ties: Ties) -> BaselineHazard:
    """The baseline hazard of these patients alone."""
    return risk_set_sums(patients, term, patients.event_times, ties=ties).baseline(patients.event_times)


def keep_risks(centre: Centre, fold: int, encoding: ClinicalEncoding, terms: Mapping[str, CoxTerm]) -> int:
    """Keep the risks of a fold's patients in the centre's folder, and say how many were tested.

    Args:
        terms: a model an endpoint.
    """
    parts, endpoints = centre.folds[fold], centre.experiment.data.endpoints

    def risks(rows: Rows) -> Floats:
        candidates = candidate_values(encoding, centre.data.clinical.iloc[rows])
        return np.stack([terms[endpoint].risk(candidates) for endpoint in endpoints], axis=1)[None]

    rows = parts.test
    tested = risks(rows)
    save_outputs(centre.folder, fold, development=risks(np.concatenate([parts.train, parts.validation])), test=tested)
    save_predictions(
        centre.folder,
        fold,
        tested,
        patients=[centre.data.patients[row] for row in rows],
        heads=centre.experiment.heads,
        endpoints=endpoints,
    )
    return len(rows)
