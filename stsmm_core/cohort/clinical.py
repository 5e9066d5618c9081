"""Clinical variables as network input, standardised with sums that sites can share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stsmm_core.cohort.dictionary import VARIABLES, Category, Number


@dataclass(frozen=True)
class ClinicalSummary:
    """Sufficient statistics of the clinical variables of a group of patients; adds up over sites.

    Attributes:
        numbers: n, sum and sum of squares of each continuous variable.
        levels: patients a level of each categorical variable.
    """

    numbers: dict[str, tuple[float, float, float]]
    levels: dict[str, tuple[float, ...]]

    def __add__(self, other: "ClinicalSummary") -> "ClinicalSummary":
        def added(mine: tuple[float, ...], theirs: tuple[float, ...]) -> Any:
            return tuple(a + b for a, b in zip(mine, theirs, strict=True))

        return ClinicalSummary(
            {key: added(value, other.numbers[key]) for key, value in self.numbers.items()},
            {key: added(value, other.levels[key]) for key, value in self.levels.items()},
        )

    def small(self, minimum: int) -> tuple[str, ...]:
        """Variables that rest on fewer than `minimum` patients, or have a level that does."""
        numbers = [key for key, (n, _, _) in self.numbers.items() if 0 < n < minimum]
        levels = [key for key, counts in self.levels.items() if any(0 < count < minimum for count in counts)]
        return (*numbers, *levels)

    def suppressed(self, minimum: int) -> "ClinicalSummary":
        """The same with zeros for `small` variables: for the whole of them, as the rest would tell a missing level."""
        variables = self.small(minimum)
        return replace(
            self,
            numbers={key: (0.0, 0.0, 0.0) if key in variables else value for key, value in self.numbers.items()},
            levels={
                key: tuple(0.0 for _ in value) if key in variables else value for key, value in self.levels.items()
            },
        )

    def to_table(self) -> dict[str, Any]:
        """Mean and SD of numbers and counts of levels, for the cohort table of a report."""
        table: dict[str, Any] = {}
        for key, (n, mean, sd) in ((key, _moments(value)) for key, value in self.numbers.items()):
            table[key] = {"n": n, "mean": mean, "sd": sd} if n else {"n": n, "mean": None, "sd": None}
        for key, counts in self.levels.items():
            levels = _category(key).levels
            table[key] = {
                "n": int(sum(counts)),
                "levels": {level: int(count) for level, count in zip(levels, counts, strict=True)},
            }
        return table


@dataclass(frozen=True)
class ClinicalEncoding:
    """How the clinical table becomes network input; fitted on training patients only.

    A number is standardised, its missing value is the mean (0) with an indicator beside it. A category is one-hot
    over the dictionary's fixed levels, so that columns mean the same at every site; missing is no level.

    Attributes:
        variables: keys, in the order of the columns.
        moments: mean and standard deviation of each continuous variable; where the standard deviation is 0, the
            training patients could not teach the variable and its column is 0 for everybody.
    """

    variables: tuple[str, ...]
    moments: dict[str, tuple[float, float]]

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """The variable that each column belongs to."""
        return tuple(key for key in self.variables for _ in range(_columns_of(key)))

    def encode(self, clinical: pd.DataFrame) -> NDArray[np.float32]:
        """Encode the rows of a clinical table, shape (patients, width)."""
        columns: list[NDArray[Any]] = []
        for key in self.variables:
            variable, values = VARIABLES[key], clinical[key]
            if isinstance(variable, Number):
                mean, sd = self.moments[key]
                centred = values.to_numpy(dtype=float, na_value=np.nan) - mean
                columns.append(centred / sd if sd > 0 else np.zeros(len(centred)))
                columns.append(values.isna().to_numpy(dtype=float))
            else:
                columns.extend((values == level).to_numpy(dtype=float) for level in variable.levels)
        return np.nan_to_num(np.stack(columns, axis=1)).astype(np.float32)


def summarise(clinical: pd.DataFrame, variables: Sequence[str]) -> ClinicalSummary:
    """Sufficient statistics of the given variables."""
    numbers: dict[str, tuple[float, float, float]] = {}
    levels: dict[str, tuple[float, ...]] = {}
    for key in variables:
        variable = VARIABLES[key]
        if isinstance(variable, Number):
            values = clinical[key].dropna().to_numpy(dtype=float)
            numbers[key] = (float(len(values)), float(values.sum()), float((values**2).sum()))
        else:
            levels[key] = tuple(float((clinical[key] == level).sum()) for level in variable.levels)
    return ClinicalSummary(numbers, levels)


def shareable_training_sums(training: ClinicalSummary, whole: ClinicalSummary, minimum: int) -> ClinicalSummary:
    """Sums of the numbers for the encoding, where neither they nor what they leave out of the whole is a small cell.

    The whole cohort's sums are shared too, so that the patients outside the training set can be had by subtraction.
    Levels are not needed for the encoding and are not shared.
    """

    def small(count: float) -> bool:
        return 0 < count < minimum

    return ClinicalSummary(
        {
            key: (0.0, 0.0, 0.0) if small(sums[0]) or small(whole.numbers[key][0] - sums[0]) else sums
            for key, sums in training.numbers.items()
        },
        {},
    )


def fit_encoding(summary: ClinicalSummary, variables: Sequence[str]) -> ClinicalEncoding:
    """The encoding of the pooled training patients, from the sum of the sites' summaries."""
    moments: dict[str, tuple[float, float]] = {}
    for key, value in summary.numbers.items():
        _, mean, sd = _moments(value)
        moments[key] = (mean, sd)
    return ClinicalEncoding(tuple(variables), moments)


def _moments(sums: tuple[float, float, float]) -> tuple[int, float, float]:
    """n, mean and standard deviation (n - 1) from n, sum and sum of squares."""
    n, first, second = sums
    if n == 0:
        return 0, 0.0, 0.0
    mean = first / n
    spread = max(second - n * mean**2, 0.0)
    # What is left of a constant column after subtracting two large equal numbers is rounding, not spread.
    if n < 2 or spread <= 1e-12 * second:
        return int(n), mean, 0.0
    return int(n), mean, float(np.sqrt(spread / (n - 1)))


def _columns_of(key: str) -> int:
    """A number has a value and an indicator of its absence; a category a column a level."""
    variable = VARIABLES[key]
    return len(variable.levels) if isinstance(variable, Category) else 2


def _category(key: str) -> Category:
    variable = VARIABLES[key]
    assert isinstance(variable, Category)
    return variable
