"""The smoothed ROC curve."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from simulated_predictions import everyone, simulate

from stsmm_core.survival.discrimination import auc
from stsmm_core.survival.roc import smoothed_roc

HORIZON = 900.0


def binormal(separation, *, patients=2000):
    """Cases and controls with normal risks, without censoring before the horizon."""
    predictions = simulate(patients=patients)
    rng = np.random.default_rng(5)
    case = np.arange(patients) % 2 == 0
    return replace(
        predictions,
        time=np.where(case, 500.0, 1500.0),
        event=case.astype(float),
        censoring_before=np.ones(patients),
        censoring_at=np.ones_like(predictions.censoring_at),
        risk=rng.normal(size=patients) + separation * case,
    )


def test_is_the_curve_of_normal_risks():
    curve = smoothed_roc(binormal(1.0), horizon=HORIZON)
    with np.errstate(divide="ignore"):
        truth = norm.cdf(1.0 + norm.ppf(curve.fpr))
    assert np.abs(curve.tpr - truth).max() < 0.05  # 1000 cases: a standard error of about 0.015
    assert curve.auc == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.03)


def test_rises_from_corner_to_corner_with_about_the_area_of_the_auc():
    predictions = simulate(patients=300, strata=3)
    curve = smoothed_roc(predictions, horizon=HORIZON)
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(curve.tpr) >= 0).all()
    assert curve.auc == auc(predictions, everyone(predictions), horizon=HORIZON)[0]
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(curve.auc, abs=0.03)


def test_levels_of_risk_that_differ_between_strata_do_not_matter():
    predictions = simulate(patients=300, strata=3)
    shifted = replace(predictions, risk=predictions.risk + 1e3 * predictions.stratum)
    np.testing.assert_allclose(
        smoothed_roc(shifted, horizon=HORIZON).tpr, smoothed_roc(predictions, horizon=HORIZON).tpr, atol=1e-9
    )


def test_a_case_weighs_as_many_as_it_stands_for():
    """Censoring survival of one half before a case's event: it stands for itself and for one who was lost."""
    predictions = binormal(1.0, patients=60)
    double = (predictions.event > 0) & (predictions.risk < 1)
    assert 5 < double.sum() < 25
    weighted = replace(predictions, censoring_before=np.where(double, 0.5, 1.0))
    repeated = predictions[np.repeat(np.arange(60), np.where(double, 2, 1))]
    curves = [smoothed_roc(each, horizon=HORIZON) for each in (weighted, repeated)]
    np.testing.assert_allclose(curves[0].tpr, curves[1].tpr, atol=1e-12)
    assert curves[0].auc == pytest.approx(curves[1].auc)


def test_without_a_pair_there_is_no_curve():
    curve = smoothed_roc(replace(simulate(), event=np.zeros(120)), horizon=HORIZON)
    assert (len(curve.fpr), len(curve.tpr), curve.auc) == (0, 0, None)
