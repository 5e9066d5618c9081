"""Calibration against lifelines, and its answers where there is little to say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from simulated_predictions import TIMES, everyone, simulate

from stsmm_core.survival.calibration import (
    calibration_curve,
    calibration_errors,
    calibration_groups,
    calibration_slope,
    log_hazard_of,
    observed_to_expected,
    spline_basis,
)
from stsmm_core.survival.estimates import draw_patients, samples_of

HORIZON = 900.0


def predicted(predictions):
    return predictions.absolute_risk[:, list(TIMES).index(HORIZON)]


def table(predictions):
    return pd.DataFrame(
        {
            "time": np.minimum(predictions.time, HORIZON),
            "event": predictions.event * (predictions.time <= HORIZON),
            "x": np.log(-np.log(1 - predicted(predictions))),
        }
    )


def test_observed_to_expected_equals_lifelines():
    predictions = simulate()
    observed = 1 - KaplanMeierFitter().fit(predictions.time, predictions.event).predict(HORIZON)
    value = observed_to_expected(predictions, everyone(predictions), horizon=HORIZON)[0]
    assert value == pytest.approx(observed / predicted(predictions).mean(), rel=1e-10)


def test_slope_equals_lifelines():
    predictions = simulate()
    fitted = CoxPHFitter().fit(table(predictions), "time", "event")
    value = calibration_slope(predictions, everyone(predictions), horizon=HORIZON)[0]
    assert value == pytest.approx(fitted.params_["x"], rel=1e-5)


def test_errors_equal_a_spline_in_lifelines():
    predictions = simulate()
    columns = table(predictions)
    knots = np.quantile(columns["x"], [0.1, 0.5, 0.9])
    columns["bend"] = spline_basis(columns["x"].to_numpy(), knots)[:, 1]
    fitted = CoxPHFitter().fit(columns, "time", "event")
    observed = 1 - fitted.predict_survival_function(columns, times=[HORIZON]).to_numpy()[0]
    differences = np.abs(observed - predicted(predictions))
    errors = calibration_errors(predictions, everyone(predictions), horizon=HORIZON)
    assert errors.ici[0] == pytest.approx(differences.mean(), rel=1e-4)
    assert errors.e50[0] == pytest.approx(np.quantile(differences, 0.5), rel=1e-4)
    assert errors.e90[0] == pytest.approx(np.quantile(differences, 0.9), rel=1e-4)


def test_spline_is_linear_beyond_its_outer_knots_and_smooth():
    knots = np.array([-1.0, 0.5, 2.0])
    basis = spline_basis(np.array([-3.0, -2, -1]), knots)
    np.testing.assert_allclose(basis[:, 1], 0)
    np.testing.assert_allclose(np.diff(spline_basis(np.array([2.0, 3, 4, 5]), knots)[:, 1], n=2), 0, atol=1e-12)


def test_replicates_equal_repeating_the_rows():
    predictions = simulate(patients=60)
    samples = samples_of(predictions, draw_patients(60, 4, np.random.default_rng(1)))
    slopes = calibration_slope(predictions, samples, horizon=HORIZON)
    ratios = observed_to_expected(predictions, samples, horizon=HORIZON)
    for sample, counts in enumerate(samples.astype(int)):
        rows = predictions[np.repeat(np.arange(60), counts)]
        assert slopes[sample] == pytest.approx(calibration_slope(rows, everyone(rows), horizon=HORIZON)[0], rel=1e-6)
        assert ratios[sample] == pytest.approx(observed_to_expected(rows, everyone(rows), horizon=HORIZON)[0], rel=1e-9)


def test_quantiles_of_a_sample_are_those_of_its_repeated_rows():
    """Checked on a sample of twice everyone: the fit stays, the quantiles are those of the doubled errors."""
    predictions = simulate(patients=60)
    twice = np.full((1, 60), 2.0)
    once = calibration_errors(predictions, everyone(predictions), horizon=HORIZON)
    double = calibration_errors(predictions, twice, horizon=HORIZON)
    assert double.ici[0] == pytest.approx(once.ici[0], rel=1e-8)
    repeated = predictions[np.repeat(np.arange(60), 2)]
    doubled = calibration_errors(repeated, everyone(repeated), horizon=HORIZON)
    assert double.e50[0] == pytest.approx(doubled.e50[0], rel=1e-2)


def test_curve_of_true_risks_lies_near_the_diagonal():
    predictions = simulate(3, patients=3000, development=6000, noise=0.0)
    risk, observed = calibration_curve(predictions, horizon=HORIZON)
    middle = (risk > 0.1) & (risk < 0.9)
    assert np.abs(observed - risk)[middle].max() < 0.06  # about three standard errors of 3000 patients


def test_risks_that_are_too_moderate_have_a_slope_above_one():
    predictions = simulate(3, patients=2000, noise=0.0)
    hazard = np.exp(log_hazard_of(predictions.absolute_risk) / 2)
    halved = replace(predictions, absolute_risk=1 - np.exp(-hazard))
    slopes = [calibration_slope(each, everyone(each), horizon=HORIZON)[0] for each in (predictions, halved)]
    assert slopes[0] == pytest.approx(1, abs=0.1)
    assert slopes[1] == pytest.approx(2 * slopes[0], rel=1e-3)


def test_groups_equal_lifelines():
    predictions = simulate()
    groups = calibration_groups(predictions, horizon=HORIZON)
    assert len(groups.observed) == 5
    lowest = np.argsort(predicted(predictions), kind="stable")[:24]
    fitted = KaplanMeierFitter().fit(predictions.time[lowest], predictions.event[lowest])
    bounds = fitted.confidence_interval_survival_function_.loc[:HORIZON].iloc[-1]
    assert groups.observed[0] == pytest.approx(1 - fitted.predict(HORIZON))
    assert groups.low[0] == pytest.approx(1 - bounds.iloc[1], rel=1e-6)
    assert groups.high[0] == pytest.approx(1 - bounds.iloc[0], rel=1e-6)


def test_a_patient_in_several_repeats_does_not_narrow_the_groups():
    predictions = simulate()
    thrice = predictions[np.tile(np.arange(len(predictions)), 3)]
    once, repeated = (calibration_groups(each, horizon=HORIZON) for each in (predictions, thrice))
    np.testing.assert_allclose(repeated.low, once.low, rtol=1e-8)


def test_groups_shrink_to_those_with_events_and_may_be_none():
    predictions = simulate(patients=40)
    first = np.flatnonzero((predictions.event > 0) & (predictions.time <= HORIZON))[:1]
    rare = replace(predictions, event=np.isin(np.arange(40), first).astype(float))
    assert len(calibration_groups(rare, horizon=HORIZON).observed) == 1
    never = replace(predictions, event=np.zeros(40))
    assert len(calibration_groups(never, horizon=HORIZON).observed) == 0


def test_certain_predictions_stay_finite():
    predictions = simulate()
    certain = replace(predictions, absolute_risk=np.round(predictions.absolute_risk))
    assert np.isfinite(log_hazard_of(certain.absolute_risk)).all()
    assert np.isfinite(calibration_slope(certain, everyone(certain), horizon=HORIZON)).all()
