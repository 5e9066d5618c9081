"""Updates that fit in form but not in size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.modules import has_trained
from server.replies import Update
from stsmm_core.config import Modality
from stsmm_core.model.mmnn import Weights, is_running_statistic, is_running_variance

HEADS = "heads"
LARGEST_SCALE = 100.0
"""What a layer sees at one site may be so many times as large as at the others. Images are standardised patient by
patient and clinical numbers over all sites: between honest sites with other scanners the largest ratio was 1.15."""


@dataclass(frozen=True)
class Finding:
    """What the server found in an update.

    Attributes:
        harmful: leave the update out; otherwise it is a warning.
    """

    harmful: bool
    reason: str


def oversized(
    updates: Sequence[Update], sent: Weights, modalities: Sequence[Modality], limit: float
) -> Mapping[str, Finding]:
    """Sites whose update is more than `limit` times as large as the median of the others', by site.

    Sizes are Euclidean norms of the change, one for each encoder and one for all heads and absent vectors: an encoder
    of millions of weights moves further than one of thousands. A site is compared with those that trained the same.
    Of two sites nobody can tell which is wrong: the larger update is left out only if it also exceeds the weights
    themselves, and is a warning otherwise. A site alone has nobody to be compared with.
    """
    found: dict[str, Finding] = {}
    sizes = [_sizes(update, sent, modalities) for update in updates]
    for part in {part for each in sizes for part in each}:
        by_site = {update.site: each[part] for update, each in zip(updates, sizes, strict=True) if part in each}
        for site, size in by_site.items():
            others = [other for name, other in by_site.items() if name != site]
            usual = float(np.median(others)) if others else 0.0
            if usual == 0 or size <= limit * usual:
                continue
            own = float(np.sqrt(sum(np.square(value).sum() for name, value in sent.items() if _part(name) == part)))
            harmful = len(others) > 1 or size > own
            if site not in found or harmful:
                found[site] = Finding(
                    harmful, f"the update of {part} is {size / usual:.0f} times as large as the other sites' median"
                )
    return found


def out_of_scale(updates: Sequence[Update], sent: Weights, modalities: Sequence[Modality]) -> Mapping[str, Finding]:
    """Sites whose running statistics are of another order than both those sent and the median of the others', by site.

    Compared is, layer by layer, the largest root mean square of what a channel sees, and not its change: that of a
    small site, far from an average that has settled near a large one, would be many times the large one's. A site alone
    has nobody to be compared with.
    """
    found: dict[str, Finding] = {}
    before = _scales(sent)
    scales: dict[str, dict[str, float]] = {}
    for update in updates:
        weights = update.weights.items()
        trained = {name: value for name, value in weights if has_trained(name, value, update.contribution, modalities)}
        scales[update.site] = _scales(trained)
    for site, own in scales.items():
        for layer, scale in own.items():
            others = [each[layer] for name, each in scales.items() if name != site and layer in each]
            if others and scale > LARGEST_SCALE * max(before[layer], float(np.median(others))):
                reason = f"the running statistics of {layer} are more than {LARGEST_SCALE:.0f} times the other sites'"
                found[site] = Finding(True, reason)
    return found


def _scales(weights: Weights) -> dict[str, float]:
    """The largest root mean square of what a channel of each layer with running statistics has seen."""
    layers = [name.removesuffix(".running_var") for name in weights if is_running_variance(name)]
    squares = {
        layer: weights[f"{layer}.running_var"] + np.square(weights[f"{layer}.running_mean"], dtype=np.float64)
        for layer in layers
    }
    return {layer: float(np.sqrt(square.max())) for layer, square in squares.items()}


def _sizes(update: Update, sent: Weights, modalities: Sequence[Modality]) -> dict[str, float]:
    squares: dict[str, float] = {}
    for name, value in update.weights.items():
        if not is_running_statistic(name) and has_trained(name, value, update.contribution, modalities):
            change = np.subtract(value, sent[name], dtype=np.float64)
            squares[_part(name)] = squares.get(_part(name), 0.0) + float(np.square(change).sum())
    return {part: float(np.sqrt(square)) for part, square in squares.items()}


def _part(name: str) -> str:
    kind, module, *_ = name.split(".")
    return f"{kind}.{module}" if kind == "encoders" else HEADS
