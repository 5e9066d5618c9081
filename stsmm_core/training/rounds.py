"""What a site gives for a round: trained weights, and losses that add up over sites."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from stsmm_core.model.mmnn import Weights
from stsmm_core.training.losses import LossChanges, LossSums

LEAST_SELECTING_EVENTS = 10
"""Validation events, added over endpoints, that a part of the sites needs to select a round for all."""


@dataclass(frozen=True)
class TrainedRound:
    """A site's contribution to a round.

    Attributes:
        patients, events: training patients and their events, added over endpoints.
        seen, missed: whether a patient with, and one without, each modality was trained on, one a modality; modality
            dropout may make any patient with several modalities one without each.
        taught: whether an event of each endpoint was trained on among the patients of each head, [head][endpoint].
    """

    weights: Weights
    patients: int
    events: int
    seen: tuple[bool, ...]
    missed: tuple[bool, ...]
    taught: tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class RoundLosses:
    """Losses after a round, additive over sites; training losses and changes only at a blending checkpoint.

    Attributes:
        selecting: what a round is selected by where that is not `validation`; it stays behind in a sum.
    """

    validation: LossSums
    train: LossSums | None = None
    validation_change: LossChanges | None = None
    train_change: LossChanges | None = None
    selecting: LossSums | None = None

    def __add__(self, other: "RoundLosses") -> "RoundLosses":
        if self.train is None or self.validation_change is None or self.train_change is None:
            return RoundLosses(self.validation + other.validation)
        assert other.train is not None
        assert other.validation_change is not None
        assert other.train_change is not None
        return RoundLosses(
            self.validation + other.validation,
            self.train + other.train,
            self.validation_change + other.validation_change,
            self.train_change + other.train_change,
        )


def selecting_losses(by_site: Mapping[str, RoundLosses], imaging: Collection[str]) -> LossSums | None:
    """Validation losses of the sites with images, which the network is made for; None where they have too few events.

    The others, who may be many, would select an early round: what they know is learned before the images are.

    Args:
        by_site: of the sites that answered, at least one.
        imaging: names of the sites with images, whether they answered or not.
    """
    nothing = LossSums(*np.zeros((2, *next(iter(by_site.values())).validation.loss.shape)))
    chosen = [losses.validation for site, losses in by_site.items() if site in imaging]
    found = reduce(add, chosen, nothing)
    # While one of them is missing nobody knows, and a round without its events is not selected.
    return None if len(chosen) == len(imaging) and found.events[0].sum() < LEAST_SELECTING_EVENTS else found
