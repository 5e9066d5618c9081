"""Patients whose hazard is known, in the shape of a cohort's tables."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from stsmm_core.cohort.clinical import ClinicalEncoding, fit_encoding, summarise
from stsmm_core.cohort.cohort import Outcomes
from stsmm_core.cohort.dictionary import PAPER_VARIABLES, VARIABLES, Category
from stsmm_core.cohort.splits import Fold
from stsmm_core.comparators.study import Study
from stsmm_core.config import parse_experiment
from stsmm_core.training.fitted import curve_times
from stsmm_core.training.site_data import SiteData

CONFIG = """
[comparators]
trees = 10
strengths = 3
inner_folds = 2

[evaluation]
scheme = "cv"
folds = 3
"""


@dataclass(frozen=True)
class Patients:
    clinical: pd.DataFrame
    radiomics: pd.DataFrame
    time: NDArray[np.float64]
    event: NDArray[np.float64]

    def encoding(self, rows, variables=PAPER_VARIABLES) -> ClinicalEncoding:
        return fit_encoding(summarise(self.clinical.iloc[rows], variables), variables)


def simulate(patients: int = 120, *, seed: int = 0, features: int = 20, missing: float = 0.1) -> Patients:
    """Hazard doubles with each SD of log volume and of the first radiomics feature, and with high grade."""
    rng = np.random.default_rng(seed)
    index = pd.Index([f"P{number:03d}" for number in range(patients)])
    columns: dict[str, NDArray] = {}
    for key, variable in VARIABLES.items():
        if isinstance(variable, Category):
            columns[key] = rng.choice(np.array(variable.levels, dtype=object), size=patients)
        else:
            columns[key] = np.exp(rng.normal(3, 0.8, size=patients)).clip(variable.low, variable.high)
    radiomics = pd.DataFrame(
        rng.normal(50, 10, size=(patients, features)), index, [f"t1_original_x_{k}" for k in range(features)]
    )
    hazard = (np.log(columns["volume_cm3"]) - 3) / 0.8 + (radiomics.iloc[:, 0] - 50) / 10 + (columns["grade"] == "high")
    events = rng.exponential(1500 * np.exp(-np.log(2) * hazard))
    censored = rng.uniform(200, 5000, size=patients)
    clinical = pd.DataFrame(columns, index)
    gone = rng.random(clinical.shape) < missing
    clinical = clinical.astype(object).mask(gone, np.nan)
    for key, variable in VARIABLES.items():
        if not isinstance(variable, Category):
            clinical[key] = clinical[key].astype(float)
    return Patients(
        clinical,
        radiomics,
        np.ceil(np.minimum(events, censored)),
        (events <= censored).astype(float),
    )


def spoiled(patients, rows):
    """The same patients, with nonsense in the given rows."""
    clinical, radiomics = patients.clinical.copy(), patients.radiomics.copy()
    for column in ("age", "size_cm", "volume_cm3"):
        clinical.iloc[rows, clinical.columns.get_loc(column)] = 1e6
    for column in ("sex", "histology", "grade"):
        clinical.iloc[rows, clinical.columns.get_loc(column)] = np.nan
    radiomics.iloc[rows] = -1e9
    return type(patients)(clinical, radiomics, patients.time, patients.event)


def simulated_study(patients: Patients) -> Study:
    """Two sites and three folds of cross-validation; dm is unknown of a few patients."""
    experiment, count = parse_experiment(CONFIG, source="test"), len(patients.time)
    time = np.column_stack([patients.time, np.where(np.arange(count) % 10 == 3, np.nan, np.ceil(0.7 * patients.time))])
    event = np.where(np.isfinite(time), patients.event[:, None], np.nan)
    rows = np.arange(count)
    folds = []
    for fold in range(experiment.evaluation.folds):
        tested = rows % 6 // 2 == fold
        development = rows[~tested]
        folds.append(Fold(np.delete(development, np.s_[::4]), development[::4], rows[tested]))
    data = SiteData(
        "pooled",
        tuple(patients.clinical.index),
        patients.clinical,
        Outcomes(time, event),
        torch.zeros(count, 1, 1, 1, 1),
        np.ones(count, dtype=bool),
    )
    times = curve_times(experiment.evaluation.horizons_years)
    return Study(experiment, data, tuple(folds), ("t1",), ("site1", "site2"), rows % 2, times)
