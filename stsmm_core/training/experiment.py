"""The course of an experiment, the same for one centre and for a federation of them."""

import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.files import write_atomically
from stsmm_core.model.mmnn import Weights, build_network, get_weights
from stsmm_core.model.pretrained import load_pretrained
from stsmm_core.run_folder import HISTORY_COLUMNS, SITE_BLENDING_COLUMNS
from stsmm_core.training.blending import BlendingState, Interval, start_blending
from stsmm_core.training.rounds import RoundLosses

HistoryRow = dict[str, Any]
Memory = Mapping[str, NDArray[Any]]


class Consortium(Protocol):
    """The centres that train together, wherever they are. One fold at a time."""

    def begin_fold(self, fold: int, encoding: ClinicalEncoding | None) -> ClinicalEncoding:
        """Find out who takes part, and agree on the encoding of the clinical variables.

        It is fitted to the training patients of all centres, once: a run that is resumed gives the one it began with.
        """
        ...

    def train(self, round_number: int, weights: Weights, blending: BlendingState) -> Weights:
        """One round of training at every centre; the combined weights."""
        ...

    def evaluate(
        self, round_number: int, weights: Weights, blending: BlendingState
    ) -> tuple[RoundLosses, BlendingState]:
        """Loss sums over all centres, and the blending weights that follow from them."""
        ...

    def predict(self, selected_round: int, weights: Weights) -> None:
        """Let every centre keep the risks of its test patients, by the weights of the selected round."""
        ...

    @property
    def memory(self) -> Memory:
        """What whoever combines the weights carries from round to round, such as a server's momentum."""
        ...

    def remember(self, memory: Memory) -> None:
        """Go on from an earlier `memory` of this fold; empty at its start."""
        ...

    @property
    def channels(self) -> int:
        """Image channels of the run."""
        ...


@dataclass(frozen=True)
class Progress:
    """A fold's state after a round: enough to go on from there.

    Attributes:
        selected: weights of the lowest unweighted fusion validation loss so far (of the sites with images, if any).
        selected_loss: that loss; infinite while no round could be compared.
        validation_events: most events that this loss has rested on, those of all these sites.
        encoding: of the clinical variables; the weights mean nothing without it.
        first_blending_round: round whose checkpoint first changed the blending weights.
        seconds: time spent so far, over all starts of the command.
        site_history: blending weights of each site at the checkpoints, in scopes `site` and `mean`.
        memory: of the consortium.
    """

    round: int
    weights: Weights
    blending: BlendingState
    encoding: ClinicalEncoding
    selected: Weights
    selected_round: int = 0
    selected_loss: float = float("inf")
    validation_events: float = 0.0
    first_blending_round: int | None = None
    seconds: float = 0.0
    history: tuple[HistoryRow, ...] = field(default=())
    site_history: tuple[HistoryRow, ...] = field(default=())
    memory: Memory = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """Rounds trained so far."""
        return self.round

    def after(
        self,
        round_number: int,
        weights: Weights,
        losses: RoundLosses,
        blending: BlendingState,
        *,
        experiment: Experiment,
        fold: int,
    ) -> "Progress":
        """The state after a round's training and evaluation.

        Losses of different patients do not compare: a round that a site with validation events missed is not selected.
        Where no round compares (no pair of patients to rank, or a site always missing) the last one is taken.
        """
        selecting = losses.selecting or losses.validation
        loss = float(selecting.per_event()[0])
        events = float(selecting.events[0].sum())
        everyone = max(events, self.validation_events)
        best = self.selected_loss if everyone == self.validation_events else float("inf")
        comparable = events == everyone and loss > 0  # it is 0 where no event has anybody else at risk
        better = round_number > 0 and (loss < best if comparable else not np.isfinite(best))
        updated = blending.updates > self.blending.updates
        return replace(
            self,
            round=round_number,
            weights=weights,
            blending=blending,
            selected=weights if better else self.selected,
            selected_round=round_number if better else self.selected_round,
            selected_loss=loss if better and comparable else best,
            validation_events=everyone,
            first_blending_round=round_number
            if updated and self.first_blending_round is None
            else self.first_blending_round,
            history=(*self.history, *_history_rows(round_number, losses, blending, experiment, fold)),
            site_history=(*self.site_history, *_site_rows(round_number, losses, blending, experiment, fold)),
        )


def blend(blending: BlendingState, losses: RoundLosses, experiment: Experiment) -> BlendingState:
    """Update the blending weights from the sums of all centres (scope `global`)."""
    if losses.train_change is None or losses.validation_change is None:
        return blending
    if not losses.validation_change.events.any():
        return blending
    interval = Interval.from_changes(
        losses.train_change.per_event(),
        losses.validation_change.per_event(),
        losses.train_change.variance(),
        losses.validation_change.variance(),
    )
    return blending.after(interval, experiment.blending)


