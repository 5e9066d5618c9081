"""Cox regression of many samples against scikit-survival and lifelines."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from stsmm_core.survival.cox_regression import fit_cox


def cohort(seed=0, n=150, *, tied=True, covariates=2):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, covariates)) * [3.0, 0.2][:covariates] + 5
    time = rng.exponential(600 * np.exp(-0.2 * values[:, 0]))
    time = np.ceil(time / 30) * 30 if tied else time
    return values, time, (rng.random(n) < 0.7).astype(float)


@pytest.mark.parametrize("covariates", [1, 2])
@pytest.mark.parametrize("tied", [False, True])
def test_equals_scikit_survival(covariates, tied):
    values, time, event = cohort(tied=tied, covariates=covariates)
    expected = CoxPHSurvivalAnalysis(ties="breslow", tol=1e-12).fit(values, Surv.from_arrays(event == 1, time))
    fits = fit_cox(values, time=time, event=event, samples=np.ones((1, len(time))), until=np.inf)
    np.testing.assert_allclose(fits.coefficients[0], expected.coef_, rtol=1e-6)
    last = time.max()
    probability = [1 - curve(last) for curve in expected.predict_survival_function(values)]
    np.testing.assert_allclose(fits.event_probability(values)[0], probability, rtol=1e-6)


def test_equals_lifelines_without_ties_and_censors_at_the_end():
    values, time, event = cohort(tied=False)
    until = float(np.median(time))
    table = pd.DataFrame(values, columns=["a", "b"]).assign(time=np.minimum(time, until), event=event * (time <= until))
    expected = CoxPHFitter().fit(table, "time", "event")
    fits = fit_cox(values, time=time, event=event, samples=np.ones((1, len(time))), until=until)
    np.testing.assert_allclose(fits.coefficients[0], expected.params_, rtol=1e-5)
    survival = expected.predict_survival_function(table, times=[until]).to_numpy()[0]
    np.testing.assert_allclose(fits.event_probability(values)[0], 1 - survival, rtol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_samples_equal_repeating_the_rows(seed):
    values, time, event = cohort(seed, n=40)
    samples = np.random.default_rng(seed).multinomial(40, np.full(40, 1 / 40), size=3)
    fits = fit_cox(values, time=time, event=event, samples=samples.astype(float), until=np.inf)
    for sample, counts in enumerate(samples):
        rows = np.repeat(np.arange(40), counts)
        alone = fit_cox(values[rows], time=time[rows], event=event[rows], samples=np.ones((1, len(rows))), until=np.inf)
        np.testing.assert_allclose(fits.coefficients[sample], alone.coefficients[0], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(
            fits.event_probability(values)[sample], alone.event_probability(values)[0], atol=1e-6
        )


def test_perfectly_separated_events_have_no_maximum():
    values = np.array([[4.0], [3], [2], [1]])
    fits = fit_cox(values, time=np.arange(1.0, 5), event=np.ones(4), samples=np.ones((1, 4)), until=np.inf)
    assert np.isnan(fits.coefficients).all()


@pytest.mark.parametrize("event", [np.zeros(4), np.array([0, 0, 0, 1.0])])
def test_without_information_there_is_no_fit(event):
    values = np.array([[4.0], [1], [2], [3]])
    fits = fit_cox(values, time=np.arange(1.0, 5), event=event, samples=np.ones((1, 4)), until=np.inf)
    assert np.isnan(fits.coefficients).all()


def test_a_constant_covariate_has_no_fit():
    _, time, event = cohort(n=20)
    fits = fit_cox(np.ones((20, 1)), time=time, event=event, samples=np.ones((1, 20)), until=np.inf)
    assert np.isnan(fits.coefficients).all()
