"""The trainer: what a centre does in a round, whether it is alone, virtual or a hospital."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.cohort.splits import Fold, Rows
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.imaging.augment import augment
from stsmm_core.model.mmnn import (
    ModalityBatch,
    Weights,
    build_network,
    get_weights,
    set_weights,
)
from stsmm_core.seeds import derive_seed, generator
from stsmm_core.survival.cox_loss import cox_loss
from stsmm_core.training.device import available_device
from stsmm_core.training.losses import LossChanges, LossSums, change_of_losses, no_change, sum_losses
from stsmm_core.training.optimisation import build_optimizer, pull_back, risk_windows
from stsmm_core.training.rounds import RoundLosses, TrainedRound
from stsmm_core.training.schedule import learning_rate
from stsmm_core.training.site_data import SiteData
from stsmm_core.training.state import SiteState

DIVERGED = "training diverged: the network gives values that are not finite; lower training.learning_rate"


class Trainer:
    """Trains and evaluates one network on one fold of one site.

    Every random draw is derived from (seed, site, fold, round), and what lasts from round to round lies in the site's
    state, so a trainer can be made anew for each round.

    Args:
        channels: image channels of the run (the site itself may have none).
        state: where this site keeps what lasts between rounds.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: SiteData,
        fold: Fold,
        encoding: ClinicalEncoding,
        *,
        channels: int,
        state: SiteState,
    ) -> None:
        self._experiment = experiment
        self._data = data
        self.fold = fold
        self.state = state
        self._device = available_device(experiment.training.device)
        self.network = build_network(experiment, channels=channels, clinical_inputs=encoding.width, fold=state.fold).to(
            self._device
        )
        self._clinical = torch.from_numpy(encoding.encode(data.clinical))
        has_clinical = data.has_clinical(encoding.variables)
        modalities = {"image": data.has_image, "clinical": has_clinical}
        chosen = [modalities[name] for name in experiment.data.modalities]
        self._present = np.stack([np.any(chosen, axis=0), *chosen])

    @property
    def site(self) -> str:
        """Name of the site."""
        return self._data.site

    def train_round(
        self, round_number: int, weights: Weights, blending: tuple[float, ...], *, proximal_mu: float = 0.0
    ) -> TrainedRound:
        """Train for the experiment's local epochs, starting from the given weights.

        Args:
            round_number: from 1.
            blending: weight of each head's loss.
            proximal_mu: of the term mu / 2 |w - given weights|^2 that FedProx adds to the loss.

        Raises:
            RunError: when training diverged.
        """
        training = self._experiment.training
        rows = self.fold.train
        set_weights(self.network, weights)
        optimizer = self._optimizer(round_number)
        self.network.train()
        anchor = [parameter.detach().clone() for parameter in self.network.parameters()]
        trained_on: list[Rows] = []
        for epoch in range(training.local_epochs):
            windows = self._windows(rows, round_number, epoch)
            for number, window in enumerate(windows):
                step = ((round_number - 1) * training.local_epochs + epoch) * len(windows) + number
                # Of the steps done before: at a round's start the same at every site, however many steps each takes.
                progress = step / (training.epochs * len(windows))
                rate = learning_rate(progress, peak=training.learning_rate, schedule=training.schedule)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                if np.nansum(self._data.outcomes.event[window]) == 0:
                    continue
                trained_on.append(window)
                optimizer.zero_grad(set_to_none=True)
                self._accumulate(window, blending, (round_number, epoch, number))
                if proximal_mu:
                    pull_back(self.network.parameters(), anchor, proximal_mu)
                optimizer.step()
        trained = get_weights(self.network)
        if not all(np.isfinite(array).all() for array in trained.values()):
            raise RunError(DIVERGED)
        self.state.save_optimizer(round_number, optimizer.state_dict())
        events = int(self._data.outcomes[rows].events().sum())
        taught_by = np.concatenate([rows[:0], *trained_on])
        has = self._present[:, taught_by]
        lacks = ~has[1:]
        if self._experiment.model.modality_dropout:  # any of several modalities may have been hidden
            lacks |= has[1:].sum(axis=0) > 1
        seen, missed = (tuple(bool(row.any()) for row in part) for part in (has[1:], lacks))
        had_event = np.nan_to_num(self._data.outcomes.event[taught_by]) > 0
        taught = tuple(tuple(bool(each) for each in had_event[row].any(axis=0)) for row in has)
        return TrainedRound(trained, len(rows), events, seen, missed, taught)

    def losses(self, round_number: int, weights: Weights) -> RoundLosses:
        """Loss sums of the given weights, without dropout or augmentation, each set one risk set."""
        validation = self._outputs(weights, self.fold.validation)
        validation_sums = self.sums(validation, self.fold.validation)
        if not self._experiment.is_checkpoint(round_number):
            return RoundLosses(validation_sums)
        train = self._outputs(weights, self.fold.train)
        before = self.state.load_outputs(round_number - self._experiment.checkpoint_rounds)
        self.state.save_outputs(round_number, train, validation)
        return RoundLosses(
            validation_sums,
            self.sums(train, self.fold.train),
            self._change(before and before[1], validation, self.fold.validation, round_number),
            self._change(before and before[0], train, self.fold.train, round_number),
        )

    def loss_sums(self, weights: Weights) -> tuple[LossSums, LossSums]:
        """Loss sums of the training and of the validation set."""
        return self.loss_sums_of(weights, self.fold.train), self.loss_sums_of(weights, self.fold.validation)

    def loss_sums_of(self, weights: Weights, rows: Rows) -> LossSums:
        """Loss sums of some patients, one risk set."""
        return self.sums(self._outputs(weights, rows), rows)

    def risks(self, weights: Weights, rows: Rows) -> NDArray[np.float64]:
        """Log hazards of some patients, relative to the mean of this site's training patients.

        A Cox model's output has no origin of its own; the common reference makes the folds of a cross-validation
        comparable within a site.

        Returns:
            Shape (heads, rows, endpoints); NaN where a head has no input for the patient.
        """
        outputs = self._outputs(weights, rows)
        reference = self.mean_training_output(weights)[:, None]
        return np.where(self._present[:, rows][..., None], outputs - reference, np.nan)

    def mean_training_output(self, weights: Weights) -> NDArray[np.float64]:
        """Mean output over the training patients that each head has input for, shape (heads, endpoints)."""
        train = self._outputs(weights, self.fold.train)
        heard = self._present[:, self.fold.train][..., None]
        return (train * heard).sum(axis=1) / np.maximum(heard.sum(axis=1), 1)

    @torch.no_grad()
    def features(self, weights: Weights, rows: Rows) -> NDArray[np.float64]:
        """What the fusion head sees of some patients: the modalities' features side by side, (rows, features)."""
        set_weights(self.network, weights)
        self.network.eval()
        return (
            torch.cat([self.network.fused(self._batch(batch)) for batch in self._batches(rows)]).cpu().double().numpy()
        )

    @torch.no_grad()
    def encoded(self, weights: Weights, rows: Rows) -> dict[str, Tensor]:
        """What the heads see of some patients: the features of each modality, shape (rows, features)."""
        set_weights(self.network, weights)
        self.network.eval()
        batches = [self._batch(batch) for batch in self._batches(rows)]
        width = self._experiment.model.features
        return {
            name: torch.cat(
                [torch.zeros(0, width, device=self._device)]
                + [self.network.encode(name, batch[name]) for batch in batches]
            )
            for name in self.network.encoders
        }

    def _optimizer(self, round_number: int) -> torch.optim.Optimizer:
        """The optimiser as this site left it a round ago, so that momentum outlasts a round."""
        optimizer = build_optimizer(self._experiment.training, self.network.named_parameters())
        state = self.state.load_optimizer(round_number - 1)
        if state is not None:
            optimizer.load_state_dict(state)
        return optimizer

    def _windows(self, rows: Rows, round_number: int, epoch: int) -> list[Rows]:
        return self.windows(rows, generator(*self._seed_parts(round_number, epoch)))

    def windows(self, rows: Rows, rng: np.random.Generator) -> list[Rows]:
        """Risk windows of an epoch, drawn by a generator."""
        has_event = np.nansum(self._data.outcomes.event[rows], axis=1) > 0
        return risk_windows(rows, has_event, self._experiment.training.risk_window, rng)

    def _accumulate(self, window: Rows, blending: tuple[float, ...], step: tuple[int, ...]) -> None:
        """Add the gradient of a window's blended loss, with the memory of one batch.

        The Cox loss couples all patients of the window, so its gradient with respect to the outputs needs them all; a
        second pass then carries that gradient through the network batch by batch, with the same random draws.
        """
        batches = np.array_split(window, -(-len(window) // self._experiment.training.batch_size))
        seeds = [derive_seed(*self._seed_parts(*step), number) for number in range(len(batches))]
        if len(batches) == 1:
            self.blended_loss(self._draw(batches[0], seeds[0]), window, blending).backward()
            return
        statistics = {name: value.clone() for name, value in self.network.named_buffers()}
        with torch.no_grad():
            outputs = torch.cat([self._draw(*batch) for batch in zip(batches, seeds, strict=True)], dim=1)
        for name, value in self.network.named_buffers():
            value.copy_(statistics[name])
        outputs.requires_grad_()
        self.blended_loss(outputs, window, blending).backward()
        assert outputs.grad is not None
        gradients = outputs.grad.split([len(batch) for batch in batches], dim=1)
        for batch, seed, gradient in zip(batches, seeds, gradients, strict=True):
            self._draw(batch, seed).backward(gradient)

    def _draw(self, rows: Rows, seed: int) -> Tensor:
        """Training outputs of a batch, its augmentation and dropout drawn from the seed."""
        torch.manual_seed(seed)
        batch = self._batch(rows)
        if "image" in batch:
            images = batch["image"]
            draws = torch.Generator().manual_seed(derive_seed(seed, "augmentation"))
            augmented = augment(images.values, self._experiment.imaging.augmentation, draws)
            batch["image"] = ModalityBatch(augmented, images.present)
        return _finite(self.network(batch))

    def blended_loss(self, outputs: Tensor, rows: Rows, blending: tuple[float, ...]) -> Tensor:
        """Weighted sum of the heads' losses over one risk set; outputs of shape (heads, rows, endpoints)."""
        outcomes = self._data.outcomes[rows]
        loss = outputs.sum() * 0.0
        for head, weight in enumerate(blending):
            for endpoint in range(outputs.shape[2]):
                known = self._present[head, rows] & np.isfinite(outcomes.time[:, endpoint])
                selected = torch.from_numpy(np.flatnonzero(known)).to(self._device)
                loss = loss + weight * cox_loss(
                    outputs[head, selected, endpoint],
                    time=torch.from_numpy(outcomes.time[known, endpoint]).to(self._device),
                    event=torch.from_numpy(outcomes.event[known, endpoint]).to(self._device),
                    ties=self._experiment.training.ties,
                )
        return loss

    @torch.no_grad()
    def _outputs(self, weights: Weights, rows: Rows) -> NDArray[np.float64]:
        """Log hazards in evaluation mode, shape (heads, rows, endpoints)."""
        set_weights(self.network, weights)
        self.network.eval()
        empty = np.zeros((len(self._experiment.heads), 0, len(self._experiment.data.endpoints)))
        outputs = [_finite(self.network(self._batch(batch))).cpu().double().numpy() for batch in self._batches(rows)]
        return np.concatenate([empty, *outputs], axis=1)

    def _batches(self, rows: Rows) -> list[Rows]:
        size = self._experiment.training.batch_size
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _batch(self, rows: Rows) -> dict[str, ModalityBatch]:
        values = {"image": self._data.images, "clinical": self._clinical}
        return {
            name: ModalityBatch(
                values[name][rows].to(self._device), torch.from_numpy(self._present[head, rows]).to(self._device)
            )
            for head, name in enumerate(self._experiment.data.modalities, start=1)
        }

    def sums(self, outputs: NDArray[np.float64], rows: Rows) -> LossSums:
        """Loss sums of outputs that are at hand, shape (heads, rows, endpoints)."""
        return sum_losses(
            outputs, self._data.outcomes[rows], self._present[:, rows], ties=self._experiment.training.ties
        )

    def _change(
        self, before: NDArray[np.float64] | None, after: NDArray[np.float64], rows: Rows, round_number: int
    ) -> LossChanges:
        if before is None:
            return no_change(after.shape[0], after.shape[2])
        return change_of_losses(
            before,
            after,
            self._data.outcomes[rows],
            self._present[:, rows],
            ties=self._experiment.training.ties,
            replicates=self._experiment.blending.bootstrap_replicates,
            rng=generator(*self._seed_parts(round_number), "blending"),
        )

    def _seed_parts(self, *parts: int) -> tuple[int | str, ...]:
        return (self._experiment.seed, self._data.site, self.state.fold, *parts)


def _finite(outputs: Tensor) -> Tensor:
    """The outputs, if every one of them is a number."""
    if not torch.isfinite(outputs).all():
        raise RunError(DIVERGED)
    return outputs
