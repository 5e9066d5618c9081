"""Kaplan-Meier against scikit-survival and lifelines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.utils import median_survival_times
from sksurv.nonparametric import kaplan_meier_estimator

from stsmm_core.survival.kaplan_meier import censoring_curve, kaplan_meier, median_follow_up, resampled_survival


def cohort(seed=0, n=120, *, tied=False):
    rng = np.random.default_rng(seed)
    time, censored = rng.exponential(900, n), rng.exponential(1200, n)
    event = (time <= censored).astype(float)
    time = np.minimum(time, censored) + 1
    return (np.ceil(time / 90) * 90 if tied else time), event


@pytest.mark.parametrize("tied", [False, True])
def test_curve_and_interval_equal_scikit_survival(tied):
    time, event = cohort(tied=tied)
    times, survival, bounds = kaplan_meier_estimator(event == 1, time, conf_type="log-log")
    curve = kaplan_meier(time=time, event=event)
    np.testing.assert_allclose(curve.at(times), survival, rtol=1e-12)
    low, high = curve.interval(times)
    inside = (survival > 0) & (survival < 1)
    np.testing.assert_allclose(low[inside], bounds[0][inside], rtol=1e-9)
    np.testing.assert_allclose(high[inside], bounds[1][inside], rtol=1e-9)


@pytest.mark.parametrize("tied", [False, True])
def test_censoring_curve_equals_scikit_survival(tied):
    time, event = cohort(tied=tied)
    times, survival = kaplan_meier_estimator(event == 1, time, reverse=True)
    np.testing.assert_allclose(censoring_curve(time=time, event=event).at(times), survival, rtol=1e-12)


def test_value_at_a_time_and_just_before():
    curve = kaplan_meier(time=np.array([1.0, 2, 2, 3]), event=np.array([1.0, 1, 0, 0]))
    np.testing.assert_allclose(curve.at([0.5, 1, 1.5, 2, 9]), [1, 0.75, 0.75, 0.5, 0.5])
    np.testing.assert_allclose(curve.before([0.5, 1, 1.5, 2, 9]), [1, 1, 0.75, 0.75, 0.5])


def test_greenwood_by_hand():
    curve = kaplan_meier(time=np.array([1.0, 2, 3, 4]), event=np.array([1.0, 1, 0, 0]))
    assert curve.standard_error(2.0) == pytest.approx(0.5 * np.sqrt(1 / (4 * 3) + 1 / (3 * 2)))


def test_weights_stand_for_repeated_rows():
    time, event = cohort(n=40)
    weight = np.random.default_rng(1).integers(1, 4, 40)
    whole = kaplan_meier(time=np.repeat(time, weight), event=np.repeat(event, weight))
    weighted = kaplan_meier(time=time, event=event, weight=weight.astype(float))
    np.testing.assert_allclose(weighted.survival, whole.survival)
    np.testing.assert_allclose(weighted.relative_variance, whole.relative_variance)


def test_fractional_weights_reach_zero():
    time, event = np.arange(1.0, 11), np.ones(10)
    assert kaplan_meier(time=time, event=event, weight=np.full(10, 0.1)).survival[-1] == 0


def test_median_follow_up_equals_lifelines():
    time, event = cohort()  # no two patients on one day, where the two differ in who is at risk
    fitted = KaplanMeierFitter().fit(time, 1 - event)
    followed = median_follow_up(time=time, event=event)
    assert followed.median == fitted.median_survival_time_
    bounds = median_survival_times(fitted.confidence_interval_)
    assert [followed.low, followed.high] == list(bounds.iloc[0])


def test_median_follow_up_is_not_given_where_nobody_was_censored():
    followed = median_follow_up(time=np.array([1.0, 2, 3]), event=np.ones(3))
    assert (followed.median, followed.low, followed.high) == (None, None, None)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 15), st.floats(0.5, 6.5))
def test_resampled_survival_equals_repeating_the_rows(seed, n, at):
    rng = np.random.default_rng(seed)
    time, event = rng.integers(1, 6, n).astype(float), rng.integers(0, 2, n).astype(float)
    samples = rng.multinomial(n, np.full(n, 1 / n), size=5)
    got = resampled_survival(time=time, event=event, samples=samples.astype(float), at=at)
    for value, counts in zip(got, samples, strict=True):
        drawn = np.repeat(time, counts), np.repeat(event, counts)
        expected = kaplan_meier(time=drawn[0], event=drawn[1]).at(at)
        if drawn[0].max() < at and expected > 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(float(expected), abs=1e-12)


def test_a_time_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="not a number"):
        kaplan_meier(time=np.array([1.0, np.nan]), event=np.ones(2))


@pytest.mark.parametrize("event", [0.0, 1.0])
def test_one_patient(event):
    curve = kaplan_meier(time=np.array([5.0]), event=np.array([event]))
    assert curve.at(5.0) == 1 - event
    assert np.isnan(curve.interval(5.0)[0])
