"""Patients of a known hazard: tables without images.

Half of what drives the hazard stands in the clinical table, half can only be seen in the images (the strength of the
tumour's texture and the share of its necrotic core, both independent of every clinical variable). So a model of both
modalities beats a model of either, and by how much is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from stsmm_core.cohort.dictionary import ENDPOINTS, PATIENT_ID, endpoint_columns
from stsmm_core.cohort.synthetic_images import Scanner, Tumour

WITHOUT_IMAGE = 0.03
METASTATIC = 0.05
MISSING_CELLS = 0.05
SOMETIMES_MISSING = ("grade", "depth", "radiotherapy")
COMPUTED_FROM_MASK = ("size_cm", "volume_cm3")
TYPICAL_SIZE_CM = 8.5
GOLDEN_RATIO = 1.6180339887
FOLLOW_UP_DAYS = (500.0, 4400.0)
"""Administrative censoring, uniform."""

HISTOLOGIES = {
    "leiomyosarcoma": 0.11,
    "dedifferentiated_liposarcoma": 0.08,
    "pleomorphic_liposarcoma": 0.05,
    "myxoid_liposarcoma": 0.12,
    "mpnst": 0.05,
    "myxofibrosarcoma": 0.16,
    "synovial_sarcoma": 0.09,
    "undifferentiated_pleomorphic_sarcoma": 0.28,
    "vascular_sarcoma": 0.02,
    "other": 0.04,
}

Streams = Mapping[str, np.random.Generator]


@dataclass(frozen=True)
class Hazard:
    """A Weibull proportional hazard: log hazard ratios, and the baseline at a risk of 0.

    Attributes:
        heterogeneity: a standard deviation of the latent texture strength.
        core: a standard deviation of the latent core share.
        age: a decade above 58 years.
        size: a doubling above 8.5 cm.
        scale_days: Weibull scale of an average site.
    """

    heterogeneity: float
    core: float
    age: float
    size: float
    grade: Mapping[str, float]
    histology: Mapping[str, float]
    deep: float
    metastatic: float
    scale_days: float
    shape: float


HAZARDS = {
    "os": Hazard(
        heterogeneity=0.73,
        core=0.57,
        age=0.31,
        size=0.40,
        grade={"low": -1.0, "intermediate": -0.2, "high": 0.40},
        histology={"leiomyosarcoma": 0.3, "mpnst": 0.5, "vascular_sarcoma": 0.7, "myxoid_liposarcoma": -0.5},
        deep=0.3,
        metastatic=1.0,
        scale_days=6000.0,
        shape=1.2,
    ),
    "dm": Hazard(
        heterogeneity=0.57,
        core=0.72,
        age=0.05,
        size=0.60,
        grade={"low": -1.2, "intermediate": -0.2, "high": 0.45},
        histology={"leiomyosarcoma": 0.5, "synovial_sarcoma": 0.3, "myxofibrosarcoma": -0.4},
        deep=0.4,
        metastatic=0.0,
        scale_days=5000.0,
        shape=1.0,
    ),
}
"""Strengths found by simulation (6 seeds, 4 sites of 3000 patients); Harrell's C within a site, and the share censored:

    endpoint   all (oracle)   clinical part   image part   censored
    os             0.78           0.68           0.70        0.60
    dm             0.77           0.67           0.70        0.61

The two parts alone are the best that a model of one modality can reach; the oracle bounds a model of both.
"""


@dataclass(frozen=True)
class SiteShifts:
    """How a site differs from the average one, each from -1 to 1 times how far sites differ."""

    age: float
    grade: float
    location: float
    baseline: float


@dataclass(frozen=True)
class SimulatedSite:
    """A site's patients as they truly are: no cell missing, no image drawn. One row a patient in every table.

    Attributes:
        clinical: the columns of clinical.csv; `dm` is empty for a patient metastatic at presentation.
        hidden: what no sheet says: `heterogeneity` and `core` (standardised, independent of all else), the tumour's
            relative axes `middle_axis` and `short_axis`, and `has_image`.
        clinical_risk: the part of the log relative hazard that the clinical table explains, one column an endpoint.
        image_risk: the part that only the images show.
        missing: cells of `clinical` that the sheet leaves empty, a truth value each.
        scanner: how the site's images look.
    """

    clinical: pd.DataFrame
    hidden: pd.DataFrame
    clinical_risk: pd.DataFrame
    image_risk: pd.DataFrame
    missing: pd.DataFrame
    scanner: Scanner

    @property
    def oracle(self) -> pd.DataFrame:
        """The true log relative hazard without the site's baseline, one column an endpoint."""
        return self.clinical_risk + self.image_risk

    def tumours(self) -> list[Tumour | None]:
        """What each patient's images must show; None for a patient without."""
        sizes = self.clinical["size_cm"]
        columns = [self.hidden[name] for name in ("middle_axis", "short_axis", "heterogeneity", "core", "has_image")]
        return [
            Tumour(10 * size, middle_axis, short_axis, heterogeneity, core) if has_image else None
            for size, middle_axis, short_axis, heterogeneity, core, has_image in zip(sizes, *columns, strict=True)
        ]


