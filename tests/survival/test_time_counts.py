"""Curves from counts by time against the curves of the pooled rows and lifelines."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter

from stsmm_core.survival.kaplan_meier import censoring_curve, kaplan_meier
from stsmm_core.survival.time_counts import count_times
from stsmm_core.survival.time_grid import shareable_times


def sites(seed, sizes, *, longest):
    """Time and event a site, with many ties; the last site has no event."""
    rng = np.random.default_rng(seed)
    rows = [(rng.integers(0, longest, n).astype(float), rng.integers(0, 2, n).astype(float)) for n in sizes]
    rows[-1] = rows[-1][0], np.zeros(sizes[-1])
    return rows


def pooled(rows):
    return {
        "time": np.concatenate([time for time, _ in rows]),
        "event": np.concatenate([event for _, event in rows]),
    }


def counted(rows, *, minimum=1):
    return reduce(add, (count_times(time=time, event=event, minimum=minimum) for time, event in rows))


def assert_same_curve(got, expected):
    np.testing.assert_array_equal(got.times, expected.times)
    np.testing.assert_allclose(got.survival, expected.survival, rtol=0, atol=1e-14)
    np.testing.assert_allclose(got.relative_variance, expected.relative_variance, rtol=1e-12)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(1, 20))
def test_exact_where_nothing_moves(seed, sizes, longest):
    rows = sites(seed, sizes, longest=longest)
    counts = counted(rows)
    assert counts.largest_move_days == 0
    assert counts.patients == sum(sizes)
    assert_same_curve(counts.survival(), kaplan_meier(**pooled(rows)))
    assert_same_curve(counts.censoring(), censoring_curve(**pooled(rows)))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_equals_lifelines(seed):
    rows = sites(seed, [20, 0, 1, 9], longest=15)
    everyone = pooled(rows)
    fitted = KaplanMeierFitter().fit(everyone["time"], everyone["event"])
    at = np.arange(0.0, 16.0)
    np.testing.assert_allclose(counted(rows).survival().at(at), fitted.survival_function_at_times(at), atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 7))
def test_with_a_minimum_so_many_leave_at_each_time_and_the_curve_is_that_of_the_moved_times(seed, minimum):
    rows = sites(seed, [40, 0, 7, 25], longest=900)
    for time, event in rows:
        counts = count_times(time=time, event=event, minimum=minimum)
        assert (counts.events + counts.censored >= minimum).all()
        assert counts.events.sum() == event.sum()
    moved = pooled([(shareable_times(time, minimum=minimum), event) for time, event in rows])
    assert_same_curve(counted(rows, minimum=minimum).survival(), kaplan_meier(**moved))
    assert_same_curve(counted(rows, minimum=minimum).censoring(), censoring_curve(**moved))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 7))
def test_without_censoring_the_curve_lies_within_the_stated_move_of_the_exact_one(seed, minimum):
    rows = [(time, np.ones(len(time))) for time, _ in sites(seed, [40, 7, 25], longest=900)]
    exact, counts = kaplan_meier(**pooled(rows)), counted(rows, minimum=minimum)
    at = np.arange(0.0, 1000.0)
    curve = counts.survival().at(at)
    assert (curve <= exact.at(at - counts.largest_move_days) + 1e-12).all()
    assert (curve >= exact.at(at + counts.largest_move_days) - 1e-12).all()


def test_the_stated_move_is_the_largest():
    counts = count_times(time=np.array([1.0, 31, 32, 33]), event=np.ones(4), minimum=2)
    np.testing.assert_array_equal(counts.times, [30.0])
    assert counts.largest_move_days == 30  # 29, and which patient's day it was stays open
    np.testing.assert_array_equal(counts.events, [4.0])


def test_too_few_patients_are_refused():
    with pytest.raises(ValueError, match="fewer than the minimum"):
        count_times(time=np.array([3.0]), event=np.ones(1), minimum=5)
