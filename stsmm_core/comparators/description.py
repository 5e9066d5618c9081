"""What the report says of the patients: who was counted where, what is missing, Table 1 by set and by site."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stsmm_core.cohort.dictionary import VARIABLES, Category
from stsmm_core.comparators.study import Study


def flow(study: Study) -> dict[str, Any]:
    """How many patients there were, and how many each step left (CONSORT)."""
    outcomes = study.data.outcomes
    metastatic = (study.data.clinical["metastasis_at_presentation"] == "1").to_numpy()
    split = study.folds[0] if len(study.folds) == 1 else None
    return {
        "recorded": len(study.data.patients),
        "with_image": int(study.data.has_image.sum()),
        "with_outcome": {
            endpoint: int(np.isfinite(outcomes.time[:, column]).sum())
            for column, endpoint in enumerate(study.endpoints)
        },
        "metastatic_at_presentation": int(metastatic.sum()),
        "train": None if split is None else len(split.train),
        "validation": None if split is None else len(split.validation),
        "test": None if split is None else len(split.test),
    }


def missing(study: Study) -> dict[str, int]:
    """Patients without a value of each variable of the experiment."""
    clinical = study.data.clinical
    return {key: int(clinical[key].isna().sum()) for key in study.experiment.data.variables}


def cohort_columns(study: Study) -> list[dict[str, Any]]:
    """Columns of Table 1: the sets of a split, the sites where there are several, and everybody."""
    groups: list[tuple[str, NDArray[np.intp]]] = []
    if len(study.folds) == 1:
        fold = study.folds[0]
        groups += [("training", fold.train), ("validation", fold.validation), ("test", fold.test)]
    if len(study.sites) > 1:
        groups += [(name, np.flatnonzero(study.site == number)) for number, name in enumerate(study.sites)]
    groups.append(("all", np.arange(len(study.data.patients))))
    return [_column(study, name, rows) for name, rows in groups]


def _column(study: Study, name: str, rows: NDArray[np.intp]) -> dict[str, Any]:
    events = study.data.outcomes[rows].events()
    clinical = study.data.clinical.iloc[rows]
    return {
        "column": name,
        "patients": len(rows),
        "events": {endpoint: int(count) for endpoint, count in zip(study.endpoints, events, strict=True)},
        "with_image": int(study.data.has_image[rows].sum()),
        "variables": {key: _summary(key, clinical[key]) for key in study.experiment.data.variables},
    }


def _summary(key: str, values: pd.Series) -> dict[str, Any]:
    variable, known = VARIABLES[key], values.dropna()
    if isinstance(variable, Category):
        return {"n": len(known), "levels": {level: int((known == level).sum()) for level in variable.levels}}
    numbers = known.to_numpy(dtype=float)
    if not len(numbers):
        return {"n": 0, "mean": None, "sd": None, "median": None, "q1": None, "q3": None}
    low, median, high = np.percentile(numbers, [25, 50, 75])
    return {
        "n": len(numbers),
        "mean": float(numbers.mean()),
        "sd": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
        "median": float(median),
        "q1": float(low),
        "q3": float(high),
    }
