"""What the report says of the patients: who was counted where, what is missing, Table 1 by set and by site."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stsmm_core.cohort.dictionary import VARIABLES, Category
from stsmm_core.comparators.study import Study
from stsmm_core.survival.kaplan_meier import median_follow_up


def flow(study: Study) -> dict[str, Any]:
    """How many patients there were, and how many each step left (CONSORT)."""
    outcomes = study.data.outcomes
    presentation = study.data.clinical["metastasis_at_presentation"]
    split = study.folds[0] if len(study.folds) == 1 else None
    # Each network of an ensemble has its own division of the development patients into training and validation.
    alone = split is not None and study.experiment.evaluation.members == 1
    return {
        "recorded": len(study.data.patients),
        "with_image": int(study.data.has_image.sum()),
        "with_outcome": {
            endpoint: int(np.isfinite(outcomes.time[:, column]).sum())
            for column, endpoint in enumerate(study.endpoints)
        },
        "metastatic_at_presentation": None if presentation.isna().all() else int((presentation == "1").sum()),
        "train": len(split.train) if split is not None and alone else None,
        "validation": len(split.validation) if split is not None and alone else None,
        "development": None if split is None else len(split.train) + len(split.validation),
        "test": None if split is None else len(split.test),
    }


def follow_up(study: Study) -> dict[str, dict[str, float | None]]:
    """Median follow-up of each endpoint, days; who died was followed to the end."""
    outcomes, found = study.data.outcomes, {}
    for column, endpoint in enumerate(study.endpoints):
        known = np.isfinite(outcomes.time[:, column])
        event = np.maximum(outcomes.event[known, column], died_first(study, column)[known])
        found[endpoint] = asdict(median_follow_up(time=outcomes.time[known, column], event=event))
    return found


def died_first(study: Study, column: int) -> NDArray[np.bool_]:
    """Patients whose watch for an endpoint ended by death, which is no loss to follow-up; nobody without `os`."""
    outcomes = study.data.outcomes
    if "os" not in study.endpoints:
        return np.zeros(len(outcomes.time), dtype=bool)
    death = study.endpoints.index("os")
    # Death on the day that the watch for metastasis ends, without one, is what competes.
    return (outcomes.event[:, death] > 0) & (outcomes.time[:, death] <= outcomes.time[:, column])


def missing(study: Study) -> dict[str, int]:
    """Patients without a value of each variable of the experiment, and without the image."""
    clinical = study.data.clinical
    lacking = {key: int(clinical[key].isna().sum()) for key in study.experiment.data.variables}
    return lacking | {"image": int((~study.data.has_image).sum())}


def cohort_columns(study: Study) -> list[dict[str, Any]]:
    """Columns of Table 1: the sets of a split, the sites where there are several, and everybody."""
    groups: list[tuple[str, NDArray[np.intp]]] = []
    if len(study.folds) == 1:
        fold = study.folds[0]
        if study.experiment.evaluation.members == 1:
            groups += [("training", fold.train), ("validation", fold.validation), ("test", fold.test)]
        else:
            groups += [("development", np.concatenate([fold.train, fold.validation])), ("test", fold.test)]
    if len(study.sites) > 1:
        groups += [(name, np.flatnonzero(study.site == number)) for number, name in enumerate(study.sites)]
    groups.append(("all", np.arange(len(study.data.patients))))
    return [_column(study, name, rows) for name, rows in groups]


def _column(study: Study, name: str, rows: NDArray[np.intp]) -> dict[str, Any]:
    outcomes = study.data.outcomes[rows]
    known, events = np.isfinite(outcomes.time).sum(axis=0), outcomes.events()
    clinical = study.data.clinical.iloc[rows]
    return {
        "column": name,
        "patients": len(rows),
        "events": {endpoint: int(count) for endpoint, count in zip(study.endpoints, events, strict=True)},
        "at_risk": {endpoint: int(count) for endpoint, count in zip(study.endpoints, known, strict=True)},
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
