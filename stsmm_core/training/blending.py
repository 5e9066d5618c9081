"""Gradient blending: weights of the heads' losses from how well each generalises.

Between two checkpoints the gap O = validation loss - training loss of a head grows by dO (overfitting) while its
validation loss falls by dG (generalisation); OGR = |dO / dG|. The optimum of Wang, Tran and Feiszli (CVPR 2020,
Proposition 1) weights head k in proportion to dG_k / dO_k^2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from stsmm_core.config import Blending

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """What happened to each head's losses between two checkpoints; every array has shape (heads,).

    Attributes:
        generalisation: dG, the fall of the validation loss.
        overfitting: dO, the growth of validation minus training loss.
        generalisation_se, overfitting_se: standard errors of the two over patients.
    """

    generalisation: Vector
    overfitting: Vector
    generalisation_se: Vector
    overfitting_se: Vector

    @classmethod
    def from_changes(
        cls,
        train: Vector,
        validation: Vector,
        train_variance: Vector | None = None,
        validation_variance: Vector | None = None,
    ) -> "Interval":
        """The interval from the change of each loss; training and validation patients are independent."""
        nothing = np.zeros_like(train)
        train_variance = nothing if train_variance is None else train_variance
        validation_variance = nothing if validation_variance is None else validation_variance
        return cls(
            generalisation=-validation,
            overfitting=validation - train,
            generalisation_se=np.sqrt(validation_variance),
            overfitting_se=np.sqrt(train_variance + validation_variance),
        )


@dataclass(frozen=True)
class BlendingState:
    """The blending weights in force and how they came about.

    Attributes:
        weights: one a head, sum 1, the fusion head first.
        updates: how often an interval changed them.
        sites: in scopes `site` and `mean`, the weights of each site that they are the mean of.
    """

    weights: tuple[float, ...]
    updates: int = 0
    sites: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def after(self, interval: Interval, config: Blending) -> "BlendingState":
        """The state after an interval; unchanged when the method is fixed or no head generalised."""
        ratio = _ratio(interval, config)
        if ratio is None:
            return self
        if config.method == "robust":
            blended = (1 - config.shrink) * ratio + config.shrink / len(ratio)
            blended = bounded(blended, config.floor, config.ceiling)
            ratio = config.smoothing * np.asarray(self.weights) + (1 - config.smoothing) * blended
        return replace(self, weights=tuple(float(weight) for weight in ratio), updates=self.updates + 1)

    def after_sites(self, weights: Mapping[str, tuple[float, ...]], events: Mapping[str, float]) -> "BlendingState":
        """The state after the sites' own weights, averaged by their events; unchanged where no site has an event."""
        total = sum(events.values())
        if not total:
            return self
        mean = tuple(
            sum(events[site] * own[head] for site, own in weights.items()) / total for head in range(len(self.weights))
        )
        changed = not np.allclose(mean, self.weights, rtol=0, atol=1e-12)
        return BlendingState(mean, self.updates + changed, dict(weights))


def start_blending(config: Blending, heads: int) -> BlendingState:
    """Uniform weights at first (paper, Methods); all on the fusion head for the control without blending."""
    if config.method == "none":
        return BlendingState((1.0,) + (0.0,) * (heads - 1))
    return BlendingState((1 / heads,) * heads)


def _ratio(interval: Interval, config: Blending) -> Vector | None:
    """Normalised weights of an interval by the configured method, or None where it says nothing."""
    gain, overfit = interval.generalisation, interval.overfitting
    errors = interval.generalisation_se, interval.overfitting_se
    if config.method in ("uniform", "none") or not np.isfinite([gain, overfit, *errors]).all():
        return None
    if config.method == "softmax":
        score = gain / (overfit**2 + config.eps)
        odds = np.exp(score - score.max())
        return odds / odds.sum()
    if config.method == "robust":
        gain = np.maximum(gain - config.z * interval.generalisation_se, 0)
        spread = overfit**2 + interval.overfitting_se**2 + config.tau**2
    else:
        gain, spread = np.maximum(gain, 0), overfit**2 + config.eps
    useful = gain > 0
    if not useful.any():
        return None
    ratio, spread = np.zeros_like(gain), np.maximum(spread[useful], np.finfo(float).tiny)
    # Relative to the smallest spread, so that a head without any overfitting does not overflow.
    ratio[useful] = gain[useful] * (spread.min() / spread)
    return ratio / ratio.sum()


def bounded(weights: Vector, floor: float, ceiling: float) -> Vector:
    """The nearest weights (Euclidean) between floor and ceiling that sum to 1."""
    low, high = -1.0, 1.0
    for _ in range(100):
        shift = (low + high) / 2
        if np.clip(weights + shift, floor, ceiling).sum() < 1:
            low = shift
        else:
            high = shift
    return np.clip(weights + high, floor, ceiling)
