"""What a fitted comparator can say, and why there may be none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from stsmm_core.errors import StsmmError
from stsmm_core.survival.baseline import BaselineHazard

Floats = NDArray[np.float64]

LEAST_MORTALITY = 1e-3
"""Expected events below which a forest has no finite logarithm to give: no leaf of the patient's saw one."""


class CannotFit(StsmmError):  # noqa: N818 - a finding about the data, not a fault
    """A comparator cannot be fitted to an endpoint; the message is the reason to show instead of a number."""


class NotEnoughEvents(CannotFit):
    """The development patients have too few events."""


class NothingToLearnFrom(CannotFit):
    """None of a comparator's inputs varies among the training patients."""


class FittedModel(Protocol):
    """A fitted comparator."""

    def risk(self, features: pd.DataFrame) -> Floats:
        """Log relative hazard, shape (rows,); higher is worse."""
        ...

    def survival(self, features: pd.DataFrame, times: ArrayLike) -> Floats:
        """Survival at `times` in days, any and in any order; shape (rows, times), constant beyond the last event."""
        ...


@dataclass(frozen=True, eq=False)
class CoxModel:
    """A Cox model with Breslow's baseline hazard.

    Attributes:
        coefficients: log hazard ratios by input column.
        baseline: of a patient whose inputs are all 0.
        strength: of the penalty a patient, where cross-validation chose it.
    """

    coefficients: pd.Series
    baseline: BaselineHazard
    strength: float | None = None

    def risk(self, features: pd.DataFrame) -> Floats:
        """Log relative hazard, shape (rows,)."""
        return _matrix(features, self.coefficients.index) @ self.coefficients.to_numpy()

    def survival(self, features: pd.DataFrame, times: ArrayLike) -> Floats:
        """As the baseline hazard has it, shape (rows, times)."""
        return self.baseline.survival(self.risk(features), np.asarray(times, dtype=float))


@dataclass(frozen=True, eq=False)
class ForestModel:
    """A random survival forest (Ishwaran et al., Ann Appl Stat 2008, doi 10.1214/08-AOAS169)."""

    columns: tuple[str, ...]
    forest: Any

    def risk(self, features: pd.DataFrame) -> Floats:
        """Logarithm of the ensemble mortality, shape (rows,): events expected if all were like this patient."""
        mortality = self.forest.predict(_matrix(features, self.columns))
        return np.log(np.maximum(mortality, LEAST_MORTALITY))

    def survival(self, features: pd.DataFrame, times: ArrayLike) -> Floats:
        """Mean of the trees' Kaplan-Meier curves, shape (rows, times)."""
        curves = self.forest.predict_survival_function(_matrix(features, self.columns), return_array=True)
        steps = np.column_stack([np.ones(len(curves)), np.clip(curves, 0.0, 1.0)])
        return steps[:, np.searchsorted(self.forest.unique_times_, np.asarray(times, dtype=float), side="right")]


def _matrix(features: pd.DataFrame, columns: Sequence[str] | pd.Index) -> Floats:
    return features[list(columns)].to_numpy(dtype=float)
