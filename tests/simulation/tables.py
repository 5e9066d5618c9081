"""A cohort of tables alone, for partitioners."""

from pathlib import Path

import numpy as np
import pandas as pd

from stsmm_core.cohort.cohort import Cohort, write_cohort_tables
from stsmm_core.cohort.manifest import Manifest
from stsmm_core.cohort.reading import load_cohort

LOCATIONS = ("axial", "upper_extremity", "lower_extremity", "")


def table_cohort(root: Path, patients: int, *, seed: int = 0, **columns: list[str]) -> Cohort:
    """Patients with ages, locations (some missing) and events; `columns` are added as they are."""
    rng = np.random.default_rng(seed)
    manifest = Manifest.model_validate(
        {
            "schema_version": 1,
            "name": "tables",
            "site": "tables",
            "channels": (),
            "endpoints": ("os", "dm"),
            "time_zero": "surgery",
        }
    )
    days = rng.integers(100, 3000, patients)
    sheet = pd.DataFrame(
        {
            "patient_id": [f"P{number:03d}" for number in range(patients)],
            "age": rng.integers(20, 90, patients),
            "location": rng.choice(LOCATIONS, patients),
            "sex": "F",
            "os_days": days,
            "os_event": rng.integers(0, 2, patients),
            "dm_days": days,
            "dm_event": rng.integers(0, 2, patients),
        }
        | columns
    )
    write_cohort_tables(root, manifest, sheet)
    return load_cohort(root)
