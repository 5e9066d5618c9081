"""Time-dependent ROC curve for a figure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from stsmm_core.survival.concordance import outranks
from stsmm_core.survival.discrimination import auc, case_and_control_weights
from stsmm_core.survival.predictions import Predictions

CURVE_POINTS = 101


@dataclass(frozen=True, eq=False)
class RocCurve:
    """False and true positive rates, shape (points,) each, and the AUC of the unsmoothed curve.

    Without points and AUC where no stratum has both a case and a control.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    auc: float | None


def smoothed_roc(predictions: Predictions, *, horizon: float) -> RocCurve:
    """Cumulative/dynamic ROC curve at a horizon in days, smoothed by the binormal model.

    A case's placement value is the weighted share of controls of its stratum with a higher risk; the ROC curve is the
    distribution of placement values (Pepe and Cai 2004; within strata: Janes and Pepe 2009), and the binormal curve
    (Dorfman and Alf 1969) takes their probits as normal. Weights are those of `discrimination.auc`.
    """
    probits, weights = [], []
    for stratum in np.unique(predictions.stratum):
        rows = predictions[predictions.stratum == stratum]
        case, control = case_and_control_weights(rows, horizon)
        is_case, is_control = case > 0, control > 0
        if not is_control.any():
            continue
        higher = outranks(rows.risk[is_control], rows.risk[is_case]).mean(axis=0)
        # Placement values of 0 and 1 have no probit; half a control is what the data resolve.
        count = is_control.sum()
        probits.append(ndtri((higher * count + 0.5) / (count + 1)))
        weights.append(case[is_case] * control.sum())
    if sum(len(each) for each in probits) == 0:
        return RocCurve(np.zeros(0), np.zeros(0), None)
    probit, weight = np.concatenate(probits), np.concatenate(weights)
    centre = np.average(probit, weights=weight)
    spread = np.sqrt(np.average((probit - centre) ** 2, weights=weight))
    fpr = np.linspace(0, 1, CURVE_POINTS)
    with np.errstate(divide="ignore"):
        tpr = ndtr((ndtri(fpr) - centre) / max(spread, np.finfo(float).eps))
    return RocCurve(fpr, tpr, float(auc(predictions, np.ones((1, len(predictions))), horizon=horizon)[0]))
