"""Modules of the network that only some sites trained: a site counts in the average of those that it trained."""

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
Fill = Callable[[Sequence[Array], Sequence[float]], Array]
"""One value from those of the sites that trained a module, and the sites' weights."""


def has_trained(name: str, contribution: Contribution, modalities: Sequence[Modality]) -> bool:
    """Whether a site's patients could teach the weight of that name.

    An encoder and its unimodal head learn from patients that have the modality, its absent vector from those that lack
    it, the fusion head from all (its columns of one modality: see `complete`).
    """
    part, module, *_ = name.split(".")
    if module == "fusion":
        return True
    patients = contribution.missed if part == "absent" else contribution.seen
    return patients[modalities.index(module)]


def complete(updates: Sequence[Update], sent: Weights, modalities: Sequence[Modality], fill: Fill) -> list[Weights]:
    """The updates with every weight of the network, filled in where a site did not train it.

    The filled value is made from the sites that did. Their weighted mean, filled in, leaves the weighted mean of all as
    it was: sum(w x) + sum(w_other) m = (sum(w) + sum(w_other)) m with m = sum(w x) / sum(w). Where nobody trained a
    weight (or it stays at the sites), everybody has what was sent.

    The fusion head's weights of a modality count as trained by the sites that have patients with it: where all lack it
    its features are one constant, which the Cox loss cannot see, and the average would only hold those weights back.
    """
    completed: list[Weights] = [dict(update.weights) for update in updates]
    for name, before in sent.items():
        for block, teacher in _columns_by_modality(before, modalities) if name == FUSION else [(..., name)]:
            trained = [name in each.weights and has_trained(teacher, each.contribution, modalities) for each in updates]
            if all(trained):
                continue
            value = before[block]
            if any(trained):
                who = [update for update, did in zip(updates, trained, strict=True) if did]
                value = fill([each.weights[name][block] for each in who], [each.contribution.weight for each in who])
            for weights, did in zip(completed, trained, strict=True):
                if not did:
                    weights[name] = weights.get(name, before).copy()
                    weights[name][block] = value
    return completed


def _columns_by_modality(fusion: Array, modalities: Sequence[Modality]) -> list[tuple[Any, str]]:
    """The fusion head's columns of each modality, with the name of a weight that the same patients teach."""
    width = fusion.shape[1] // len(modalities)
    return [
        ((slice(None), slice(k * width, (k + 1) * width)), f"heads.{modality}.weight")
        for k, modality in enumerate(modalities)
    ]


def untrained(updates: Sequence[Update], sent: Weights, modalities: Sequence[Modality]) -> set[str]:
    """Names of the weights that no site trained."""
    return {
        name
        for name in sent
        if not any(name in each.weights and has_trained(name, each.contribution, modalities) for each in updates)
    }


def weighted_mean(values: Sequence[Array], weights: Sequence[float]) -> Array:
    """Mean over sites in double precision."""
    total = np.zeros(values[0].shape)
    for value, weight in zip(values, weights, strict=True):
        total += value * np.float64(weight)
    return total / sum(weights)


def median(values: Sequence[Array], weights: Sequence[float]) -> Array:  # noqa: ARG001 - one vote a site
    """Median over sites, one vote each."""
    return np.asarray(np.median(np.stack(values), axis=0))
