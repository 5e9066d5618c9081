"""Aalen-Johansen against scikit-survival and lifelines."""

import numpy as np
import pytest
from lifelines import AalenJohansenFitter
from sksurv.nonparametric import cumulative_incidence_competing_risks

from stsmm_core.survival.competing_risks import aalen_johansen
from stsmm_core.survival.kaplan_meier import kaplan_meier


def cohort(*, tied):
    rng = np.random.default_rng(4)
    each = np.stack([rng.exponential(1500, 150), rng.exponential(900, 150), rng.exponential(2500, 150)])
    time, cause = each.min(axis=0) + 1, each.argmin(axis=0)
    return (np.ceil(time / 60) * 60 if tied else time), cause


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("of", [1, 2])
def test_incidence_variance_and_interval_equal_scikit_survival(tied, of):
    time, cause = cohort(tied=tied)
    times, incidence, bounds = cumulative_incidence_competing_risks(cause, time, conf_type="log-log", var_type="Aalen")
    curve = aalen_johansen(time=time, cause=cause, of=of)
    np.testing.assert_allclose(curve.at(times), incidence[of], rtol=1e-10)
    low, high = curve.interval(times)
    inside = np.isfinite(low)
    assert inside.sum() > 20
    np.testing.assert_allclose(low[inside], bounds[of][0][inside], rtol=1e-6)
    np.testing.assert_allclose(high[inside], bounds[of][1][inside], rtol=1e-6)


def test_incidence_equals_lifelines():
    time, cause = cohort(tied=False)
    fitted = AalenJohansenFitter(calculate_variance=False).fit(time, cause, event_of_interest=1)
    table = fitted.cumulative_density_
    curve = aalen_johansen(time=time, cause=cause, of=1)
    np.testing.assert_allclose(curve.at(table.index), table.iloc[:, 0], rtol=1e-10)


def test_causes_and_freedom_of_events_add_up_to_one():
    time, cause = cohort(tied=True)
    first, second = (aalen_johansen(time=time, cause=cause, of=of) for of in (1, 2))
    free = kaplan_meier(time=time, event=(cause > 0).astype(float))
    np.testing.assert_allclose(first.incidence + second.incidence + free.survival, 1)


def test_without_competitor_it_is_kaplan_meier():
    time, cause = cohort(tied=True)
    curve = aalen_johansen(time=time, cause=np.minimum(cause, 1), of=1)
    np.testing.assert_allclose(
        curve.incidence, 1 - kaplan_meier(time=time, event=np.minimum(cause, 1)).survival, atol=1e-12
    )


def test_one_patient_and_no_event():
    assert aalen_johansen(time=np.array([3.0]), cause=np.array([1]), of=1).at(3.0) == 1
    assert aalen_johansen(time=np.array([3.0, 4]), cause=np.array([0, 2]), of=1).at(9.0) == 0


def test_a_time_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="not a number"):
        aalen_johansen(time=np.array([1.0, np.nan]), cause=np.array([1, 0]), of=1)