_STREAMS = (
    "practice",
    "scanner",
    "age",
    "sex",
    "histology",
    "size",
    "middle_axis",
    "short_axis",
    "grade",
    "location",
    "depth",
    "chemo",
    "metastasis",
    "radiotherapy",
    "heterogeneity",
    "core",
    "has_image",
    "missing",
    "os",
    "dm",
    "follow_up",
)


def simulate_site(*, site: int, patients: int, seed: int, shift: float = 1.0) -> SimulatedSite:
    """Draw a site's patients, their outcomes and their latent image features, without images.

    Every variable has its own random stream, so a patient is the same whatever the number of sites and patients.

    Args:
        site: 1, 2, …; sites differ in case mix, treatment, scanner and baseline hazard.
        patients: number of rows.
        seed: not negative.
        shift: how far sites differ, 1 as a rule: 0 makes them alike, 3 far apart.
    """
    streams = np.random.default_rng([seed, site]).spawn(len(_STREAMS))
    draw = dict(zip(_STREAMS, streams, strict=True))
    hidden = _draw_hidden(draw, patients)
    shifts = _draw_shifts(site, seed, shift)
    clinical = _draw_clinical(draw, hidden, shifts, site)
    clinical_risk = pd.DataFrame({name: _clinical_risk(clinical, HAZARDS[name]) for name in ENDPOINTS})
    image_risk = pd.DataFrame({name: _image_risk(hidden, HAZARDS[name]) for name in ENDPOINTS})
    clinical = pd.concat([clinical, _draw_outcomes(draw, clinical, clinical_risk + image_risk, shifts)], axis=1)
    return SimulatedSite(
        clinical,
        hidden,
        clinical_risk,
        image_risk,
        _draw_missing(draw, clinical, hidden),
        Scanner.draw(draw["scanner"], shift=shift),
    )


def _draw_shifts(site: int, seed: int, shift: float) -> SiteShifts:
    """Shifts that run through a golden-ratio sequence from a random start: evenly spread, neighbours far apart."""
    starts = np.random.default_rng([seed]).random(4)
    return SiteShifts(*(shift * (2 * ((starts + site * GOLDEN_RATIO) % 1) - 1)))


def _draw_hidden(draw: Streams, patients: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            # Cut at 2.5 standard deviations, so that texture and core stay within what an image can show.
            "heterogeneity": np.clip(draw["heterogeneity"].normal(size=patients), -2.5, 2.5),
            "core": np.clip(draw["core"].normal(size=patients), -2.5, 2.5),
            "middle_axis": draw["middle_axis"].uniform(0.7, 0.95, patients),
            "short_axis": draw["short_axis"].uniform(0.55, 0.7, patients),
            "has_image": draw["has_image"].random(patients) >= WITHOUT_IMAGE,
        }
    )


