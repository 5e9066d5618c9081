"""Patients whose hazard is known, in the shape of a cohort's tables."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stsmm_core.cohort.clinical import ClinicalEncoding, fit_encoding, summarise
from stsmm_core.cohort.dictionary import PAPER_VARIABLES, VARIABLES, Category


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
