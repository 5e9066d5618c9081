"""Learning rate as a pure function of progress, so that sites and resumed runs need no scheduler state."""

import math
from typing import Literal

WARM_UP = 0.3
START_DIVISOR = 25.0
END_DIVISOR = 25.0 * 1e4


def learning_rate(progress: float, *, peak: float, schedule: Literal["one_cycle", "constant"]) -> float:
    """Learning rate at a step; `progress` is the share of all optimiser steps that were done before it.

    one_cycle is Smith's 1cycle policy with cosine annealing and torch's default constants, momentum held constant.
    """
    if schedule == "constant":
        return peak
    if progress < WARM_UP:
        return _cosine(peak / START_DIVISOR, peak, progress / WARM_UP)
    return _cosine(peak, peak / END_DIVISOR, (progress - WARM_UP) / (1 - WARM_UP))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
