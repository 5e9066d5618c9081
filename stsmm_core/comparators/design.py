"""From the clinical table and radiomics to a comparator's inputs, with nothing learned beyond the training patients."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from stsmm_core.cohort.clinical import ClinicalEncoding, fit_encoding, summarise
from stsmm_core.cohort.dictionary import VARIABLES, Category
from stsmm_core.cohort.splits import Rows
from stsmm_core.comparators.models import NothingToLearnFrom
from stsmm_core.comparators.specification import Specification
from stsmm_core.imaging.radiomics import channels_lacking

NO_IMAGE = "no image"
"""Indicator of the patients whose radiomics are the mean of the others'; `no <channel>` of those who have an image, but
not of that channel."""

CONSTANT = 1e-9
"""A standard deviation below this share of the largest value is rounding."""


@dataclass(frozen=True, eq=False)
class Design:
    """How patients become rows of a model's inputs.

    Attributes:
        encoding: of the model's clinical variables.
        logged: variables that are encoded as their logarithm.
        radiomics: mean and SD (columns `mean`, `sd`) of each feature used; empty where the model sees none.
        columns: inputs that vary among the training patients.
    """

    encoding: ClinicalEncoding
    logged: tuple[str, ...]
    radiomics: pd.DataFrame
    columns: tuple[str, ...]

    def inputs(self, clinical: pd.DataFrame, radiomics: pd.DataFrame | None) -> pd.DataFrame:
        """One row a patient of the clinical table, the same columns for every set of patients, no value missing.

        Args:
            radiomics: indexed like the clinical table; a patient who is not in it has no image.
        """
        return _all_inputs(self.encoding, self.logged, self.radiomics, clinical, radiomics)[list(self.columns)]


def fit_design(
    specification: Specification,
    clinical: pd.DataFrame,
    encoding: ClinicalEncoding,
    radiomics: pd.DataFrame | None,
    *,
    train: Rows,
) -> Design:
    """Learn a comparator's inputs from the training patients.

    A number is standardised, missing ones are the mean with an indicator beside them; a category is one-hot; a feature
    of the images is standardised, the mean where there is none, with an indicator a channel. What does not vary among
    the training patients is left out. For a Cox model with next to no penalty, so is the level that most training
    patients have: the other levels are compared with it, and a missing category counts as it.

    Args:
        encoding: of the experiment's variables, fitted to the training patients; what it lacks is fitted to them here.
        radiomics: indexed like the clinical table; a patient who is not in it has no image. None without images.
        train: rows of the clinical table.

    Raises:
        NothingToLearnFrom: when nothing is left.
    """
    keys = encoding.variables if specification.variables is None else specification.variables
    known = [key for key in keys if key in encoding.variables and key not in specification.logged]
    fitted_here = [key for key in keys if key not in known]
    table = _with_logarithms(clinical, specification.logged).iloc[train]
    moments = {**encoding.moments, **fit_encoding(summarise(table, fitted_here), fitted_here).moments}
    own = replace(encoding, variables=tuple(keys), moments={key: moments[key] for key in keys if key in moments})
    spread = _spread(radiomics, clinical.index[train]) if specification.radiomics else _spread(None, clinical.index)
    if specification.radiomics and spread.empty:
        disagreed = radiomics is not None and len(radiomics) and not len(radiomics.columns)
        raise NothingToLearnFrom(
            "the two readers agree on no feature" if disagreed else "no training patients with radiomics that vary"
        )
    inputs = _all_inputs(own, specification.logged, spread, clinical.iloc[train], radiomics)
    varies = np.ptp(inputs.to_numpy(), axis=0) > 0 if len(inputs) else np.zeros(inputs.shape[1], dtype=bool)
    reference = _reference_columns(own, inputs) if specification.estimator == "cox" else []
    columns = tuple(name for name in inputs.columns[varies] if name not in reference)
    if not columns:
        raise NothingToLearnFrom(f"no input varies among the {len(train)} training patients")
    return Design(own, specification.logged, spread, columns)


def encoding_columns(encoding: ClinicalEncoding) -> list[str]:
    """Names of the columns of encoded clinical variables, like `age`, `age missing` and `sex F`."""
    names: list[str] = []
    for key in encoding.variables:
        variable = VARIABLES[key]
        if isinstance(variable, Category):
            names += [f"{key} {level}" for level in variable.levels]
        else:
            names += [key, f"{key} missing"]
    return names


def _all_inputs(
    encoding: ClinicalEncoding,
    logged: tuple[str, ...],
    spread: pd.DataFrame,
    clinical: pd.DataFrame,
    radiomics: pd.DataFrame | None,
) -> pd.DataFrame:
    inputs = pd.DataFrame(index=clinical.index)
    if encoding.variables:
        encoded = encoding.encode(_with_logarithms(clinical, logged)).astype(np.float64)
        inputs = pd.DataFrame(encoded, clinical.index, encoding_columns(encoding))
    if spread.empty:
        return inputs
    features = (pd.DataFrame() if radiomics is None else radiomics).reindex(index=clinical.index, columns=spread.index)
    standardised = (features - spread["mean"]) / spread["sd"]
    without = features.isna().all(axis=1)
    lacks = channels_lacking(features).mul(~without, axis=0).add_prefix("no ")
    indicators = pd.concat([without.rename(NO_IMAGE), lacks], axis=1).astype(float)
    return pd.concat([inputs, standardised.fillna(0.0), indicators], axis=1)


def _spread(radiomics: pd.DataFrame | None, training: pd.Index) -> pd.DataFrame:
    """Mean and SD of the features that vary among the training patients."""
    if radiomics is None:
        return pd.DataFrame(columns=["mean", "sd"], dtype=float)
    values = radiomics.reindex(training).astype(float)
    spread = pd.DataFrame({"mean": values.mean(), "sd": values.std()})
    return spread[spread["sd"] > CONSTANT * values.abs().max()]


def _reference_columns(encoding: ClinicalEncoding, inputs: pd.DataFrame) -> list[str]:
    """The column of each category's most frequent level."""
    categories = {key: VARIABLES[key] for key in encoding.variables}
    return [
        str(inputs[[f"{key} {level}" for level in variable.levels]].sum().idxmax())
        for key, variable in categories.items()
        if isinstance(variable, Category)
    ]


def _with_logarithms(clinical: pd.DataFrame, keys: tuple[str, ...]) -> pd.DataFrame:
    return clinical.assign(**{key: np.log(clinical[key].astype(float)) for key in keys})
