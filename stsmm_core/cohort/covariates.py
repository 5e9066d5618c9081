"""Columns of a Cox model from the clinical encoding, chosen and standardised by sums that sites can share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.cohort.dictionary import VARIABLES, Number

Floats = NDArray[np.float64]
CONSTANT = 1e-9
"""Variance below which a column does not vary: numbers arrive standardised, levels as 0 and 1."""


@dataclass(frozen=True)
class Candidate:
    """A column that could enter the model: a number's value (`level` is None), a level, or what is missing ("")."""

    variable: str
    level: str | None


@dataclass(frozen=True, eq=False)
class ColumnSums:
    """Sums of the candidate columns over patients; adds up over sites.

    Attributes:
        patients: how many.
        first, second: sums of values and of their squares, shape (candidates,).
        withheld: columns that a site keeps to itself, as they tell of too few of its patients, shape (candidates,);
            the sums have zeros there.
    """

    patients: int
    first: Floats
    second: Floats
    withheld: NDArray[np.bool_]

    def __add__(self, other: "ColumnSums") -> "ColumnSums":
        return ColumnSums(
            self.patients + other.patients,
            self.first + other.first,
            self.second + other.second,
            self.withheld | other.withheld,
        )


@dataclass(frozen=True)
class Design:
    """Which candidates enter a model, and how they are standardised.

    Attributes:
        columns: places among the candidates, increasing.
        means, scales: of each column over all sites' patients; a covariate is (column - mean) / scale.
    """

    columns: tuple[int, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]

    def covariates(self, candidates: Floats) -> Floats:
        """Standardised columns, shape (patients, columns), of candidates of shape (patients, candidates)."""
        return (candidates[:, list(self.columns)] - np.array(self.means)) / np.array(self.scales)


def candidates_of(variables: Sequence[str]) -> tuple[Candidate, ...]:
    """All candidate columns, in order: a number's value and its absence; a category's levels and its absence."""
    return tuple(
        Candidate(key, level)
        for key in variables
        for level in ((None, "") if isinstance(VARIABLES[key], Number) else (*_levels(key), ""))
    )


def candidate_values(encoding: ClinicalEncoding, clinical: pd.DataFrame) -> Floats:
    """The candidate columns of a clinical table, shape (patients, candidates)."""
    encoded = encoding.encode(clinical).astype(float)
    columns: list[Floats] = []
    start = 0
    for key in encoding.variables:
        width = encoding.columns.count(key)
        part = encoded[:, start : start + width]
        start += width
        columns.append(part)
        if not isinstance(VARIABLES[key], Number):
            columns.append(1 - part.sum(axis=1, keepdims=True))
    return np.concatenate(columns, axis=1)


def sum_columns(values: Floats, variables: Sequence[str], *, minimum: int) -> ColumnSums:
    """Sums of one site's candidate columns, without those that tell of fewer than `minimum` patients.

    A level is withheld when too few patients have it, or too few have not; where the withheld levels of a variable
    come to too few together, which a subtraction would tell, the next smallest is withheld with them.

    Args:
        values: `candidate_values`, shape (patients, candidates).
    """
    withheld = np.zeros(values.shape[1], dtype=bool)
    if minimum > 1:
        candidates = candidates_of(variables)
        for key in variables:
            places = [place for place, each in enumerate(candidates) if each.variable == key]
            withheld[places] = _small(values[:, places], minimum, number=candidates[places[0]].level is None)
    shown = np.where(withheld, 0.0, values)
    return ColumnSums(len(values), shown.sum(axis=0), (shown**2).sum(axis=0), withheld)


def choose_design(sums: ColumnSums, variables: Sequence[str]) -> Design:
    """The design of all sites' patients: of each category its most common level is the reference and has no column.

    Nor has what does not vary, or what a site withholds; patients of such a level count with the reference.
    """
    n = sums.patients
    means = sums.first / max(n, 1)
    variances = np.maximum(sums.second - n * means**2, 0.0) / max(n - 1, 1)
    kept = (variances > CONSTANT) & ~sums.withheld
    candidates = candidates_of(variables)
    for key in variables:
        if not isinstance(VARIABLES[key], Number):
            places = [place for place, each in enumerate(candidates) if each.variable == key]
            kept[places[int(np.argmax(sums.first[places]))]] = False
    columns = np.flatnonzero(kept)
    return Design(
        tuple(int(place) for place in columns),
        tuple(float(mean) for mean in means[columns]),
        tuple(float(scale) for scale in np.sqrt(variances[columns])),
    )


def references_of(sums: ColumnSums, design: Design, variables: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What a category's levels in the design are compared with: its levels that have patients but no column.

    More than one where a site withholds a level: nobody but that site knows whether it has patients.
    """
    references: dict[str, tuple[str, ...]] = {}
    candidates = candidates_of(variables)
    for key in variables:
        places = [place for place, each in enumerate(candidates) if each.variable == key and each.level is not None]
        if not isinstance(VARIABLES[key], Number) and set(places) & set(design.columns):
            without = [place for place in places if place not in design.columns]
            references[key] = tuple(
                str(candidates[place].level) for place in without if sums.first[place] > 0 or sums.withheld[place]
            )
    return references


def _small(values: Floats, minimum: int, *, number: bool) -> NDArray[np.bool_]:
    """Which columns of one variable tell of too few patients."""

    def few(count: float) -> bool:
        return 0 < count < minimum

    patients = len(values)
    if number:
        missing = values[:, 1].sum()
        return np.array([few(patients - missing), few(missing) or few(patients - missing)])
    counts = values.sum(axis=0)
    small = np.array([few(count) or few(patients - count) for count in counts])
    while few(counts[small].sum()) and counts[~small].any():
        small[np.argmin(np.where(small | (counts == 0), np.inf, counts))] = True
    return small


def _levels(key: str) -> tuple[str, ...]:
    variable = VARIABLES[key]
    assert not isinstance(variable, Number)
    return variable.levels