def run_fold(
    consortium: Consortium,
    experiment: Experiment,
    fold: int,
    *,
    checkpoints: Path,
    report: Callable[[Progress], None],
) -> Progress:
    """Train one fold to the end, from its last checkpoint if there is one, and let the centres test it.

    Args:
        report: called after every round, for a progress display.

    Raises:
        RunError: when the validation loss is not a number.
    """
    path = checkpoints / f"fold-{fold}.pt"
    saved = _last_progress(path)
    encoding = consortium.begin_fold(fold, saved.encoding if saved else None)
    consortium.remember(saved.memory if saved else {})
    progress = saved or _untrained(consortium, experiment, encoding, fold)
    if progress.round > 0:
        report(progress)
    for round_number in range(progress.round + 1, experiment.training.rounds + 1):
        started = time.monotonic()
        weights = progress.weights
        if round_number > 0:
            weights = consortium.train(round_number, weights, progress.blending)
        losses, blending = consortium.evaluate(round_number, weights, progress.blending)
        if not np.isfinite(losses.validation.loss).all():
            raise RunError(f"round {round_number}: the validation loss is not a number; lower training.learning_rate")
        if round_number == 0 and losses.train is not None and not losses.train.events.any():
            endpoints = " or ".join(experiment.data.endpoints)
            raise RunError(
                f"model {fold + 1}: no training patient of any site has an event of {endpoints}; "
                "there is nothing to learn from"
            )
        progress = progress.after(round_number, weights, losses, blending, experiment=experiment, fold=fold)
        seconds = progress.seconds + time.monotonic() - started
        progress = replace(progress, seconds=seconds, memory=consortium.memory)
        save_progress(progress, path)
        report(progress)
    consortium.predict(progress.selected_round, progress.selected)
    return progress


def write_history(folds: list[Progress], path: Path) -> None:
    """Write history.csv: a row a fold, round and head; `weight` is in force in the next round."""
    _write_rows([row for fold in folds for row in fold.history], HISTORY_COLUMNS, path)


def write_site_history(folds: list[Progress], path: Path) -> None:
    """Write blending_sites.csv, a row a fold, checkpoint, site and head, where sites have weights of their own."""
    rows = [row for fold in folds for row in fold.site_history]
    if rows:
        _write_rows(rows, SITE_BLENDING_COLUMNS, path)


def _write_rows(rows: list[HistoryRow], columns: tuple[str, ...], path: Path) -> None:
    table = pd.DataFrame(rows, columns=list(columns))
    write_atomically(path, lambda temporary: table.to_csv(temporary, index=False))


_ARRAYS = ("weights", "selected", "memory")


def save_progress(progress: Progress, path: Path) -> None:
    """Write a checkpoint in one step, and keep the one before: a killed run finds the last whole one."""
    content = asdict(progress)
    for name in _ARRAYS:
        content[name] = {key: torch.from_numpy(value) for key, value in content[name].items()}
    if path.exists():
        os.replace(path, previous_checkpoint(path))
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def load_progress(path: Path) -> Progress:
    """Read a checkpoint (tensors and plain values only: nothing in it is executed)."""
    content = torch.load(path, weights_only=True)
    for name in _ARRAYS:
        content[name] = {key: value.numpy() for key, value in content[name].items()}
    blending = content.pop("blending")
    sites = {site: tuple(weights) for site, weights in blending["sites"].items()}
    content["blending"] = BlendingState(tuple(blending["weights"]), blending["updates"], sites)
    moments = {key: tuple(value) for key, value in content["encoding"]["moments"].items()}
    content["encoding"] = ClinicalEncoding(tuple(content["encoding"]["variables"]), moments)
    return Progress(**content)


def _last_progress(path: Path) -> Progress | None:
    """The last checkpoint that can be read: a power cut can leave the newest one torn, which loses a round at most.

    Raises:
        RunError: when there are checkpoints and none can be read.
    """
    found = [file for file in (path, previous_checkpoint(path)) if file.exists()]
    for file in found:
        try:
            return load_progress(file)
        except Exception:  # torn bytes make torch raise errors of many kinds
            warnings.warn(f"{file} cannot be read, a power cut may have torn it: its round is done again", stacklevel=2)
    if found:
        raise RunError(f"{path}: neither this checkpoint nor the one before can be read; the run must begin again")
    return None


def previous_checkpoint(path: Path) -> Path:
    """Where the checkpoint before a checkpoint is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _untrained(consortium: Consortium, experiment: Experiment, encoding: ClinicalEncoding, fold: int) -> Progress:
    """Whoever runs the experiment makes the first weights: the centres get them, pretrained or not, with round 1."""
    network = build_network(experiment, channels=consortium.channels, clinical_inputs=encoding.width, fold=fold)
    if experiment.model.pretrained:
        load_pretrained(network.encoders["image"], Path(experiment.model.pretrained))
    weights = get_weights(network)
    return Progress(-1, weights, start_blending(experiment.blending, len(experiment.heads)), encoding, weights)


def _history_rows(
    round_number: int, losses: RoundLosses, blending: BlendingState, experiment: Experiment, fold: int
) -> list[HistoryRow]:
    validation = losses.validation.per_event()
    train = [None] * len(experiment.heads) if losses.train is None else losses.train.per_event().tolist()
    return [
        {
            "fold": fold,
            "round": round_number,
            "head": name,
            "train_loss": train[head],
            "validation_loss": float(validation[head]),
            "weight": blending.weights[head],
        }
        for head, name in enumerate(experiment.heads)
    ]


def _site_rows(
    round_number: int, losses: RoundLosses, blending: BlendingState, experiment: Experiment, fold: int
) -> list[HistoryRow]:
    """None between checkpoints: the weights stay as they were."""
    if losses.train is None:
        return []
    return [
        {"fold": fold, "round": round_number, "site": site, "head": name, "weight": weight}
        for site, weights in blending.sites.items()
        for name, weight in zip(experiment.heads, weights, strict=True)
    ]
