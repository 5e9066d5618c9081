import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines import NelsonAalenFitter
from sksurv.linear_model.coxph import BreslowEstimator

from stsmm_core.survival.baseline import breslow


def patients(seed, number=60):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=number),
        rng.integers(1, 20, size=number).astype(float),
        rng.integers(0, 2, size=number) * 1.0,
    )


@pytest.mark.parametrize("seed", range(3))
def test_against_scikit_survival(seed):
    risk, time, event = patients(seed)
    reference = BreslowEstimator().fit(risk, event > 0, time)
    baseline = breslow(risk, time=time, event=event)
    times = np.arange(1.0, 20.0)
    expected = [each(np.clip(times, *each.domain)) for each in reference.get_survival_function(risk)]
    np.testing.assert_allclose(baseline.survival(risk, times), expected, rtol=1e-10)


def test_equal_risks_are_nelson_aalen():
    _, time, event = patients(0)
    hazard = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(time, event).cumulative_hazard_at_times(range(25))
    survival = breslow(np.zeros(60), time=time, event=event).survival(np.zeros(1), np.arange(25))
    np.testing.assert_allclose(survival[0], np.exp(-hazard), rtol=1e-12)


@given(st.floats(-600, 600), st.sampled_from([0.1, 5.0, 40.0]))
def test_shift_of_all_risks_changes_nothing(shift, scale):
    risk, time, event = patients(1)
    before = breslow(scale * risk, time=time, event=event).survival(scale * risk, [0, 3, 8, 100])
    after = breslow(scale * risk + shift, time=time, event=event).survival(scale * risk + shift, [0, 3, 8, 100])
    np.testing.assert_allclose(after, before, atol=1e-9)


def test_no_event_no_hazard():
    risk, time, _ = patients(2)
    assert (breslow(risk, time=time, event=np.zeros(60)).survival(risk, [1, 1e9]) == 1).all()


def test_one_patient():
    baseline = breslow(np.array([2.0]), time=np.array([5.0]), event=np.array([1.0]))
    np.testing.assert_allclose(baseline.survival([2.0], [4.9, 5.0, 9.0]), [[1.0, np.exp(-1), np.exp(-1)]])
