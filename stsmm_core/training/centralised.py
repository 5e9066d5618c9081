"""Centralised training: all patients in one place."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stsmm_core.cohort.clinical import ClinicalEncoding, fit_encoding
from stsmm_core.cohort.splits import Fold, Rows
from stsmm_core.model.mmnn import Weights
from stsmm_core.training.blending import BlendingState
from stsmm_core.training.centre import Centre
from stsmm_core.training.experiment import Memory, blend
from stsmm_core.training.fitted import FittedNetwork, describe_fit
from stsmm_core.training.rounds import LEAST_SELECTING_EVENTS, RoundLosses
from stsmm_core.training.site_data import agreed_channels, pool, pool_folds
from stsmm_core.training.state import SiteState
from stsmm_core.training.trainer import Trainer


class Centralised:
    """A consortium whose patients lie in one place and train as one set, whatever their site.

    Folds are drawn within each site, as in a federation, so that both test on the same patients.
    """

    def __init__(self, centres: Sequence[Centre], folder: Path) -> None:
        self._centres = centres
        self._folder = folder
        self._data = pool([centre.data for centre in centres])
        self._channels = agreed_channels({centre.site: centre.describe().channels for centre in centres})
        self._trainer: Trainer | None = None
        self._encoding: ClinicalEncoding | None = None
        self._fold = 0
        self._selecting = np.empty(0, dtype=np.intp)

    @property
    def channels(self) -> int:
        """Image channels of the run."""
        return len(self._channels)

    def begin_fold(self, fold: int, encoding: ClinicalEncoding | None) -> ClinicalEncoding:
        """Start a fold: its encoding and its trainer on the pooled patients."""
        experiment = self._centres[0].experiment
        summary = reduce(add, (centre.summarise_training(fold) for centre in self._centres))
        self._fold = fold
        self._encoding = encoding or fit_encoding(summary, experiment.data.variables)
        self._trainer = Trainer(
            experiment,
            self._data,
            self._pooled_fold(fold),
            self._encoding,
            channels=self.channels,
            state=SiteState(self._folder, fold),
        )
        self._selecting = self._with_images(self._pooled_fold(fold).validation)
        return self._encoding

    def train(self, round_number: int, weights: Weights, blending: BlendingState) -> Weights:
        """One round on the pooled training set."""
        assert self._trainer is not None
        return self._trainer.train_round(round_number, weights, blending.weights).weights

    def evaluate(
        self, round_number: int, weights: Weights, blending: BlendingState
    ) -> tuple[RoundLosses, BlendingState]:
        """Losses of the pooled sets, and the blending weights that follow."""
        assert self._trainer is not None
        losses = self._trainer.losses(round_number, weights)
        if len(self._selecting):
            losses = replace(losses, selecting=self._trainer.loss_sums_of(weights, self._selecting))
        return losses, blend(blending, losses, self._centres[0].experiment)

    @property
    def memory(self) -> Memory:
        """Nothing: one place combines nothing."""
        return {}

    def remember(self, memory: Memory) -> None:
        """Nothing to remember."""

    def predict(self, selected_round: int, weights: Weights) -> None:  # noqa: ARG002 - the weights are all there is
        """Keep the risks of each centre's test patients with that centre."""
        assert self._encoding is not None
        for centre in self._centres:
            trainer = centre.trainer(self._fold, self._encoding, channels=self.channels)
            centre.keep_predictions(self._fold, trainer, weights)

    def risks(self, weights: Weights) -> NDArray[np.float64]:
        """Log hazards of the fusion head for all pooled patients, relative to the training patients' mean.

        Returns:
            Shape (patients, endpoints); 0, the mean, for a patient who lacks every modality of the network.
        """
        assert self._trainer is not None
        everyone = np.arange(len(self._data.patients))
        return np.nan_to_num(self._trainer.risks(weights, everyone)[0])

    def describe_fit(self, weights: Weights) -> FittedNetwork:
        """What the weights need beside them to predict new patients."""
        assert self._trainer is not None
        return describe_fit(
            self._trainer,
            weights,
            self._data,
            self._pooled_fold(self._fold),
            self._centres[0].experiment,
            channels=self._channels,
            summary=reduce(add, (centre.summarise_training(self._fold) for centre in self._centres)),
        )

    def _with_images(self, rows: Rows) -> Rows:
        """Those of the rows whose sites have images, to select a round; none where all do, or with few events."""
        sites = [np.full(len(centre.data.patients), centre.data.has_image.any()) for centre in self._centres]
        chosen = rows[np.concatenate(sites)[rows]]
        few = np.nansum(self._data.outcomes.event[chosen]) < LEAST_SELECTING_EVENTS
        return chosen[:0] if few or len(chosen) == len(rows) else chosen

    def _pooled_fold(self, fold: int) -> Fold:
        return pool_folds([centre.data for centre in self._centres], [centre.folds[fold] for centre in self._centres])
