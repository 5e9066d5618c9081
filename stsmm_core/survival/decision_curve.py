"""Decision curve: what acting on a predicted risk is worth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.discrimination import column_of
from stsmm_core.survival.kaplan_meier import resampled_survival
from stsmm_core.survival.predictions import Predictions

THRESHOLDS = np.arange(1, 100) / 100


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit over threshold risks of acting on the model and of acting on everyone, shape (thresholds,) each.

    Acting on nobody has net benefit 0.
    """

    threshold: NDArray[np.float64]
    model: NDArray[np.float64]
    everyone: NDArray[np.float64]


def decision_curve(predictions: Predictions, *, horizon: float) -> DecisionCurve:
    """Net benefit at a horizon in days, with censoring (Vickers et al. 2008).

    The risk among the patients at or above a threshold is that of their Kaplan-Meier curve. The curve ends before the
    first threshold above which some patients are left, but none was followed to the horizon.
    """
    predicted = predictions.absolute_risk[:, column_of(predictions, horizon)]
    positive = (predicted >= THRESHOLDS[:, None]).astype(float)
    share = positive.mean(axis=1)
    risk = 1 - resampled_survival(time=predictions.time, event=predictions.event, samples=positive, at=horizon)
    overall = 1 - resampled_survival(
        time=predictions.time, event=predictions.event, samples=np.ones((1, len(predictions))), at=horizon
    )
    odds = THRESHOLDS / (1 - THRESHOLDS)
    model = np.where(share > 0, share * (risk - (1 - risk) * odds), 0.0)
    unknown = np.flatnonzero(np.isnan(model))
    end = unknown[0] if len(unknown) else len(THRESHOLDS)
    return DecisionCurve(THRESHOLDS[:end], model[:end], (overall - (1 - overall) * odds)[:end])
