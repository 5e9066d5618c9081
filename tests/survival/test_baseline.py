"""Breslow's baseline hazard against scikit-survival and lifelines."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from sksurv.linear_model.coxph import BreslowEstimator

from stsmm_core.survival.baseline import breslow


def cohort(n=80, *, tied=True):
    rng = np.random.default_rng(2)
    risk = rng.normal(size=n)
    time = np.ceil(rng.exponential(500 * np.exp(-risk)) / (50 if tied else 1e-9)) * (50 if tied else 1e-9)
    return risk, time, (rng.random(n) < 0.6).astype(float)


def test_survival_equals_scikit_survival():
    risk, time, event = cohort()
    times = np.array([40.0, 100, 333, 1000])
    fitted = BreslowEstimator().fit(risk, event == 1, time)
    expected = [step([max(t, step.x[0]) for t in times]) for step in fitted.get_survival_function(risk)]
    got = breslow(risk, time=time, event=event).survival(risk, times)
    np.testing.assert_allclose(got[:, 1:], np.array(expected)[:, 1:], rtol=1e-10)
    np.testing.assert_allclose(got[:, 0], 1)


def test_baseline_equals_lifelines():
    risk, time, event = cohort(tied=False)
    fitted = CoxPHFitter().fit(pd.DataFrame({"x": risk, "time": time, "event": event}), "time", "event")
    fitted_risk = fitted.params_["x"] * (risk - risk.mean())
    expected = fitted.baseline_cumulative_hazard_
    got = breslow(fitted_risk, time=time, event=event).survival(np.zeros(1), expected.index.to_numpy())
    np.testing.assert_allclose(-np.log(got[0]), expected.iloc[:, 0], rtol=1e-8, atol=1e-12)


def test_without_an_event_everyone_survives():
    hazard = breslow(np.array([1.0, 2]), time=np.array([3.0, 4]), event=np.zeros(2))
    np.testing.assert_array_equal(hazard.survival(np.array([-5.0, 5]), np.array([1.0, 10])), 1)


def test_large_risks_stay_finite_and_shifts_cancel():
    risk, time, event = cohort()
    times = np.array([100.0, 500])
    reference = breslow(risk, time=time, event=event).survival(risk, times)
    for shift in (-1e4, 1e4):
        moved = breslow(risk + shift, time=time, event=event).survival(risk + shift, times)
        np.testing.assert_allclose(moved, reference, atol=1e-9)
    extreme = breslow(risk * 1e4, time=time, event=event).survival(risk * 1e4, times)
    assert np.isfinite(extreme).all()
    assert (np.diff(extreme, axis=1) <= 0).all()


@pytest.mark.parametrize("name", ["risk", "time"])
def test_what_is_not_a_number_is_refused(name):
    values = {"risk": np.array([1.0, 2]), "time": np.array([1.0, 2])}
    values[name] = np.array([1.0, np.nan])
    with pytest.raises(ValueError, match=f"{name} holds"):
        breslow(values["risk"], time=values["time"], event=np.ones(2))
