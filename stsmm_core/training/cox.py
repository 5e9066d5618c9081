"""The course of a Cox regression, the same for patients in one place and for a federation of sites."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.cohort.covariates import ColumnSums, Design, choose_design, references_of
from stsmm_core.cohort.dictionary import ENDPOINTS
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.survival.baseline import BaselineHazard
from stsmm_core.survival.cox_newton import CoxFit, maximise
from stsmm_core.survival.risk_set_sums import Floats, PartialLikelihood, RiskSetSums
from stsmm_core.training.cox_site import CoxTerm


@dataclass(frozen=True, eq=False)
class ColumnAnswer:
    """What sites say of the patients of one endpoint before a model is fitted; adds up over sites.

    Attributes:
        event_times: distinct times of events, increasing.
        largest_move_days: how far a time was moved at most to make it shareable.
    """

    sums: ColumnSums
    events: int
    event_times: Floats
    largest_move_days: float

    def __add__(self, other: "ColumnAnswer") -> "ColumnAnswer":
        return ColumnAnswer(
            self.sums + other.sums,
            self.events + other.events,
            np.union1d(self.event_times, other.event_times),
            max(self.largest_move_days, other.largest_move_days),
        )


class SitesChanged(RunError):  # noqa: N818 - what happened to a fit, which begins again
    """A site did not answer a question of a fit that it began: its sums are missing from the likelihood."""


class CoxSites(Protocol):
    """The sites of a Cox regression, wherever they are. Endpoints are numbered as in the experiment.

    Each question may raise `SitesChanged`; the site that did not answer then takes no further part.
    """

    def begin_fold(self, fold: int) -> ClinicalEncoding:
        """Find out who takes part, and agree on the encoding."""
        ...

    def columns(self, fold: int, endpoint: int) -> ColumnAnswer:
        """What all sites together say of their patients, at the start of a fit."""
        ...

    def sums(self, fold: int, endpoint: int, term: CoxTerm, times: Floats) -> RiskSetSums:
        """Risk-set sums of all sites at the event times."""
        ...

    def likelihood(self, fold: int, endpoint: int, term: CoxTerm) -> PartialLikelihood:
        """The sum of the sites' own partial likelihoods."""
        ...

    def baselines(self, fold: int, endpoint: int, term: CoxTerm) -> Mapping[str, BaselineHazard]:
        """Each site's own baseline hazard."""
        ...

    def keep_risks(self, fold: int, terms: Mapping[str, CoxTerm]) -> None:
        """Let every site keep the risks of its test patients."""
        ...


@dataclass(frozen=True, eq=False)
class CoxModel:
    """A fitted model of one endpoint.

    Attributes:
        references: levels that a category's hazard ratios are against, "" for a missing value.
        baselines: of the pooled patients ("pooled"), or each site's own where the model is stratified.
        patients, events: that it was fitted to.
        largest_move_days: how far a time was moved at most to make it shareable.
    """

    design: Design
    references: Mapping[str, tuple[str, ...]]
    fit: CoxFit
    baselines: Mapping[str, BaselineHazard]
    patients: int
    events: int
    largest_move_days: float

    @property
    def term(self) -> CoxTerm:
        """What a risk needs."""
        return CoxTerm(self.design, self.fit.coefficients)


@dataclass(frozen=True, eq=False)
class CoxFold:
    """The models of one fold, by endpoint; `seconds` that they took."""

    models: Mapping[str, CoxModel]
    seconds: float

    @property
    def rounds(self) -> int:
        """Rounds of the longest fit."""
        return max(model.fit.rounds for model in self.models.values())

    @property
    def selected_round(self) -> int:
        """The last: a fit has converged."""
        return self.rounds

    @property
    def first_blending_round(self) -> None:
        """There are no heads to blend."""
        return None


@dataclass(frozen=True, eq=False)
class FinalCox:
    """The models of all patients, by endpoint, with the encoding that their columns come from."""

    models: Mapping[str, CoxModel]
    encoding: ClinicalEncoding


def run_cox_fold(sites: CoxSites, experiment: Experiment, fold: int) -> CoxFold:
    """Fit one fold's models and let the sites keep the risks of its test patients.

    Raises:
        RunError: when a model cannot be fitted, with its endpoint and what to do.
    """
    started = time.monotonic()
    sites.begin_fold(fold)
    models = _fit_all(sites, experiment, fold)
    sites.keep_risks(fold, {endpoint: model.term for endpoint, model in models.items()})
    return CoxFold(models, time.monotonic() - started)


def run_final_cox(sites: CoxSites, experiment: Experiment) -> FinalCox:
    """Fit the models of all patients, training, validation and test: those that are reported and could be used.

    Raises:
        RunError: as `run_cox_fold`.
    """
    encoding = sites.begin_fold(experiment.evaluation.runs - 1)
    return FinalCox(_fit_all(sites, experiment, experiment.evaluation.runs), encoding)


def _fit_all(sites: CoxSites, experiment: Experiment, fold: int) -> dict[str, CoxModel]:
    models: dict[str, CoxModel] = {}
    for number, endpoint in enumerate(experiment.data.endpoints):
        try:
            models[endpoint] = _fit_with_who_stays(sites, experiment, fold, number)
        except RunError as error:
            which = "final model" if fold == experiment.evaluation.runs else f"model {fold + 1}"
            raise RunError(f"{which}, {ENDPOINTS[endpoint]}: {error}") from error
    return models


def _fit_with_who_stays(sites: CoxSites, experiment: Experiment, fold: int, endpoint: int) -> CoxModel:
    """Begin again without a site that stops answering: `columns` ends it when too few are left."""
    while True:
        try:
            return _fit(sites, experiment, fold, endpoint)
        except SitesChanged:
            continue


def _fit(sites: CoxSites, experiment: Experiment, fold: int, endpoint: int) -> CoxModel:
    answer = sites.columns(fold, endpoint)
    design = choose_design(answer.sums, experiment.data.variables)
    if not design.columns:
        raise RunError("no clinical variable varies among the patients, or every one is withheld by a site")

    def likelihood(coefficients: Floats) -> PartialLikelihood:
        term = CoxTerm(design, coefficients)
        if experiment.cox.stratified:
            return sites.likelihood(fold, endpoint, term)
        return sites.sums(fold, endpoint, term, answer.event_times).likelihood(coefficients)

    fit = maximise(likelihood, len(design.columns), ridge=experiment.cox.ridge)
    term = CoxTerm(design, fit.coefficients)
    return CoxModel(
        design,
        references_of(answer.sums, design, experiment.data.variables),
        fit,
        _baselines(sites, experiment, fold, endpoint, term, answer.event_times),
        answer.sums.patients,
        answer.events,
        answer.largest_move_days,
    )


def _baselines(
    sites: CoxSites, experiment: Experiment, fold: int, endpoint: int, term: CoxTerm, times: Floats
) -> Mapping[str, BaselineHazard]:
    if experiment.cox.stratified:
        return sites.baselines(fold, endpoint, term)
    return {"pooled": sites.sums(fold, endpoint, term, times).baseline(times)}
