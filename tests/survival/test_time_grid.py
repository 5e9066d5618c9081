import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stsmm_core.survival.time_grid import COARSE_STEP_DAYS, shareable_times

TIMES = hnp.arrays(float, st.integers(5, 80), elements=st.integers(0, 5000).map(float))


@given(time=TIMES)
def test_a_minimum_of_one_moves_nothing(time):
    assert (shareable_times(time, minimum=1) == time).all()


@given(time=TIMES, minimum=st.integers(2, 5))
def test_every_time_is_shared_by_enough_patients_and_the_order_stays(time, minimum):
    moved = shareable_times(time, minimum=minimum)
    _, counts = np.unique(moved, return_counts=True)
    assert counts.min() >= minimum
    assert (moved % COARSE_STEP_DAYS == 0).all()
    order = np.argsort(time, kind="stable")
    assert (np.diff(moved[order]) >= 0).all()


@given(time=TIMES, minimum=st.integers(2, 5))
def test_only_the_last_group_moves_down(time, minimum):
    moved = shareable_times(time, minimum=minimum)
    assert (moved[moved < moved.max()] >= time[moved < moved.max()]).all()


def test_a_hand_worked_example():
    time = np.array([1.0, 20.0, 31.0, 65.0, 70.0, 400.0])
    assert shareable_times(time, minimum=3).tolist() == [60.0, 60.0, 60.0, 420.0, 420.0, 420.0]
    assert shareable_times(time, minimum=2).tolist() == [30.0, 30.0, 90.0, 90.0, 90.0, 90.0]


def test_dense_follow_up_moves_by_a_step_at_most():
    time = np.arange(0.0, 3000.0)
    assert (shareable_times(time, minimum=5) - time).max() <= COARSE_STEP_DAYS


def test_too_few_patients_share_nothing():
    with pytest.raises(ValueError, match="3 patients are fewer than the minimum of 5"):
        shareable_times(np.array([1.0, 2.0, 3.0]), minimum=5)
    assert len(shareable_times(np.zeros(0), minimum=5)) == 0


def test_a_missing_time_is_refused():
    with pytest.raises(ValueError, match="not a number"):
        shareable_times(np.array([1.0, np.nan]), minimum=1)
