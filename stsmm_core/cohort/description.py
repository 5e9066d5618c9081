"""Describing a cohort as the first table of a clinical paper does: counts, follow-up, outcomes, variables, gaps."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stsmm_core.cohort.cohort import Cohort
from stsmm_core.cohort.dictionary import DAYS_PER_YEAR, ENDPOINTS, VARIABLES, Number, Variable


@dataclass(frozen=True)
class Row:
    """One line of the table; `missing` counts the patients without a value, None where that says nothing."""

    label: str
    value: str
    missing: int | None = None


def describe_cohort(cohort: Cohort) -> list[Row]:
    """The rows of a cohort's table, variables in the order of the data dictionary."""
    patients = len(cohort.patients)
    with_images = sum(cohort.has_image(patient) for patient in cohort.patients)
    rows = [
        Row("Patients", str(patients)),
        Row("With images", _share(with_images, patients)),
        Row("Channels", ", ".join(cohort.manifest.channels) or "none"),
        *(
            Row(f"  without {channel}, of those with images", _share(lacking, with_images))
            for channel, lacking in cohort.lacking_channel().items()
            if lacking
        ),
        Row("Time zero", cohort.manifest.time_zero),
    ]
    rows.append(_follow_up_row(cohort))
    rows.extend(_events_row(cohort, endpoint) for endpoint in cohort.manifest.endpoints)
    for key, variable in VARIABLES.items():
        rows.extend(_variable_rows(variable, cohort.clinical[key]))
    rows.append(Row("Extra columns, not used", ", ".join(cohort.extra_columns) or "none"))
    return rows


def _follow_up_row(cohort: Cohort) -> Row:
    """Follow-up for death, or for the cohort's first endpoint where deaths are not recorded."""
    endpoints = cohort.manifest.endpoints
    days, event = _observed(cohort, "os" if "os" in endpoints else endpoints[0])
    follow_up = median_follow_up(days, event)
    years = "not reached" if math.isnan(follow_up) else f"{follow_up / DAYS_PER_YEAR:.1f} years"
    return Row("Follow-up: median (reverse Kaplan-Meier)", years)


def _events_row(cohort: Cohort, endpoint: str) -> Row:
    days, event = _observed(cohort, endpoint)
    events, years = int(event.sum()), days.sum() / DAYS_PER_YEAR
    rate = f"{100 * events / years:.1f} per 100 patient-years" if years > 0 else "no follow-up"
    label = f"{ENDPOINTS[endpoint].capitalize()}: events"
    return Row(label, f"{_share(events, len(days))}, {rate}", len(cohort.patients) - len(days))


def _observed(cohort: Cohort, endpoint: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Days and events of the patients for whom the endpoint applies."""
    outcomes = cohort.outcomes([endpoint])
    applies = ~np.isnan(outcomes.time[:, 0])
    return outcomes.time[applies, 0], outcomes.event[applies, 0]


def median_follow_up(days: NDArray[np.float64], event: NDArray[np.float64]) -> float:
    """Median follow-up in days by the reverse Kaplan-Meier method (Schemper and Smith 1996); NaN if not reached.

    The estimator of survival with the roles of event and censoring exchanged, so that a death does not count as
    short follow-up. A patient who dies on the day when another is censored leaves the risk set after that day.

    Args:
        days: shape (patients,).
        event: 1.0 event, 0.0 censored, shape (patients,).
    """
    still_followed = 1.0
    for day in np.unique(days[event == 0]):
        leaving = int(((days == day) & (event == 0)).sum())
        still_followed *= 1 - leaving / int((days >= day).sum())
        if still_followed <= 0.5 + 1e-12:  # 2/3 · 3/4 must count as one half
            return float(day)
    return math.nan


def _variable_rows(variable: Variable, column: pd.Series) -> list[Row]:
    known = column.dropna()
    missing = len(column) - len(known)
    if known.empty:
        return [Row(_label(variable), "none known", missing)]
    if isinstance(variable, Number):
        values = known.to_numpy(dtype=float)
        low, median, high = np.percentile(values, [25, 50, 75])
        spread = f"{values.std(ddof=1):.1f}" if len(values) > 1 else "-"
        return [Row(_label(variable), f"{values.mean():.1f} ({spread}) / {median:.1f} ({low:.1f}-{high:.1f})", missing)]
    levels = [Row(f"  {_level(level)}", _share(int((known == level).sum()), len(known))) for level in variable.levels]
    return [Row(_label(variable), "", missing), *levels]


def _label(variable: Variable) -> str:
    if isinstance(variable, Number):
        return f"{variable.label} ({variable.unit}): mean (SD) / median (IQR)"
    return f"{variable.label}: n (% of known)"


def _level(level: str) -> str:
    return {"0": "no", "1": "yes"}.get(level, level.replace("_", " "))


def _share(count: int, total: int) -> str:
    return f"{count} of {total} ({100 * count / total:.0f} %)" if total else "0 of 0"
