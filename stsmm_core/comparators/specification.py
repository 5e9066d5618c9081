"""Which comparators there are, in the order of a report (the paper's Table 3, and three of ours)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Estimator = Literal["cox", "ridge", "elastic_net", "forest"]

ESTIMATOR_LABELS: Mapping[Estimator, str] = {
    "cox": "Cox model, slight fixed ridge",
    "ridge": "Cox model, ridge, strength by cross-validation",
    "elastic_net": "Cox model, elastic net, strength by cross-validation",
    "forest": "random survival forest",
}

SARCULATOR = ("age", "size_cm", "grade", "histology")
"""Sarculator's variables (Callegaro et al., Lancet Oncol 2016, doi 10.1016/S1470-2045(16)00010-3)."""

Published = tuple[float, float]
"""A C-index and its SD."""


@dataclass(frozen=True)
class Specification:
    """One comparator.

    Attributes:
        inputs: what it sees, for the table of models.
        variables: clinical variables; None for those of the experiment.
        logged: which of them enter as their logarithm.
        radiomics: whether it sees the features of the images.
        paper: the paper's C-index by endpoint (Table 3); None where it gives none.
    """

    key: str
    label: str
    inputs: str
    estimator: Estimator
    variables: tuple[str, ...] | None = None
    logged: tuple[str, ...] = ()
    radiomics: bool = False
    paper: Mapping[str, Published] | None = None


_SPECIFICATIONS = (
    Specification(
        "radiomics_clinical_elastic_net",
        "Radiomics + clinical, elastic net",
        "radiomics and clinical variables",
        "elastic_net",
        radiomics=True,
        paper={"os": (0.707, 0.095), "dm": (0.658, 0.085)},
    ),
    Specification(
        "radiomics_clinical_rsf",
        "Radiomics + clinical, RSF",
        "radiomics and clinical variables",
        "forest",
        radiomics=True,
    ),
    Specification(
        "radiomics_rsf",
        "Radiomics, RSF",
        "radiomics",
        "forest",
        variables=(),
        radiomics=True,
        paper={"os": (0.532, 0.116), "dm": (0.541, 0.099)},
    ),
    Specification(
        "clinical_rsf",
        "Clinical, RSF",
        "clinical variables",
        "forest",
        paper={"os": (0.655, 0.111), "dm": (0.639, 0.108)},
    ),
    Specification("clinical_cox", "Clinical, Cox", "clinical variables", "cox"),
    Specification("clinical_ridge", "Clinical, ridge Cox", "clinical variables", "ridge"),
    Specification(
        "sarculator_rsf",
        "Sarculator variables (refitted), RSF",
        "age, size, grade and histology, refitted: Sarculator's formula is not published",
        "forest",
        variables=SARCULATOR,
    ),
    Specification(
        "sarculator_cox",
        "Sarculator variables (refitted), Cox",
        "age, size, grade and histology, refitted: Sarculator's formula is not published",
        "cox",
        variables=SARCULATOR,
        paper={"os": (0.614, 0.117), "dm": (0.631, 0.097)},
    ),
    Specification(
        "volume", "Tumour volume", "volume, log scale", "cox", variables=("volume_cm3",), logged=("volume_cm3",)
    ),
)

COMPARATORS: Mapping[str, Specification] = {each.key: each for each in _SPECIFICATIONS}
"""Every comparator by key."""
