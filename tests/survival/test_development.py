import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stsmm_core.survival.baseline import BaselineHazard, breslow
from stsmm_core.survival.development import PRIOR_EVENTS, recalibration, sum_development
from stsmm_core.survival.kaplan_meier import censoring_curve, kaplan_meier


def drawn(seed, sizes):
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=size), rng.integers(1, 60, size).astype(float), (rng.random(size) < 0.6).astype(float))
        for size in sizes
    ]


@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5))
def test_sums_give_the_curves_of_all_rows(seed, sizes):
    parts = drawn(seed, sizes)
    total = None
    for risk, time, event in parts:
        sums = sum_development(risk, time=time, event=event, minimum=1)
        total = sums if total is None else total + sums
    risk, time, event = (np.concatenate(values) for values in zip(*parts, strict=True))
    grid = np.arange(0, 70.0)
    np.testing.assert_allclose(
        total.baseline().log_cumulative_at(grid),
        breslow(risk, time=time, event=event).log_cumulative_at(grid),
        atol=1e-10,
    )
    np.testing.assert_allclose(total.null().at(grid), kaplan_meier(time=time, event=event).at(grid), atol=1e-12)
    np.testing.assert_allclose(total.censoring().at(grid), censoring_curve(time=time, event=event).at(grid), atol=1e-12)
    assert total.last_time == time.max(initial=0.0)


@pytest.mark.parametrize("risks", [[1e4, -1e4, 0.0, 5.0, -3.0], [-1e4] * 5, [0.0, 0.0, 0.0, -1e4, -1e4]])
def test_risks_beyond_the_exponential_give_the_baseline_of_the_rows(risks):
    risk, time, event = np.array(risks), np.arange(1.0, 6.0), np.array([1.0, 1.0, 0.0, 1.0, 1.0])
    halves = [
        sum_development(risk[part], time=time[part], event=event[part], minimum=1) for part in (slice(2), slice(2, 5))
    ]
    expected = breslow(risk, time=time, event=event).log_cumulative_hazard
    np.testing.assert_allclose((halves[0] + halves[1]).baseline().log_cumulative_hazard, expected, rtol=1e-12)


def test_fewer_patients_than_the_minimum_tell_nothing():
    sums = sum_development(np.zeros(4), time=np.arange(1.0, 5.0), event=np.ones(4), minimum=5)
    assert len(sums.counts.times) == len(sums.log_hazards) == 0
    assert sums.last_time == 0


def test_recalibration_by_hand():
    baseline = BaselineHazard(np.array([10.0, 20.0]), np.log([0.1, 0.5]))
    risk, time, event = np.array([0.0, np.log(2), 0.0]), np.array([12.0, 30.0, 5.0]), np.array([1.0, 1.0, 0.0])
    expected = 0.1 + 2 * 0.5
    factor = recalibration(risk, time=time, event=event, baseline=baseline)
    assert factor == pytest.approx((2 + PRIOR_EVENTS) / (expected + PRIOR_EVENTS))


def test_a_site_of_twice_the_hazard_gets_there_with_events_and_an_empty_one_stays_at_one():
    rng = np.random.default_rng(0)
    baseline = BaselineHazard(np.arange(1.0, 1001.0), np.log(np.arange(1.0, 1001.0) * 0.001))

    def factor(patients):
        time = np.ceil(rng.exponential(500.0, patients))  # a hazard of 0.002 a day
        event = (time <= 900).astype(float)
        return recalibration(np.zeros(patients), time=np.minimum(time, 900), event=event, baseline=baseline)

    assert factor(5000) == pytest.approx(2, abs=0.1)
    assert 1 < factor(12) < 2
    assert factor(0) == 1
