"""acquisition.csv: how each volume of an imported cohort was acquired, and how large its contours are."""

import numpy as np
import pandas as pd

from stsmm_core.cohort.cohort import Cohort
from stsmm_core.cohort.dictionary import PATIENT_ID
from stsmm_core.errors import CohortError

ACQUISITION_FILE = "acquisition.csv"
"""One row a volume."""
CHANNEL = "channel"
CONTOUR_CM3 = "contour_cm3"
"""What the contours of the volume's outline enclose; empty where the mask was made from voxels, or there is none."""


def contour_volumes(cohort: Cohort) -> dict[str, float]:
    """Volume within the contours of each patient's tumour on the patient's first channel, cm³.

    Only the patients of whom it is known: none in a cohort that was not imported from contours.

    Raises:
        CohortError: when acquisition.csv cannot be read, or a volume is no number.
    """
    path = cohort.root / ACQUISITION_FILE
    if not path.is_file():
        return {}
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError):
        raise CohortError(f"{path}: cannot be read as a table; import the cohort again, or remove the file") from None
    if not {PATIENT_ID, CHANNEL, CONTOUR_CM3} <= set(table) or not cohort.manifest.channels:
        return {}
    masked = {patient: cohort.first_channel(patient) for patient in cohort.patients}
    first = table[(table[CHANNEL] == table[PATIENT_ID].map(masked)) & (table[CONTOUR_CM3] != "")]
    volumes = pd.to_numeric(first[CONTOUR_CM3], errors="coerce")
    if not (np.isfinite(volumes) & (volumes >= 0)).all():
        raise CohortError(f"{path}: column {CONTOUR_CM3} holds what is no volume in cm³; import the cohort again")
    return dict(zip(first[PATIENT_ID], volumes.astype(float).tolist(), strict=True))
