"""A centre at work: its patients, their folds, and what it may say of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stsmm_core.cohort.clinical import ClinicalEncoding, ClinicalSummary, summarise
from stsmm_core.cohort.cohort import Cohort
from stsmm_core.cohort.splits import Fold, make_folds
from stsmm_core.config import Experiment
from stsmm_core.model.mmnn import Weights
from stsmm_core.seeds import generator
from stsmm_core.survival.concordance import PairCounts, count_pairs
from stsmm_core.training.site_data import SiteData
from stsmm_core.training.state import SiteState, load_predictions, save_predictions
from stsmm_core.training.trainer import Trainer


@dataclass(frozen=True)
class SiteDescription:
    """What a site says of its cohort: counts and sums, no row. None stands for a count it withholds.

    Attributes:
        events: events an endpoint of the experiment.
        with_image: patients that have the image modality.
        summary: of all patients' variables (for the cohort table, never for training).
    """

    site: str
    channels: tuple[str, ...]
    patients: int | None
    events: dict[str, int | None]
    with_image: int | None
    summary: ClinicalSummary

    def suppressed(self, minimum: int) -> "SiteDescription":
        """The same without counts from 1 to `minimum` - 1."""

        def shown(count: int | None) -> int | None:
            return None if count is not None and 0 < count < minimum else count

        return SiteDescription(
            self.site,
            self.channels,
            shown(self.patients),
            {endpoint: shown(count) for endpoint, count in self.events.items()},
            shown(self.with_image),
            self.summary.suppressed(minimum),
        )

    def to_table(self) -> dict[str, Any]:
        """A column of the cohort table."""
        return {
            "site": self.site,
            "patients": self.patients,
            "events": self.events,
            "with_image": self.with_image,
            "variables": self.summary.to_table(),
        }


@dataclass(frozen=True)
class Centre:
    """One centre of an experiment.

    Attributes:
        folder: the centre's own folder, for state and predictions; it holds patient identifiers and stays here.
        salt: seeds the bootstrap of the centre's test patients. It is the centre's own: someone who knows which
            patients each replicate drew could solve the replicates for single patients.
    """

    experiment: Experiment
    cohort: Cohort
    data: SiteData
    folds: tuple[Fold, ...]
    folder: Path
    salt: int

    @property
    def site(self) -> str:
        """Name of the site."""
        return self.cohort.manifest.site

    def describe(self) -> SiteDescription:
        """Counts and sums of the whole cohort."""
        endpoints = self.experiment.data.endpoints
        return SiteDescription(
            self.site,
            self.cohort.manifest.channels if self.data.channels else (),
            len(self.data.patients),
            {name: int(count) for name, count in zip(endpoints, self.data.outcomes.events(), strict=True)},
            int(self.data.has_image.sum()),
            summarise(self.data.clinical, self.experiment.data.variables),
        )

    def summarise_training(self, fold: int) -> ClinicalSummary:
        """Sums of the clinical variables over the fold's training patients, for the encoding."""
        return summarise(self.data.clinical.iloc[self.folds[fold].train], self.experiment.data.variables)

    def trainer(self, fold: int, encoding: ClinicalEncoding, *, channels: int) -> Trainer:
        """The trainer of one fold."""
        state = SiteState(self.folder / "state", fold)
        return Trainer(self.experiment, self.data, self.folds[fold], encoding, channels=channels, state=state)

    def keep_predictions(self, fold: int, trainer: Trainer, weights: Weights) -> None:
        """Predict the fold's test patients and keep their risks in the centre's folder."""
        save_predictions(
            self.folder,
            fold,
            trainer.test_risks(weights),
            patients=[self.data.patients[row] for row in self.folds[fold].test],
            heads=self.experiment.heads,
            endpoints=self.experiment.data.endpoints,
        )

    def count_pairs(self) -> list[list[PairCounts]]:
        """Concordance counts of all tested patients of this centre, [head][endpoint].

        The heads see the same bootstrap samples, so that they can be compared.
        """
        risks = load_predictions(
            self.folder,
            len(self.folds),
            patients=self.data.patients,
            heads=self.experiment.heads,
            endpoints=self.experiment.data.endpoints,
        )
        return [self._count_pairs(head) for head in risks]

    def count_oracle_pairs(self, risks: np.ndarray) -> list[PairCounts]:
        """Concordance counts of given risks, shape (patients, endpoints), on the tested patients, [endpoint]."""
        tested = np.full(risks.shape, np.nan)
        rows = np.unique(np.concatenate([fold.test for fold in self.folds]))
        tested[rows] = risks[rows]
        return self._count_pairs(tested)

    def _count_pairs(self, risks: np.ndarray) -> list[PairCounts]:
        counts = []
        for endpoint, risk in enumerate(risks.T):
            rows = np.isfinite(risk)
            counts.append(
                count_pairs(
                    risk[rows],
                    time=self.data.outcomes.time[rows, endpoint],
                    event=self.data.outcomes.event[rows, endpoint],
                    replicates=self.experiment.evaluation.bootstrap_replicates,
                    rng=generator(self.salt, "bootstrap", endpoint),
                )
            )
        return counts


def open_centre(experiment: Experiment, cohort: Cohort, data: SiteData, *, folder: Path, salt: int) -> Centre:
    """Divide a centre's patients into the experiment's folds."""
    folds = make_folds(cohort, experiment.evaluation, endpoints=experiment.data.endpoints, seed=experiment.seed)
    return Centre(experiment, cohort, data, folds, folder, salt)
