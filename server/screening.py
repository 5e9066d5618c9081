"""Updates that fit in form but not in size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.modules import has_trained
from server.replies import Update
from stsmm_core.config import Modality
from stsmm_core.model.mmnn import Weights, is_running_statistic

HEADS = "heads"


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
