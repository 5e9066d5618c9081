"""Cox regression with the patients of all centres in one place."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np

from stsmm_core.cohort.clinical import ClinicalEncoding, fit_encoding
from stsmm_core.cohort.covariates import sum_columns
from stsmm_core.survival.baseline import BaselineHazard
from stsmm_core.survival.risk_set_sums import Floats, PartialLikelihood, RiskSetSums
from stsmm_core.training.centre import Centre
from stsmm_core.training.cox import ColumnAnswer
from stsmm_core.training.cox_site import (
    CoxPatients,
    CoxTerm,
    cox_patients,
    keep_risks,
    own_baseline,
    own_likelihood,
    risk_set_sums,
)


class CentralisedCox:
    """One site that has the patients of all centres (`training.cox.CoxSites`).

    Folds are drawn within each centre, as in a federation. Centres are strata where the model is stratified.
    """

    def __init__(self, centres: Sequence[Centre]) -> None:
        self._centres = centres
        self._experiment = centres[0].experiment
        self._encoding: ClinicalEncoding | None = None

    def begin_fold(self, fold: int) -> ClinicalEncoding:
        """Fit the encoding to the training patients of all centres."""
        summary = reduce(add, (centre.summarise_training(fold) for centre in self._centres))
        self._encoding = fit_encoding(summary, self._experiment.data.variables)
        return self._encoding

    def columns(self, fold: int, endpoint: int) -> ColumnAnswer:
        """Sums over all patients."""
        patients = self._pooled(fold, endpoint)
        sums = sum_columns(patients.candidates, self._experiment.data.variables, minimum=1)
        return ColumnAnswer(sums, int(patients.event.sum()), patients.event_times, patients.largest_move_days)

    def sums(self, fold: int, endpoint: int, term: CoxTerm, times: Floats) -> RiskSetSums:
        """Risk-set sums of all patients."""
        return risk_set_sums(self._pooled(fold, endpoint), term, times, ties=self._experiment.cox.ties)

    def likelihood(self, fold: int, endpoint: int, term: CoxTerm) -> PartialLikelihood:
        """The sum of the centres' own partial likelihoods."""
        ties = self._experiment.cox.ties
        return reduce(
            add, (own_likelihood(patients, term, ties=ties) for patients in self._by_centre(fold, endpoint).values())
        )

    def baselines(self, fold: int, endpoint: int, term: CoxTerm) -> Mapping[str, BaselineHazard]:
        """Each centre's own baseline hazard."""
        ties = self._experiment.cox.ties
        return {
            site: own_baseline(patients, term, ties=ties) for site, patients in self._by_centre(fold, endpoint).items()
        }

    def keep_risks(self, fold: int, terms: Mapping[str, CoxTerm]) -> None:
        """Keep the risks of each centre's test patients with that centre."""
        assert self._encoding is not None
        for centre in self._centres:
            keep_risks(centre, fold, self._encoding, terms)

    def _by_centre(self, fold: int, endpoint: int) -> dict[str, CoxPatients]:
        assert self._encoding is not None
        return {
            centre.site: cox_patients(centre, fold, self._encoding, endpoint, minimum=1) for centre in self._centres
        }

    def _pooled(self, fold: int, endpoint: int) -> CoxPatients:
        every = list(self._by_centre(fold, endpoint).values())
        return CoxPatients(
            np.concatenate([patients.candidates for patients in every]),
            np.concatenate([patients.time for patients in every]),
            np.concatenate([patients.event for patients in every]),
            0.0,
        )
