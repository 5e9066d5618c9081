from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stsmm_core.survival.development import recalibration, sum_development
from stsmm_core.survival.kaplan_meier import kaplan_meier
from stsmm_core.survival.time_grid import COARSE_STEP_DAYS, MIDDLE_STEP_DAYS, group_ends, shareable_times

TIMES = hnp.arrays(float, st.integers(5, 80), elements=st.integers(0, 5000).map(float))


@given(time=TIMES)
def test_a_minimum_of_one_moves_nothing(time):
    assert (shareable_times(time, minimum=1) == time).all()


@given(time=TIMES, minimum=st.integers(2, 5))
def test_every_time_is_shared_by_enough_patients_and_the_order_stays(time, minimum):
    moved = shareable_times(time, minimum=minimum)
    _, counts = np.unique(moved, return_counts=True)
    assert counts.min() >= minimum
    assert (moved % MIDDLE_STEP_DAYS == 0).all()
    order = np.argsort(time, kind="stable")
    assert (np.diff(moved[order]) >= 0).all()


@given(time=TIMES, minimum=st.integers(2, 5))
def test_each_group_lies_between_the_end_of_the_one_before_and_its_own_but_for_the_last(time, minimum):
    moved = shareable_times(time, minimum=minimum)
    middles, place = np.unique(moved, return_inverse=True)
    ends = group_ends(middles)
    assert (ends % COARSE_STEP_DAYS == 0).all()
    assert (np.diff(ends) > 0).all()
    assert (time > np.append(-1.0, ends[:-1])[place]).all()
    inside = place < len(ends) - 1
    assert (time[inside] <= ends[place[inside]]).all()


def test_a_hand_worked_example():
    time = np.array([1.0, 20.0, 31.0, 65.0, 70.0, 400.0])
    assert shareable_times(time, minimum=3).tolist() == [30.0, 30.0, 30.0, 240.0, 240.0, 240.0]
    assert shareable_times(time, minimum=2).tolist() == [15.0, 15.0, 60.0, 60.0, 60.0, 60.0]
    assert group_ends(np.array([15.0, 60.0])).tolist() == [30.0, 90.0]


def test_dense_follow_up_moves_by_half_a_step_at_most():
    time = np.arange(0.0, 3000.0)
    assert np.abs(shareable_times(time, minimum=5) - time).max() <= MIDDLE_STEP_DAYS


@pytest.mark.parametrize("patients", [30, 60, 150])
def test_hazards_and_curves_of_moved_times_do_not_lag(patients):
    # Of five like sites: at 150 patients a site a group's own end had lost 12 % of the hazard of a year, at 30 43 %.
    mean, years = 2500.0, 365.25 * np.array([1.0, 3.0])
    rng = np.random.default_rng(patients)
    hazards, deaths, factors = [], [], []
    for _ in range(60):
        sites = []
        for _ in range(5):
            risk = rng.normal(size=patients)
            died, left = rng.exponential(mean / np.exp(risk)), rng.uniform(1000, 3500, patients)
            sites.append((risk, np.ceil(np.minimum(died, left)), (died <= left).astype(float)))
        sums = reduce(add, (sum_development(risk, time=time, event=event, minimum=5) for risk, time, event in sites))
        exact = kaplan_meier(
            time=np.concatenate([time for _, time, _ in sites]), event=np.concatenate([event for *_, event in sites])
        )
        hazards.append(np.exp(sums.baseline().log_cumulative_at(years)) / (years / mean))
        deaths.append((1 - sums.null().at(years)) / (1 - exact.at(years)))
        factors += [
            recalibration(risk, time=time, event=event, baseline=sums.baseline()) for risk, time, event in sites
        ]
    np.testing.assert_allclose(np.mean(hazards, axis=0), 1, atol=0.06)
    np.testing.assert_allclose(np.mean(deaths, axis=0), 1, atol=0.06)
    assert np.mean(factors) == pytest.approx(1, abs=0.03)


def test_too_few_patients_share_nothing():
    with pytest.raises(ValueError, match="3 patients are fewer than the minimum of 5"):
        shareable_times(np.array([1.0, 2.0, 3.0]), minimum=5)
    assert len(shareable_times(np.zeros(0), minimum=5)) == 0


def test_a_missing_time_is_refused():
    with pytest.raises(ValueError, match="not a number"):
        shareable_times(np.array([1.0, np.nan]), minimum=1)
