"""All figures and curves of one model and endpoint, or the reason why one cannot be given."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stsmm_core.cohort.dictionary import DAYS_PER_YEAR
from stsmm_core.survival import brier, calibration, discrimination
from stsmm_core.survival.decision_curve import decision_curve
from stsmm_core.survival.estimates import LEAST_EVENTS, Estimate, estimate, no_estimate, samples_of, too_few_events
from stsmm_core.survival.predictions import Predictions
from stsmm_core.survival.roc import smoothed_roc

LEAST_AT_RISK = 5
"""A horizon counts as reached by the follow-up when this many test patients were followed beyond it."""
EVENTS_PER_COVARIATE = 10
"""Events by the horizon that a calibration model needs for each of its covariates (Peduzzi 1995)."""
SLOPE_EVENTS = EVENTS_PER_COVARIATE
SPLINE_EVENTS = 2 * EVENTS_PER_COVARIATE

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From samples, shape (samples, rows), to a figure each, shape (samples,)."""


def evaluate(
    predictions: Predictions,
    *,
    horizons_years: Sequence[float],
    multiplicities: NDArray[np.float64],
) -> dict[str, Estimate]:
    """Every figure of one model and endpoint.

    Keys: harrell_c, uno_c, ibs, ibs_null and, for each horizon H in years, auc_H, brier_H, brier_null_H, ipa_H, oe_H,
    slope_H, ici_H, e50_H and e90_H. A figure that the data do not give is an `Estimate` without value and with a
    reason; it is never an exception. The integrated Brier scores run over the grid's times up to the largest horizon
    that can be given.

    Args:
        multiplicities: of the bootstrap samples, shape (replicates, patients), from `draw_patients`; the same for all
            models of an endpoint.
    """
    samples = samples_of(predictions, multiplicities)
    figures = {
        "harrell_c": harrell_c(predictions, samples),
        "uno_c": _uno_c(predictions, samples),
        **_integrated(predictions, samples, horizons_years),
    }
    for years in horizons_years:
        at_horizon = _at_horizon(predictions, samples, years * DAYS_PER_YEAR)
        figures |= {f"{name}_{label(years)}": figure for name, figure in at_horizon.items()}
    return figures


def harrell_c(predictions: Predictions, samples: NDArray[np.float64]) -> Estimate:
    """Harrell's C with its interval (also for subgroups); samples as in `estimates.samples_of`."""
    return _estimate(predictions, samples, partial(discrimination.harrell_c, predictions))


def curves(predictions: Predictions, *, horizons_years: Sequence[float]) -> dict[str, dict[str, Any]]:
    """ROC, calibration and decision curve at each horizon that the data reach, keyed by the horizon in years.

    roc: fpr, tpr, auc (empty and None where no stratum has a pair to compare). calibration: predicted,
    observed (empty below `SPLINE_EVENTS` events), and groups with predicted, observed, low, high. decision: threshold,
    model, all, none.
    All values are lists of numbers.
    """
    drawn: dict[str, dict[str, Any]] = {}
    for years in horizons_years:
        horizon = years * DAYS_PER_YEAR
        if why_not(predictions, horizon) is not None:
            continue
        roc = smoothed_roc(predictions, horizon=horizon)
        decision = decision_curve(predictions, horizon=horizon)
        drawn[label(years)] = {
            # No stratum may hold both a case and a control, and then there is no curve.
            "roc": None if roc.auc is None else {"fpr": roc.fpr.tolist(), "tpr": roc.tpr.tolist(), "auc": roc.auc},
            "calibration": _calibration_curves(predictions, horizon),
            "decision": {
                "threshold": decision.threshold.tolist(),
                "model": decision.model.tolist(),
                "all": decision.everyone.tolist(),
                "none": [0.0] * len(decision.threshold),
            },
        }
    return drawn


def label(years: float) -> str:
    """How a horizon is named in keys."""
    return f"{years:g}"


def why_not(predictions: Predictions, horizon: float) -> str | None:
    """The reason why nothing can be said at a horizon in days; None where something can."""
    if not np.isclose(predictions.times, horizon).any():
        return "no predictions at this time"
    return too_little(
        horizon,
        last_time=predictions.last_development_time.min(initial=np.inf),
        censoring=predictions.censoring_at[:, discrimination.column_of(predictions, horizon)].min(initial=np.inf),
        beyond=_patients(predictions, predictions.time > horizon),
        events=_events(predictions, horizon),
    )


def too_little(horizon: float, *, last_time: float, censoring: float, beyond: int, events: int) -> str | None:
    """The reason why the patients say nothing of a horizon in days; None where they do.

    Args:
        last_time: days that development patients were followed, the least of the models.
        censoring: survival of their censoring curve at the horizon, the least of the models.
        beyond, events: test patients followed beyond it, and with the event by then.
    """
    if last_time < horizon:
        return "beyond the follow-up of the development patients"
    if censoring <= discrimination.LEAST_CENSORING_SURVIVAL:
        share = discrimination.LEAST_CENSORING_SURVIVAL
        return f"at most {100 * share:.0f} % of the development patients would be followed so long"
    if beyond < LEAST_AT_RISK:
        return f"fewer than {LEAST_AT_RISK} test patients were followed so long"
    if events < LEAST_EVENTS:
        return f"fewer than {LEAST_EVENTS} events by then"
    return None


