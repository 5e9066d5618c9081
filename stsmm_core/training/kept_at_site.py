"""What a site keeps to itself: its blending weights, its factor in the average, its normalisation layers."""

from collections.abc import Collection

import torch

from stsmm_core.config import Experiment
from stsmm_core.model.mmnn import Weights
from stsmm_core.training.blending import BlendingState, start_blending
from stsmm_core.training.experiment import blend
from stsmm_core.training.losses import LossSums
from stsmm_core.training.rounds import RoundLosses
from stsmm_core.training.state import SiteState

BLENDING = "blending"
FACTOR = "factor"
NORMALISATION = "normalisation"
LARGEST_FACTOR = 2.0
"""A site counts at most so many times what its patients or events say, and at least one part in so many."""
FEW_EVENTS = 10.0
"""Validation events at which a site's factor is half way (in logarithms) between 1 and what its losses say."""

SetLosses = tuple[LossSums, LossSums]
"""Of the training and of the validation set."""


def blending_in_force(
    state: SiteState, experiment: Experiment, round_number: int, sent: tuple[float, ...]
) -> tuple[float, ...]:
    """The weights that a site trains with: its own in scope `site`, else those that were sent."""
    if experiment.blending.scope != "site":
        return sent
    kept = state.latest(BLENDING, round_number - 1)
    return start_blending(experiment.blending, len(experiment.heads)).weights if kept is None else tuple(kept)


def update_blending(
    state: SiteState, experiment: Experiment, round_number: int, sent: tuple[float, ...], losses: RoundLosses
) -> tuple[float, ...]:
    """A site's weights after a checkpoint, from its own losses alone.

    In scope `mean` they start from the mean that was sent, so that the site keeps nothing.
    """
    before = BlendingState(blending_in_force(state, experiment, round_number, sent))
    weights = blend(before, losses, experiment).weights
    state.keep(BLENDING, round_number, list(weights))
    return weights


def generalisation_factor(before: SetLosses, after: SetLosses) -> float:
    """Factor from 0.5 to 2 of a site's weight by how its local training generalised.

    Of the fusion head, with dG the fall of its validation loss in the local training and dO the growth of validation
    minus training loss: factor = 2^(s (dG - dO) / (dG + dO)), the exponent between -s and s, where
    s = events / (events + 10) shrinks it to 1 for few validation events. With OGR = dO / dG this is
    2^(s (1 - OGR) / (1 + OGR)). It is 1 where the training loss did not fall (dG + dO <= 0).

    After Chen and Li, Towards optimal multi-modal federated learning on non-IID data with hierarchical gradient
    blending (INFOCOM 2022), who weight sites by dG / dO^2; that is unbounded, and noise where events are few.
    """
    (train_before, validation_before), (train_after, validation_after) = before, after
    training_gain = float(train_before.per_event()[0] - train_after.per_event()[0])
    generalisation = float(validation_before.per_event()[0] - validation_after.per_event()[0])
    if training_gain <= 0:
        return 1.0
    balance = min(max(2 * generalisation / training_gain - 1, -1.0), 1.0)
    events = float(validation_after.events[0].sum())
    return float(LARGEST_FACTOR ** (balance * events / (events + FEW_EVENTS)))


def factor_in_force(state: SiteState, round_number: int) -> float:
    """The factor that the site found at its last checkpoint up to this round; 1 before the first."""
    kept = state.latest(FACTOR, round_number)
    return 1.0 if kept is None else float(kept)


def with_own_normalisation(state: SiteState, weights: Weights, last_round: int) -> Weights:
    """The weights with the site's own normalisation layers, as they were after `last_round`.

    A site that has not trained yet takes those that were sent: the server never changes its own, so they are the
    initial ones.
    """
    kept = state.latest(NORMALISATION, last_round)
    return weights if kept is None else weights | {name: value.numpy() for name, value in kept.items()}


def keep_normalisation(state: SiteState, weights: Weights, round_number: int, names: Collection[str]) -> Weights:
    """Keep the site's normalisation layers of a round, and give the other weights.

    Every round is kept until the fold ends: whichever is selected needs its own.
    """
    own = {name: torch.from_numpy(value) for name, value in weights.items() if name in names}
    state.keep(NORMALISATION, round_number, own, every_round=True)
    return {name: value for name, value in weights.items() if name not in names}
