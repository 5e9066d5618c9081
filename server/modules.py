"""Parts of the network that only some sites trained: a site counts in the average of those that it trained."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.replies import Update
from stsmm_core.config import Modality
from stsmm_core.model.mmnn import Weights
from stsmm_core.protocol.rounds import Contribution

Array = NDArray[np.floating]
FUSION = "heads.fusion.weight"
Block = Any
"""An index into a weight."""
Fill = Callable[[Sequence[Array], Sequence[float]], Array]
"""One value from those of the sites that trained a module, and the sites' weights."""


def has_trained(name: str, value: Array, contribution: Contribution, modalities: Sequence[Modality]) -> bool:
    """Whether a site's patients could teach anything of the weight of that name."""
    return any(taught for _, taught in _blocks(name, value, contribution, modalities))


def complete(updates: Sequence[Update], sent: Weights, modalities: Sequence[Modality], fill: Fill) -> list[Weights]:
    """The updates with every weight of the network, in the order of `sent`, filled in where a site did not train it.

    The filled value is made from the sites that did. Their weighted mean, filled in, leaves the weighted mean of all as
    it was: sum(w x) + sum(w_other) m = (sum(w) + sum(w_other)) m with m = sum(w x) / sum(w). Where nobody trained a
    weight (or it stays at the sites), everybody has what was sent.
    """
    completed = [{name: update.weights.get(name, sent[name]).copy() for name in sent} for update in updates]
    for name, before in sent.items():
        for block, who in _teachers(name, before, updates, modalities):
            if len(who) == len(updates):
                continue
            value = before[block]
            if who:
                value = fill([each.weights[name][block] for each in who], [each.contribution.weight for each in who])
            for update, weights in zip(updates, completed, strict=True):
                if not any(update is each for each in who):
                    weights[name][block] = value
    return completed


def keep_untrained(model: Weights, updates: Sequence[Update], sent: Weights, modalities: Sequence[Modality]) -> None:
    """Put back what was sent where no site trained: a server's momentum would move it on."""
    for name, before in sent.items():
        for block, who in _teachers(name, before, updates, modalities):
            if not who:
                model[name][block] = before[block]


def _teachers(
    name: str, before: Array, updates: Sequence[Update], modalities: Sequence[Modality]
) -> list[tuple[Block, list[Update]]]:
    """The blocks of a weight, and the updates of the sites that trained each."""
    by_site = [_blocks(name, before, update.contribution, modalities) for update in updates]
    return [
        (
            blocks[0][0],
            [each for each, (_, taught) in zip(updates, blocks, strict=True) if taught and name in each.weights],
        )
        for blocks in zip(*by_site, strict=True)
    ]


def _blocks(
    name: str, value: Array, contribution: Contribution, modalities: Sequence[Modality]
) -> list[tuple[Block, bool]]:
    """The blocks of a weight that the same patients teach, and whether this site has such patients.

    An encoder learns from patients that have the modality, a head's row from events of its endpoint among the patients
    that it hears. The fusion head's columns of a modality learn from patients with it, and its absent vector where
    patients with and without it are compared: where all lack it its features are one constant, which the Cox loss
    cannot see. Where nothing is learned only weight decay moves a weight, and the average would hold the others back.
    """
    part, module, *_ = name.split(".")
    if part == "absent":
        place = modalities.index(module)
        return [(..., contribution.missed[place] and contribution.seen[place])]
    if part == "encoders":
        return [(..., contribution.seen[modalities.index(module)])]
    head = 0 if module == "fusion" else 1 + modalities.index(module)
    rows = list(enumerate(contribution.taught[head]))
    if name != FUSION:
        return [((row,), taught) for row, taught in rows]
    width = value.shape[1] // len(modalities)
    return [
        ((row, slice(k * width, (k + 1) * width)), taught and seen)
        for row, taught in rows
        for k, seen in enumerate(contribution.seen)
    ]


def weighted_mean(values: Sequence[Array], weights: Sequence[float]) -> Array:
    """Mean over sites in double precision."""
    total = np.zeros(values[0].shape)
    for value, weight in zip(values, weights, strict=True):
        total += value * np.float64(weight)
    return total / sum(weights)


def median(values: Sequence[Array], weights: Sequence[float]) -> Array:  # noqa: ARG001 - one vote a site
    """Median over sites, one vote each."""
    return np.asarray(np.median(np.stack(values), axis=0))
