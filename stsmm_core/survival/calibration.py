"""Calibration at a horizon: do absolute risks come true?

`samples` is how often each row is in each sample (`estimates.samples_of`); figures have shape (samples,) and are not a
number in a sample that does not give them. Predicted risks enter as log(-log(1 - risk)), the scale of a log cumulative
hazard; observed risks are those of patients followed to the horizon, in days.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.cox_regression import CoxFits, fit_cox
from stsmm_core.survival.discrimination import column_of
from stsmm_core.survival.kaplan_meier import kaplan_meier, resampled_survival
from stsmm_core.survival.predictions import Predictions

KNOTS = (0.1, 0.5, 0.9)
"""Quantiles of the predictions at which the spline has its knots (Harrell 2015, for three knots)."""
SMALLEST_RISK = float(np.finfo(float).eps)
"""Predicted risks are kept a rounding error away from 0 and 1, where the scale is infinite."""
GROUPS = 5
CURVE_POINTS = 100


@dataclass(frozen=True, eq=False)
class CalibrationErrors:
    """Absolute difference of predicted and smoothed observed risk: its mean (ICI), median and 90th percentile."""

    ici: NDArray[np.float64]
    e50: NDArray[np.float64]
    e90: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CalibrationGroups:
    """Patients in groups of rising predicted risk: mean predicted risk, observed risk with its interval, (groups,)."""

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def observed_to_expected(
    predictions: Predictions, samples: NDArray[np.float64], *, horizon: float
) -> NDArray[np.float64]:
    """1 - Kaplan-Meier at the horizon over the mean predicted risk (O/E; above 1: risks are too low)."""
    survival = resampled_survival(time=predictions.time, event=predictions.event, samples=samples, at=horizon)
    expected = samples @ _predicted(predictions, horizon)
    return np.divide(
        (1 - survival) * samples.sum(axis=1), expected, out=np.full(len(samples), np.nan), where=expected > 0
    )


def calibration_slope(predictions: Predictions, samples: NDArray[np.float64], *, horizon: float) -> NDArray[np.float64]:
    """Coefficient of log(-log(1 - risk)) in a Cox model up to the horizon (below 1: risks are too extreme).

    Definition of McLernon et al., Ann Intern Med 2023, doi 10.7326/M22-0844 (weak calibration at a fixed time).
    """
    covariates = log_hazard_of(_predicted(predictions, horizon))[:, None]
    return _fit(predictions, covariates, samples, horizon).coefficients[:, 0]


def calibration_errors(predictions: Predictions, samples: NDArray[np.float64], *, horizon: float) -> CalibrationErrors:
    """ICI, E50 and E90 (Austin, Harrell and van Klaveren 2020) of a Cox model on a restricted cubic spline.

    The knots are those of the data themselves in every sample.
    """
    predicted = _predicted(predictions, horizon)
    basis = spline_basis(log_hazard_of(predicted), _knots(predicted))
    observed = _fit(predictions, basis, samples, horizon).event_probability(basis)
    errors = np.abs(observed - predicted)
    size = samples.sum(axis=1)
    mean = np.divide((errors * samples).sum(axis=1), size, out=np.full(len(size), np.nan), where=size > 0)
    return CalibrationErrors(mean, _quantile(errors, samples, 0.5), _quantile(errors, samples, 0.9))


def calibration_curve(predictions: Predictions, *, horizon: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predicted risk, from the smallest to the largest, and smoothed observed risk, shape (CURVE_POINTS,) each."""
    predicted = _predicted(predictions, horizon)
    knots = _knots(predicted)
    everyone = np.ones((1, len(predictions)))
    fits = _fit(predictions, spline_basis(log_hazard_of(predicted), knots), everyone, horizon)
    grid = np.linspace(predicted.min(), predicted.max(), CURVE_POINTS)
    return grid, fits.event_probability(spline_basis(log_hazard_of(grid), knots))[0]


def calibration_groups(predictions: Predictions, *, horizon: float) -> CalibrationGroups:
    """Fifths of predicted risk, or fewer groups, so that each has an event by the horizon and a row beyond it.

    The interval is the log-log interval of Kaplan-Meier. A patient with several rows weighs as one.
    """
    predicted = _predicted(predictions, horizon)
    order = np.argsort(predicted, kind="stable")
    happened = (predictions.event > 0) & (predictions.time <= horizon)
    beyond = predictions.time > horizon
    for count in range(GROUPS, 0, -1):
        groups = np.array_split(order, count)
        if all(happened[rows].any() and beyond[rows].any() for rows in groups):
            break
    else:
        nothing = np.zeros(0)
        return CalibrationGroups(nothing, nothing, nothing, nothing)
    _, patient, rows_each = np.unique(predictions.patient, return_inverse=True, return_counts=True)
    weight = 1 / rows_each[patient]
    curves = [
        kaplan_meier(time=predictions.time[rows], event=predictions.event[rows], weight=weight[rows]) for rows in groups
    ]
    bounds = np.array([curve.interval(horizon) for curve in curves])
    observed = 1 - np.array([float(curve.at(horizon)) for curve in curves])
    mean = np.array([predicted[rows].mean() for rows in groups])
    return CalibrationGroups(mean, observed, 1 - bounds[:, 1], 1 - bounds[:, 0])


def has_spline(predictions: Predictions, *, horizon: float) -> bool:
    """Whether the predictions differ enough for the three knots of the spline to lie apart."""
    return bool((np.diff(_knots(_predicted(predictions, horizon))) > 0).all())


def varies(predictions: Predictions, *, horizon: float) -> bool:
    """Whether the predictions differ at all."""
    return bool(np.ptp(log_hazard_of(_predicted(predictions, horizon))) > 0)


def log_hazard_of(risk: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(-log(1 - risk)), the log cumulative hazard of an absolute risk."""
    return np.log(-np.log1p(-np.clip(risk, SMALLEST_RISK, 1 - SMALLEST_RISK)))


def spline_basis(values: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Restricted cubic spline with three knots, linear beyond the outer ones, shape (rows, 2) (Harrell 2015, 2.25)."""
    first, middle, last = knots

    def cubed(knot: float) -> NDArray[np.float64]:
        return np.maximum(values - knot, 0.0) ** 3

    bend = cubed(first) - cubed(middle) * (last - first) / (last - middle)
    bend += cubed(last) * (middle - first) / (last - middle)
    return np.stack([values, bend / (last - first) ** 2], axis=1)


def _fit(
    predictions: Predictions, covariates: NDArray[np.float64], samples: NDArray[np.float64], horizon: float
) -> CoxFits:
    return fit_cox(covariates, time=predictions.time, event=predictions.event, samples=samples, until=horizon)


def _predicted(predictions: Predictions, horizon: float) -> NDArray[np.float64]:
    return predictions.absolute_risk[:, column_of(predictions, horizon)]


def _knots(predicted: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.quantile(log_hazard_of(predicted), KNOTS)


def _quantile(values: NDArray[np.float64], samples: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Quantile of each row's values when each is repeated as often as it was drawn, interpolated between neighbours."""
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    last = np.cumsum(np.take_along_axis(samples, order, axis=1), axis=1)
    place = share * (last[:, -1:] - 1)
    lower, upper = (
        np.take_along_axis(ordered, (last > np.floor(at)).argmax(axis=1)[:, None], axis=1)[:, 0]
        for at in (place, np.ceil(place))
    )
    fraction = (place - np.floor(place))[:, 0]
    return lower + fraction * (upper - lower)
