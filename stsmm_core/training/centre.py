"""A centre at work: its patients, their folds, and what it may say of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stsmm_core.cohort.clinical import ClinicalEncoding, ClinicalSummary, summarise
from stsmm_core.cohort.cohort import Cohort
from stsmm_core.cohort.splits import Fold, make_folds
from stsmm_core.config import Experiment
from stsmm_core.model.mmnn import Weights
from stsmm_core.seeds import derive_seed, generator
from stsmm_core.survival.concordance import PairCounts, count_pairs
from stsmm_core.survival.estimates import draw_patients
from stsmm_core.survival.site_records import FoldRecords, SiteRecords
from stsmm_core.training.outputs import load_outputs, save_outputs
from stsmm_core.training.site_data import SiteData
from stsmm_core.training.state import SiteState, load_predictions, save_predictions
from stsmm_core.training.trainer import Trainer

SMALLEST_SALT = 2**64


def open_salt(seed: int) -> int:
    """The salt of patients that have nothing to hide from who holds the seed: they lie on the same machine."""
    return SMALLEST_SALT + seed


@dataclass(frozen=True)
class SiteDescription:
    """What a site says of its cohort: counts and sums, no row. None stands for a count it withholds.

    Attributes:
        events: events an endpoint of the experiment.
        with_image: patients that have the image modality.
        summary: of all patients' variables (for the cohort table, never for training).
        withheld: variables that the site keeps to itself; the summary has zeros there.
        image_flags: patients with each kind of oddity in their images (`imaging.flag_kinds.FLAG_KINDS`).
    """

    site: str
    channels: tuple[str, ...]
    patients: int | None
    events: dict[str, int | None]
    with_image: int | None
    summary: ClinicalSummary
    withheld: tuple[str, ...] = ()
    image_flags: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def may_have_images(self) -> bool:
        """Whether a patient has an image; also where the site names channels and withholds how many have."""
        return bool(self.channels) and self.with_image != 0

    def suppressed(self, minimum: int) -> "SiteDescription":
        """The same without counts from 1 to `minimum` - 1, and without variables that hold one.

        Nor with a count of images or of their oddities that leaves out so few patients.
        """

        def shown(count: int | None, *wholes: int | None) -> int | None:
            rests = [whole - count for whole in wholes if whole is not None and count is not None]
            return None if any(0 < part < minimum for part in (count or 0, *rests)) else count

        return SiteDescription(
            self.site,
            self.channels,
            shown(self.patients),
            {endpoint: shown(count) for endpoint, count in self.events.items()},
            shown(self.with_image, self.patients),
            self.summary.suppressed(minimum),
            self.summary.small(minimum),
            {kind: shown(count, self.with_image, self.patients) for kind, count in self.image_flags.items()},
        )

    def to_table(self) -> dict[str, Any]:
        """A column of the cohort table; a withheld figure is None."""
        variables = self.summary.to_table()
        for key in self.withheld:
            figures = variables[key]
            variables[key] = dict.fromkeys(figures)
            if "levels" in figures:
                variables[key]["levels"] = dict.fromkeys(figures["levels"])
        return {
            "site": self.site,
            "patients": self.patients,
            "events": self.events,
            "with_image": self.with_image,
            "image_flags": dict(self.image_flags),
            "variables": variables,
        }


@dataclass(frozen=True)
class Centre:
    """One centre of an experiment.

    Attributes:
        folder: the centre's own folder, for state and predictions; it holds patient identifiers and stays here.
        salt: seeds the bootstrap of the centre's test patients. It is the centre's own: someone who knows which
            patients each replicate drew could solve the replicates for single patients. At least `SMALLEST_SALT`,
            too large to be guessed.
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
            image_flags=self.data.image_flags,
        )

    def summarise_training(self, fold: int) -> ClinicalSummary:
        """Sums of the clinical variables over the fold's training patients, for the encoding."""
        return summarise(self.data.clinical.iloc[self.folds[fold].train], self.experiment.data.variables)

    def trainer(self, fold: int, encoding: ClinicalEncoding, *, channels: int) -> Trainer:
        """The trainer of one fold."""
        state = SiteState(self.folder / "state", fold)
        return Trainer(self.experiment, self.data, self.folds[fold], encoding, channels=channels, state=state)

    def keep_predictions(self, fold: int, trainer: Trainer, weights: Weights) -> None:
        """Predict the fold's patients and keep their risks in the centre's folder, for the test at the end."""
        parts = self.folds[fold]
        development = np.concatenate([parts.train, parts.validation])
        risks = trainer.risks(weights, np.concatenate([development, parts.test]))
        save_predictions(
            self.folder,
            fold,
            risks[:, len(development) :],
            patients=[self.data.patients[row] for row in parts.test],
            heads=self.experiment.heads,
            endpoints=self.experiment.data.endpoints,
        )
        outputs = risks + trainer.mean_training_output(weights)[:, None]
        save_outputs(self.folder, fold, development=outputs[:, : len(development)], test=outputs[:, len(development) :])

    def records(self) -> SiteRecords:
        """Outcomes and kept outputs of all folds, with the bootstrap samples that `count_pairs` draws."""
        folds = []
        for number, fold in enumerate(self.folds):
            development, test = load_outputs(self.folder, number)
            rows = np.concatenate([fold.train, fold.validation])
            trained = np.arange(len(rows)) < len(fold.train)
            folds.append(FoldRecords(rows, trained, development, fold.test, test))
        tested = len(np.unique(np.concatenate([fold.test for fold in self.folds])))
        replicates = self.experiment.evaluation.bootstrap_replicates
        samples = [
            draw_patients(tested, replicates, generator(self.salt, "bootstrap", self.site, endpoint))
            for endpoint in range(len(self.experiment.data.endpoints))
        ]
        outcomes, salt = self.data.outcomes, derive_seed(self.salt, "figures", self.site)
        return SiteRecords(outcomes.time, outcomes.event, tuple(folds), np.stack(samples), salt)

    def count_pairs(self) -> list[list[PairCounts]]:
        """Concordance counts of all tested patients of this centre, [head][endpoint].

        The heads see the same bootstrap samples of patients, so that they can be compared.
        """
        risks = load_predictions(
            self.folder,
            len(self.folds),
            patients=self.data.patients,
            heads=self.experiment.heads,
            endpoints=self.experiment.data.endpoints,
        )
        return [self.count_pairs_of(head) for head in risks]

    def count_pairs_of(self, risks: np.ndarray) -> list[PairCounts]:
        """Concordance counts of given risks, shape (patients, endpoints), on the tested patients, [endpoint]."""
        tested = np.unique(np.concatenate([fold.test for fold in self.folds]))
        return [
            count_pairs(
                risks[tested, endpoint],
                time=self.data.outcomes.time[tested, endpoint],
                event=self.data.outcomes.event[tested, endpoint],
                replicates=self.experiment.evaluation.bootstrap_replicates,
                rng=generator(self.salt, "bootstrap", self.site, endpoint),
            )
            for endpoint in range(risks.shape[1])
        ]


def open_centre(experiment: Experiment, cohort: Cohort, data: SiteData, *, folder: Path, salt: int) -> Centre:
    """Divide a centre's patients into the experiment's folds."""
    folds = make_folds(cohort, experiment.evaluation, endpoints=experiment.data.endpoints, seed=experiment.seed)
    return Centre(experiment, cohort, data, folds, folder, salt)
