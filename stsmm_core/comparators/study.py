"""The patients of a comparison: all cohorts as one, divided as every model sees them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stsmm_core.cohort.clinical import ClinicalEncoding, fit_encoding, summarise
from stsmm_core.cohort.splits import Fold
from stsmm_core.config import Experiment
from stsmm_core.training.centre import Centre
from stsmm_core.training.fitted import curve_times
from stsmm_core.training.inputs import patient_label
from stsmm_core.training.site_data import SiteData, agreed_channels, pool, pool_folds


@dataclass(frozen=True, eq=False)
class Study:
    """All patients, and the folds in rows of them.

    Attributes:
        data: its clinical table is indexed by `inputs.patient_label`.
        folds: one a test set; the division of the others is that of the first member of an ensemble of networks.
        channels: names of the image channels.
        sites: name of each site.
        site: number of each patient's site, shape (patients,).
        times: days at which survival curves are given.
    """

    experiment: Experiment
    data: SiteData
    folds: tuple[Fold, ...]
    channels: tuple[str, ...]
    sites: tuple[str, ...]
    site: NDArray[np.intp]
    times: NDArray[np.float64]

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Endpoints of the experiment."""
        return self.experiment.data.endpoints

    def development(self, fold: int, endpoint: int) -> NDArray[np.intp]:
        """Training and validation patients for whom the endpoint applies."""
        rows = np.concatenate([self.folds[fold].train, self.folds[fold].validation])
        return self._applies(rows, endpoint)

    def test(self, fold: int, endpoint: int) -> NDArray[np.intp]:
        """Test patients for whom the endpoint applies."""
        return self._applies(self.folds[fold].test, endpoint)

    def tested(self, endpoint: int) -> NDArray[np.intp]:
        """Patients who test some fold's model on the endpoint."""
        return np.unique(np.concatenate([self.test(fold, endpoint) for fold in range(len(self.folds))]))

    def strata(self, fold: int, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Test fold and site of some patients as one number: only within it are patients compared."""
        return fold * len(self.sites) + self.site[rows]

    def encoding(self, fold: int) -> ClinicalEncoding:
        """Of the experiment's variables, from the fold's training patients alone."""
        variables = self.experiment.data.variables
        return fit_encoding(summarise(self.data.clinical.iloc[self.folds[fold].train], variables), variables)

    def _applies(self, rows: NDArray[np.intp], endpoint: int) -> NDArray[np.intp]:
        return rows[np.isfinite(self.data.outcomes.time[rows, endpoint])]


def pool_study(centres: Sequence[Centre]) -> Study:
    """All patients of some centres as one study; folds were drawn within each centre."""
    experiment = centres[0].experiment
    first_members = range(0, experiment.evaluation.runs, experiment.evaluation.members)
    sites = [centre.data for centre in centres]
    pooled = pool(sites)
    labels = [patient_label(site.site, patient) for site in sites for patient in site.patients]
    return Study(
        experiment,
        replace(pooled, clinical=pooled.clinical.set_axis(labels, axis="index")),
        tuple(pool_folds(sites, [centre.folds[fold] for centre in centres]) for fold in first_members),
        agreed_channels({centre.site: centre.describe().channels for centre in centres}),
        tuple(centre.site for centre in centres),
        np.repeat(np.arange(len(sites)), [len(site.patients) for site in sites]),
        curve_times(experiment.evaluation.horizons_years),
    )