def _draw_clinical(draw: Streams, hidden: pd.DataFrame, shifts: SiteShifts, site: int) -> pd.DataFrame:
    """The eleven variables; age, grade, location and radiotherapy differ by site."""
    patients = len(hidden)
    radiotherapy = draw["practice"].dirichlet((6.0, 9.0, 5.0))
    high, axial = np.clip([0.58 + 0.12 * shifts.grade, 0.2 + 0.1 * shifts.location], 0.05, 0.95)
    age = np.clip(draw["age"].normal(58 + 5 * shifts.age, 15, patients), 18, 95).round().astype(int)
    size = np.clip(TYPICAL_SIZE_CM * np.exp(draw["size"].normal(0, 0.5, patients)), 3, 25).round(1)
    grade = draw["grade"].choice(
        ["low", "intermediate", "high"], patients, p=[0.4 * (1 - high), 0.6 * (1 - high), high]
    )
    location = draw["location"].choice(
        ["axial", "upper_extremity", "lower_extremity"], patients, p=[axial, 0.25 * (1 - axial), 0.75 * (1 - axial)]
    )
    deep = draw["depth"].random(patients) < expit(1.3 + 0.9 * np.log2(size / TYPICAL_SIZE_CM))
    chemo = draw["chemo"].random(patients) < np.where((grade == "high") & (age < 65), 0.35, 0.08)
    return pd.DataFrame(
        {
            PATIENT_ID: [f"site{site}_{number:04d}" for number in range(1, patients + 1)],
            "age": age,
            "sex": draw["sex"].choice(["F", "M"], patients, p=[0.45, 0.55]),
            "histology": draw["histology"].choice(list(HISTOLOGIES), patients, p=list(HISTOLOGIES.values())),
            "size_cm": size,
            "grade": grade,
            "location": location,
            "volume_cm3": (np.pi / 6 * size**3 * hidden["middle_axis"] * hidden["short_axis"]).round(1),
            "depth": np.where(deep, "deep", "superficial"),
            "neoadjuvant_chemo": np.where(chemo, "1", "0"),
            "metastasis_at_presentation": np.where(draw["metastasis"].random(patients) < METASTATIC, "1", "0"),
            "radiotherapy": draw["radiotherapy"].choice(
                ["none", "preoperative", "postoperative"], patients, p=radiotherapy
            ),
        }
    )


def _draw_outcomes(draw: Streams, clinical: pd.DataFrame, risk: pd.DataFrame, shifts: SiteShifts) -> pd.DataFrame:
    """Days and events as seen: the end of follow-up ends both, death ends the watch for metastasis."""
    patients = len(clinical)
    days = {
        name: np.exp(0.15 * shifts.baseline)
        * hazard.scale_days
        * (draw[name].exponential(size=patients) * np.exp(-risk[name].to_numpy())) ** (1 / hazard.shape)
        for name, hazard in HAZARDS.items()
    }
    follow_up = draw["follow_up"].uniform(*FOLLOW_UP_DAYS, patients)
    last_seen = {"os": follow_up, "dm": np.minimum(days["os"], follow_up)}
    columns = {}
    for name, censoring in last_seen.items():
        time_column, event_column = endpoint_columns(name)
        columns[time_column] = np.ceil(np.minimum(days[name], censoring)).astype(int)
        columns[event_column] = (days[name] <= censoring).astype(int)
    outcomes = pd.DataFrame(columns, dtype="Int64")
    outcomes.loc[clinical["metastasis_at_presentation"] == "1", list(endpoint_columns("dm"))] = pd.NA
    return outcomes


def _draw_missing(draw: Streams, clinical: pd.DataFrame, hidden: pd.DataFrame) -> pd.DataFrame:
    missing = pd.DataFrame(False, index=clinical.index, columns=clinical.columns)
    lost = [*SOMETIMES_MISSING, *COMPUTED_FROM_MASK]
    missing[lost] = draw["missing"].random((len(clinical), len(lost))) < MISSING_CELLS
    # Only a patient with a mask can lack the size: it is computed from there.
    missing.loc[~hidden["has_image"], list(COMPUTED_FROM_MASK)] = False
    return missing


def _image_risk(hidden: pd.DataFrame, hazard: Hazard) -> pd.Series:
    return hazard.heterogeneity * hidden["heterogeneity"] + hazard.core * hidden["core"]


def _clinical_risk(clinical: pd.DataFrame, hazard: Hazard) -> pd.Series:
    return (
        hazard.age * (clinical["age"] - 58) / 10
        + hazard.size * np.log2(clinical["size_cm"] / TYPICAL_SIZE_CM)
        + clinical["grade"].map(hazard.grade)
        + clinical["histology"].map(hazard.histology).fillna(0.0)
        + hazard.deep * (clinical["depth"] == "deep")
        + hazard.metastatic * (clinical["metastasis_at_presentation"] == "1")
    )
