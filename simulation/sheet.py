"""A label a patient from the tables of a cohort folder: what virtual centres are divided by."""

import re

import pandas as pd

from stsmm_core.cohort.acquisition import ACQUISITION_FILE, CHANNEL
from stsmm_core.cohort.cohort import CLINICAL_FILE, Cohort
from stsmm_core.cohort.dictionary import ENDPOINTS, PATIENT_ID
from stsmm_core.errors import CohortError

MISSING = "missing"
"""Label of a patient whose cell is empty."""
FEWEST = 3
"""Patients a value on average; with fewer, a column is a measurement or a name and divides nothing."""


def labels_of(cohort: Cohort, by: str) -> pd.Series:
    """The label of each patient, index patient_id.

    Args:
        by: an endpoint (whether its event was seen), or a column of clinical.csv, kept aside or not, or of
            acquisition.csv (there the row of the cohort's first channel counts).

    Raises:
        CohortError: when the cohort has neither.
    """
    if by in cohort.manifest.endpoints:
        event = pd.Series(cohort.outcomes([by]).event[:, 0], index=list(cohort.patients))
        return event.map({1.0: "event", 0.0: "censored"}).fillna("not at risk")
    cells = _column(cohort, by)
    return cells.reindex(list(cohort.patients), fill_value="").replace("", MISSING)


def check_divides(labels: pd.Series, by: str) -> None:
    """Make sure that labels divide the patients into groups.

    Raises:
        CohortError: when all have the same label, or nearly each their own.
    """
    values = labels.nunique()
    if values < 2:
        raise CohortError(f"{by} is '{labels.iloc[0]}' for all {len(labels)} patients, there is nothing to divide by")
    if values * FEWEST > len(labels):
        raise CohortError(
            f"{by} has {values} values for {len(labels)} patients, fewer than {FEWEST} patients a value; "
            "divide by a column that names groups"
        )


def centre_names(labels: pd.Series, by: str) -> dict[str, str]:
    """A name fit for a site for each value.

    Raises:
        CohortError: when two values would get the same name.
    """
    names: dict[str, str] = {}
    for value in sorted(set(labels)):
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", value).strip("_-") or "unnamed"
        twin = next((other for other, taken in names.items() if taken.casefold() == name.casefold()), None)
        if twin is not None:
            raise CohortError(
                f"the values '{twin}' and '{value}' of {by} would name the same centre ({name}); make them one value, "
                "or name them apart"
            )
        names[value] = name
    return names


def read_rows(cohort: Cohort, name: str) -> pd.DataFrame:
    """The rows of the cohort's patients in one of its tables, cells as text.

    Raises:
        CohortError: when the table cannot be read.
    """
    path = cohort.root / name
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError):
        raise CohortError(f"{path}: cannot be read as a table of comma-separated UTF-8 text; save it so") from None
    table = table.rename(columns=str.strip).apply(lambda cells: cells.str.strip())
    if PATIENT_ID not in table:
        raise CohortError(f"{path}: has no column {PATIENT_ID}")
    return table[table[PATIENT_ID].isin(cohort.patients)]


def _column(cohort: Cohort, by: str) -> pd.Series:
    known: list[str] = []
    for name in (CLINICAL_FILE, ACQUISITION_FILE):
        if not (cohort.root / name).is_file():
            continue
        table = read_rows(cohort, name)
        if by in table and by != PATIENT_ID:
            if name == ACQUISITION_FILE and CHANNEL in table and cohort.manifest.channels:
                table = table[table[CHANNEL] == table[PATIENT_ID].map(cohort.first_channel)]
            return table.drop_duplicates(PATIENT_ID).set_index(PATIENT_ID)[by]
        known += [str(column) for column in table if column != PATIENT_ID]
    hint = f"'{by}' is an endpoint that {cohort.root.name} does not record; " if by in ENDPOINTS else ""
    raise CohortError(f"{cohort.root.name} has no column '{by}'; {hint}choose from {', '.join(dict.fromkeys(known))}")
