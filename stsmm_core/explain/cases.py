"""Which cases to show: some that the model got right and some that it got wrong."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stsmm_core.cohort.dictionary import years_in_words

KINDS = (("high", True), ("low", False), ("high", False), ("low", True))
"""(risk, event by the horizon): the first two are right, the last two wrong."""


@dataclass(frozen=True)
class Case:
    """A patient to show, under a number in place of the identifier.

    Attributes:
        number: from 1, in the order shown.
        row: in the predictions.
        risk: of the model, "high" or "low" as against the median of the eligible patients.
        event: whether the event came by the horizon.
    """

    number: int
    row: int
    risk: Literal["high", "low"]
    event: bool

    @property
    def right(self) -> bool:
        """Whether risk and outcome agree."""
        return (self.risk == "high") == self.event


def pick_cases(
    risk: NDArray[np.float64],
    *,
    time: NDArray[np.float64],
    event: NDArray[np.float64],
    horizon_days: float,
) -> list[Case]:
    """The most extreme cases of each kind: high risk with and without the event, low risk without and with it.

    Patients whose outcome at the horizon is not known (censored before it, or outside the endpoint's risk set) and
    those without a risk cannot be called right or wrong and are not picked. Fewer come back where a kind has fewer.
    """
    had_it = (event == 1) & (time <= horizon_days)
    known = np.isfinite(risk) & (had_it | (time > horizon_days))
    if not known.any():
        return []
    middle = np.median(risk[known])
    picked: list[tuple[int, Literal["high", "low"], bool]] = []
    for level, with_event in KINDS:
        beyond = risk > middle if level == "high" else risk < middle
        rows = np.flatnonzero(known & (had_it == with_event) & beyond)
        farthest = rows[np.argsort(-np.abs(risk[rows] - middle), kind="stable")]
        picked += [(int(row), "high" if level == "high" else "low", with_event) for row in farthest[:1]]
    return [Case(number, *each) for number, each in enumerate(picked, start=1)]


def describe_case(case: Case, *, event: str, horizon_years: float) -> str:
    """A line for the figure, without an identifier; `event` is what happens at the endpoint, like "death"."""
    outcome = f"{event} by" if case.event else f"no {event} by"
    verdict = "right" if case.right else "wrong"
    return f"case {case.number}: {case.risk} risk, {outcome} {years_in_words(horizon_years)} ({verdict})"
