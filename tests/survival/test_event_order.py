"""Events coded the wrong way round."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stsmm_core.cohort.synthetic import site_sizes
from stsmm_core.cohort.synthetic_patients import simulate_site
from stsmm_core.survival.event_order import event_order, looks_inverted


def test_the_order_is_standardised_over_all_ways_to_deal_the_events():
    time = np.array([3.0, 1, 4, 1, 5, 9, 2, 6])  # with a tie
    scores = np.log([np.sum(time >= t) for t in time])
    means = [scores[list(rows)].mean() for rows in combinations(range(8), 3)]
    event = np.zeros(8)
    event[[1, 4, 6]] = 1
    expected = (scores[event == 1].mean() - np.mean(means)) / np.std(means)
    assert event_order(time, event) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=40))
def test_any_cohort_has_an_answer_and_not_both_ways(patients):
    time = np.array([float(time) for time, _ in patients])
    event = np.array([float(event) for _, event in patients])
    assert not (looks_inverted(time, event) and looks_inverted(time, 1 - event))


def test_missing_times_are_not_counted():
    time, event = np.r_[np.arange(1.0, 31), np.nan], np.r_[np.zeros(10), np.ones(20), np.nan]
    assert looks_inverted(time, event)
    assert not looks_inverted(time, 1 - event)
    assert not looks_inverted(time[:4], event[:4])


def test_the_synthetic_hospitals_and_their_inversions():
    """Every honest one passes; of the inverted ones with enough events most are seen."""
    alarms = {False: [], True: []}
    for seed in range(20):
        for site, size in enumerate(site_sizes(sites=5, patients=300), start=1):
            table = simulate_site(site=site, patients=size, seed=seed).clinical
            time, event = (table[column].to_numpy(float) for column in ("os_days", "os_event"))
            for inverted in alarms:
                alarms[inverted].append(looks_inverted(time, 1 - event if inverted else event))
    assert np.mean(alarms[False]) == 0
    assert np.mean(alarms[True]) > 0.6
