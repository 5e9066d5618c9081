"""Sanity check of heat maps (Adebayo et al., NeurIPS 2018, arXiv 1810.03292): do they depend on what was learned?

The image encoder's layers are given random weights from the output towards the input, and the maps are compared with
those of the trained network. A map that stays the same shows the input, not the network.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import nn

from stsmm_core.explain.grad_cam import Block, MapMethod, dense_blocks, grad_cam
from stsmm_core.model.mmnn import ModalityBatch, MultimodalNetwork
from stsmm_core.seeds import derive_seed

REPLICATES = 1000
ANOTHER_PATIENT = "none, another patient's map"


@dataclass(frozen=True)
class Similarity:
    """Mean Spearman rank correlation of two maps of the same patient, with its 95 % bootstrap interval over patients.

    Attributes:
        layers: which layers had random weights; or `ANOTHER_PATIENT`.
        n: patients in whom both maps vary; a map that is 0 everywhere has no ranks.
        patients: all of them.
    """

    layers: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    patients: int


def randomisation_test(
    network: MultimodalNetwork,
    batch: Mapping[str, ModalityBatch],
    *,
    endpoint: int,
    block: Block,
    seed: int,
    batch_size: int = 8,
    method: MapMethod = grad_cam,
) -> list[Similarity]:
    """Similarity of the fusion head's maps to the trained network's, more and more layers having random weights.

    The last entry has a wholly random image encoder. The first is the yardstick: each patient's map beside the next
    patient's, of the trained network. Tensors are centred on the tumour, so maps of different patients resemble each
    other; only a correlation below that of different patients says that the map depends on what was learned.
    """
    trained = method(network, batch, endpoint=endpoint, block=block, batch_size=batch_size).native
    pairs = rank_correlations(trained, np.roll(trained, 1, axis=0)) if len(trained) > 1 else np.full(1, np.nan)
    found = [summarise(ANOTHER_PATIENT, pairs, seed=seed)]
    for layers, changed in cascade(network, seed=seed).items():
        maps = method(changed, batch, endpoint=endpoint, block=block, batch_size=batch_size).native
        found.append(summarise(layers, rank_correlations(trained, maps), seed=seed))
    return found


def cascade(network: MultimodalNetwork, *, seed: int) -> dict[str, MultimodalNetwork]:
    """Networks in which the image encoder is random from its output down to a layer, and wholly at the end."""
    stages = [("features to output", ("class_layers", "features.norm5"))]
    for block in reversed(dense_blocks(network)):
        transition = block.name.replace("denseblock", "transition")
        stages.append((f"down to block {block.number}", (transition, block.name)))
    stages.append(("whole image encoder", ("features.conv0", "features.norm0")))
    changed, networks = network, {}
    for label, names in stages:
        changed = copy.deepcopy(changed)
        modules = dict(changed.encoders["image"].named_modules())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "randomised", label))
            for name in names:
                if name in modules:  # the last block has no transition
                    _randomise(modules[name])
        networks[label] = changed
    return networks


def rank_correlations(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Spearman's correlation over the voxels of each patient's two maps; NaN where one is the same everywhere."""
    return np.array(
        [
            spearmanr(one.ravel(), other.ravel()).statistic if np.ptp(one) > 0 and np.ptp(other) > 0 else np.nan
            for one, other in zip(first, second, strict=True)
        ]
    )


def summarise(layers: str, correlations: NDArray[np.float64], *, seed: int) -> Similarity:
    """Mean and percentile interval over the patients who have a correlation."""
    known = correlations[np.isfinite(correlations)]
    if not len(known):
        return Similarity(layers, None, None, None, 0, len(correlations))
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", layers))
    means = known[rng.integers(len(known), size=(REPLICATES, len(known)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Similarity(layers, float(known.mean()), float(low), float(high), len(known), len(correlations))


def _randomise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv3d | nn.Linear | nn.BatchNorm3d | nn.GroupNorm):
            part.reset_parameters()