def _uno_c(predictions: Predictions, samples: NDArray[np.float64]) -> Estimate:
    tau = discrimination.uno_tau(predictions)
    return _estimate(predictions, samples, partial(discrimination.uno_c, predictions, tau=tau))


def _integrated(
    predictions: Predictions, samples: NDArray[np.float64], horizons_years: Sequence[float]
) -> dict[str, Estimate]:
    reached = [years * DAYS_PER_YEAR for years in horizons_years if why_not(predictions, years * DAYS_PER_YEAR) is None]
    until = max(reached, default=0.0)
    reason = None if reached else "no horizon is reached"
    scores = {"ibs": brier.integrated_brier, "ibs_null": brier.integrated_null_brier}
    return {
        name: _estimate(
            predictions,
            samples,
            partial(score, predictions, until=until),
            until=until,
            reason=reason,
            undefined="a single time to integrate over",
        )
        for name, score in scores.items()
    }


def _at_horizon(predictions: Predictions, samples: NDArray[np.float64], horizon: float) -> dict[str, Estimate]:
    reason = why_not(predictions, horizon)

    def figure(score: Callable[..., NDArray[np.float64]], undefined: str = "no comparable pairs") -> Estimate:
        return _estimate(
            predictions,
            samples,
            partial(score, predictions, horizon=horizon),
            until=horizon,
            reason=reason,
            undefined=undefined,
        )

    slope = _estimate(
        predictions,
        samples,
        partial(calibration.calibration_slope, predictions, horizon=horizon),
        until=horizon,
        reason=reason or _why_no_slope(predictions, horizon),
        undefined="the calibration model has no maximum",
    )
    return {
        "auc": figure(discrimination.auc),
        "brier": figure(brier.brier),
        "brier_null": figure(brier.null_brier),
        "ipa": figure(brier.index_of_prediction_accuracy),
        "oe": figure(calibration.observed_to_expected, undefined="no event is expected"),
        "slope": slope,
        **_calibration_errors(predictions, samples, horizon, reason or _why_no_spline(predictions, horizon)),
    }


def _calibration_errors(
    predictions: Predictions, samples: NDArray[np.float64], horizon: float, reason: str | None
) -> dict[str, Estimate]:
    n, events = _patients(predictions), _events(predictions, horizon)
    names = ("ici", "e50", "e90")
    if reason is None:
        errors = calibration.calibration_errors(predictions, samples, horizon=horizon)
        if np.isfinite(errors.ici[0]):
            return {name: estimate(getattr(errors, name), n=n, events=events) for name in names}
        reason = "the calibration model has no maximum"
    return {name: no_estimate(reason, n=n, events=events) for name in names}


def _calibration_curves(predictions: Predictions, horizon: float) -> dict[str, Any]:
    predicted, observed = np.zeros(0), np.zeros(0)
    if _why_no_spline(predictions, horizon) is None:
        predicted, observed = calibration.calibration_curve(predictions, horizon=horizon)
        if not np.isfinite(observed).all():
            predicted, observed = np.zeros(0), np.zeros(0)
    groups = calibration.calibration_groups(predictions, horizon=horizon)
    return {
        "predicted": predicted.tolist(),
        "observed": observed.tolist(),
        "groups": {name: getattr(groups, name).tolist() for name in ("predicted", "observed", "low", "high")},
    }


def _why_no_slope(predictions: Predictions, horizon: float) -> str | None:
    if _events(predictions, horizon) < SLOPE_EVENTS:
        return f"fewer than {SLOPE_EVENTS} events by then"
    return None if calibration.varies(predictions, horizon=horizon) else "all predictions are the same"


def _why_no_spline(predictions: Predictions, horizon: float) -> str | None:
    if _events(predictions, horizon) < SPLINE_EVENTS:
        return f"fewer than {SPLINE_EVENTS} events by then"
    return None if calibration.has_spline(predictions, horizon=horizon) else "too few different predictions"


def _estimate(
    predictions: Predictions,
    samples: NDArray[np.float64],
    statistic: Statistic,
    *,
    until: float = np.inf,
    reason: str | None = None,
    undefined: str = "no comparable pairs",
) -> Estimate:
    n, events = _patients(predictions), _events(predictions, until)
    reason = reason or too_few_events(events)
    if reason is not None:
        return no_estimate(reason, n=n, events=events)
    values = statistic(samples)
    return (
        estimate(values, n=n, events=events) if np.isfinite(values[0]) else no_estimate(undefined, n=n, events=events)
    )


def _patients(predictions: Predictions, rows: NDArray[np.bool_] | slice = slice(None)) -> int:
    return len(np.unique(predictions.patient[rows]))


def _events(predictions: Predictions, until: float) -> int:
    """Patients with an event by a time."""
    return _patients(predictions, (predictions.event > 0) & (predictions.time <= until))
