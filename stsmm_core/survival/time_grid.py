"""Times that a site may share: what it says of a time then speaks of enough patients."""

import numpy as np
from numpy.typing import NDArray

COARSE_STEP_DAYS = 30.0


def shareable_times(time: NDArray[np.float64], *, minimum: int) -> NDArray[np.float64]:
    """Times in days at which patients leave the risk set, moved so that at least `minimum` leave together.

    With a minimum of 1 nothing moves. Else a time moves up to the next whole step of 30 days, and on to later steps
    until a group is large enough; the last group, if too small, moves down to the one before it. A statistic of the
    moved times is exact for them, and off by what they moved: a curve lags by a step at
    most where follow-up is dense.

    Args:
        time: shape (patients,).

    Returns:
        Shape (patients,), in the order of `time`.

    Raises:
        ValueError: when a time is not a number, or there are fewer patients than the minimum (but some).
    """
    if not np.isfinite(time).all():
        raise ValueError("time holds a value that is not a number")
    if minimum <= 1 or len(time) == 0:
        return time.astype(float)
    if len(time) < minimum:
        raise ValueError(f"{len(time)} patients are fewer than the minimum of {minimum}")
    steps, place, leaving = np.unique(
        np.ceil(time / COARSE_STEP_DAYS) * COARSE_STEP_DAYS, return_inverse=True, return_counts=True
    )
    moved = steps.copy()
    first, gathered = 0, 0
    last_group = 0
    for step, count in enumerate(leaving):
        gathered += int(count)
        if gathered >= minimum:
            moved[first : step + 1] = steps[step]
            last_group = step
            first, gathered = step + 1, 0
    moved[first:] = steps[last_group]
    return moved[place]
