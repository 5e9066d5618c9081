"""Times that a site may share: what it says of a time then speaks of enough patients."""

import numpy as np
from numpy.typing import NDArray

COARSE_STEP_DAYS = 30.0
MIDDLE_STEP_DAYS = COARSE_STEP_DAYS / 2
"""What lies in the middle of two whole steps is a multiple of this."""


def shareable_times(time: NDArray[np.float64], *, minimum: int) -> NDArray[np.float64]:
    """Times in days at which patients leave the risk set, moved so that at least `minimum` leave together.

    With a minimum of 1 nothing moves. Else patients are gathered by whole steps of 30 days until a group is large
    enough, and the last group, if too small, joins the one before it. Their time is the middle between the last step of
    the group before (or 0) and their own: at their own end, a hazard would lag behind by half a group, at every site.
    A statistic of the moved times is exact for them, and off by what they moved.

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
    ends, group = np.unique(moved, return_inverse=True)
    return ((np.append(0.0, ends[:-1]) + ends) / 2)[group][place]


def group_ends(middles: NDArray[np.float64]) -> NDArray[np.float64]:
    """The last step of each group of a site, from all its shareable times in order, shape (groups,)."""
    ends = np.empty_like(middles)
    end = 0.0
    for group, middle in enumerate(middles):
        ends[group] = end = 2 * middle - end
    return ends
