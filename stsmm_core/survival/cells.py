"""A site's patients in cells of risk and time, as coarse as the site wants, to rank other sites' patients against.

With a minimum of one each patient is a cell of its own, a point. Else a cell is a box: each range of risk holds at
least the minimum of patients, and so does each range of time, while a cell of both may hold one. Who knows a patient's
time, or risk, has that many patients to choose from. Edges lie on a grid that all sites share; none is a patient's own
value.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.concordance import TIE_TOLERANCE
from stsmm_core.survival.time_grid import COARSE_STEP_DAYS

OPEN_END = 1e300
"""Stands for infinity on the wire: the outermost cells have no outer edge."""
RISK_STEPS = 60
RISK_RANGE_SD = 3.0
"""Edges of risk: so many steps over three standard deviations of the training patients on either side of the mean."""


@dataclass(frozen=True, eq=False)
class Cells:
    """How much of what lies in each cell, in the data and in bootstrap samples.

    Attributes:
        risk_low, risk_high, time_low, time_high: edges, shape (cells,); a point where both are equal, else a box of
            times above the lower edge and up to the upper one, and of risks further than `TIE_TOLERANCE` from both.
        first, second: events and censored patients, or weights of cases and controls, shape (samples, cells).
        unseen: at most so many patients are in no cell, because they were fewer than the minimum.
    """

    risk_low: NDArray[np.float64]
    risk_high: NDArray[np.float64]
    time_low: NDArray[np.float64]
    time_high: NDArray[np.float64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    unseen: int

    def __len__(self) -> int:
        return len(self.risk_low)


def make_cells(
    risk: NDArray[np.float64],
    time: NDArray[np.float64],
    *,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    minimum: int,
    risk_edges: NDArray[np.float64],
    time_edges: NDArray[np.float64],
) -> Cells:
    """Bin patients by risk and by time, at least `minimum` in each bin; nothing where there are fewer.

    Args:
        risk, time: shape (patients,).
        first, second: what each patient adds, shape (samples, patients).
        risk_edges, time_edges: where a cell may end, increasing; without an edge there is no division. Not used with a
            minimum of one.
    """
    if 0 < len(risk) < minimum:
        nothing, none_of_it = np.zeros(0), np.zeros((len(first), 0))
        return Cells(nothing, nothing, nothing, nothing, none_of_it, none_of_it, minimum - 1)
    if minimum <= 1:
        return Cells(risk, risk, time, time, first, second, 0)
    # Risks this near to an edge could be tied with a risk on its other side, at another site.
    clear = risk_edges[(np.abs(risk[:, None] - risk_edges) > TIE_TOLERANCE).all(axis=0)]
    risk_low, risk_high = _bin(risk, clear, minimum)
    time_low, time_high = _bin(time, time_edges, minimum)
    _, one_each, place = np.unique(np.stack([risk_low, time_low]), axis=1, return_index=True, return_inverse=True)
    belongs = (place[:, None] == np.arange(len(one_each))).astype(float)
    return Cells(
        risk_low[one_each],
        risk_high[one_each],
        time_low[one_each],
        time_high[one_each],
        first @ belongs,
        second @ belongs,
        unseen=0,
    )


def risk_edges(mean: float, sd: float) -> NDArray[np.float64]:
    """Edges of risk on the scale of the training patients of all sites; none where their risks do not vary."""
    if sd <= 0:
        return np.zeros(0)
    edges: NDArray[np.float64] = mean + sd * np.linspace(-RISK_RANGE_SD, RISK_RANGE_SD, RISK_STEPS + 1)
    return edges


def time_edges(last: float) -> NDArray[np.float64]:
    """Edges of time: whole steps of 30 days up to the last development time."""
    return np.arange(1, int(last // COARSE_STEP_DAYS) + 1).astype(float) * COARSE_STEP_DAYS


def _bin(
    values: NDArray[np.float64], edges: NDArray[np.float64], minimum: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper edge of the bin of each value: the narrowest bins from below that hold `minimum` values each."""
    used, last = [-OPEN_END], 0
    for edge in edges:
        below = int((values <= edge).sum())
        if below - last >= minimum and len(values) - below >= minimum:
            used.append(float(edge))
            last = below
    ends = np.array([*used, OPEN_END])
    place = np.searchsorted(ends, values, side="left")
    return ends[place - 1], ends[place]
