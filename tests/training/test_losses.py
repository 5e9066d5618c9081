"""Loss sums that sites may add: against the stratified partial likelihood and the bootstrap by hand."""

import math

import numpy as np
import pytest

from stsmm_core.cohort.cohort import Outcomes
from stsmm_core.training.losses import LossChanges, LossSums, change_of_losses, no_change, sum_losses

HEADS, ENDPOINTS = 3, 2


def site(patients, seed, *, missing=0.2):
    """Outputs at two checkpoints, outcomes (some without the second endpoint) and which heads have input."""
    rng = np.random.default_rng(seed)
    before = rng.normal(size=(HEADS, patients, ENDPOINTS))
    after = before + rng.normal(scale=0.5, size=before.shape)
    time = rng.integers(1, 8, size=(patients, ENDPOINTS)).astype(float)
    event = (rng.uniform(size=time.shape) < 0.5).astype(float)
    unknown = rng.uniform(size=patients) < missing
    time[unknown, 1] = event[unknown, 1] = np.nan
    present = rng.uniform(size=(HEADS, patients)) > missing
    present[0] = present[1:].any(axis=0)
    return before, after, Outcomes(time, event), present


def breslow(risk, time, event):
    """Negative log partial likelihood and events, by the definition."""
    loss = 0.0
    for i in range(len(risk)):
        if event[i]:
            loss += math.log(sum(math.exp(risk[j] - risk[i]) for j in range(len(risk)) if time[j] >= time[i]))
    return loss, sum(event)


def by_hand(outputs, outcomes, present, head, endpoint):
    rows = [
        row for row in range(outputs.shape[1]) if present[head, row] and not math.isnan(outcomes.time[row, endpoint])
    ]
    return breslow(outputs[head, rows, endpoint], outcomes.time[rows, endpoint], outcomes.event[rows, endpoint])


def changes(site, *, replicates=20, seed=0, ties="breslow"):
    return change_of_losses(*site, ties=ties, replicates=replicates, rng=np.random.default_rng(seed))


def test_sums_over_sites_are_the_partial_likelihood_with_sites_as_strata():
    sites = [site(patients, seed) for seed, patients in enumerate((15, 1, 9))]
    total = LossSums(np.zeros((HEADS, ENDPOINTS)), np.zeros((HEADS, ENDPOINTS)))
    for _, after, outcomes, present in sites:
        total = total + sum_losses(after, outcomes, present, ties="breslow")
    for head in range(HEADS):
        for endpoint in range(ENDPOINTS):
            strata = [by_hand(after, outcomes, present, head, endpoint) for _, after, outcomes, present in sites]
            assert total.loss[head, endpoint] == pytest.approx(sum(loss for loss, _ in strata), rel=1e-9, abs=1e-12)
            assert total.events[head, endpoint] == sum(events for _, events in strata)


def test_risk_sets_do_not_cross_sites():
    _, after, outcomes, present = site(12, 0, missing=0)
    halves = [np.arange(6), np.arange(6, 12)]
    parts = [sum_losses(after[:, rows], outcomes[rows], present[:, rows], ties="breslow") for rows in halves]
    whole = sum_losses(after, outcomes, present, ties="breslow")
    assert (parts[0] + parts[1]).events.tolist() == whole.events.tolist()
    assert ((parts[0] + parts[1]).loss < whole.loss).all()


def test_per_event_weights_endpoints_alike_and_sites_by_events():
    one = LossSums(np.array([[2.0, 9.0]]), np.array([[4.0, 3.0]]))
    two = LossSums(np.array([[4.0, 0.0]]), np.array([[8.0, 0.0]]))
    assert one.per_event().tolist() == [0.5 + 3]
    assert (one + two).per_event().tolist() == [6 / 12 + 3]
    assert LossSums(np.zeros((2, 2)), np.zeros((2, 2))).per_event().tolist() == [0, 0]


def test_ties_are_passed_on():
    _, after, outcomes, present = site(20, 3)
    assert (
        sum_losses(after, outcomes, present, ties="efron").loss
        < sum_losses(after, outcomes, present, ties="breslow").loss
    ).any()


def test_absent_and_unknown_patients_do_not_matter():
    before, after, outcomes, present = site(20, 4)
    spoilt = after.copy()
    spoilt[~present] = 1e6
    spoilt[:, np.isnan(outcomes.time[:, 1]), 1] = -1e6
    same = sum_losses(spoilt, outcomes, present, ties="breslow")
    np.testing.assert_array_equal(same.loss, sum_losses(after, outcomes, present, ties="breslow").loss)
    np.testing.assert_array_equal(
        changes((before, spoilt, outcomes, present)).covariance,
        changes((before, after, outcomes, present)).covariance,
    )


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_change_is_the_later_minus_the_earlier_sum(ties):
    before, after, outcomes, present = made = site(15, 5)
    change = changes(made, ties=ties)
    earlier, later = (sum_losses(outputs, outcomes, present, ties=ties) for outputs in (before, after))
    np.testing.assert_allclose(change.change, later.loss - earlier.loss)
    np.testing.assert_array_equal(change.events, later.events)
    np.testing.assert_allclose(change.per_event(), later.per_event() - earlier.per_event(), atol=1e-12)


def test_nothing_changed_means_no_change_and_no_variance():
    _, after, outcomes, present = site(15, 6)
    change = changes((after, after, outcomes, present))
    assert not change.change.any()
    np.testing.assert_allclose(change.variance(), 0, atol=1e-15)


def test_changes_add_up_over_sites():
    one, two = changes(site(12, 7)), changes(site(9, 8))
    total = one + two
    for name in ("change", "events", "covariance"):
        np.testing.assert_array_equal(getattr(total, name), getattr(one, name) + getattr(two, name))
    same = total + no_change(HEADS, ENDPOINTS)
    np.testing.assert_array_equal(same.variance(), total.variance())
    np.testing.assert_array_equal(same.per_event(), total.per_event())


def test_covariance_is_that_of_change_and_events():
    # Two patients, one event each; a sample draws (2,0), (1,1) or (0,2), and with equal risks the change is 0 while
    # the events are always 2: no variance at all. With one censored, the events vary as a binomial(2, 1/2).
    outcomes = Outcomes(np.array([[1.0], [2.0]]), np.array([[1.0], [0.0]]))
    outputs = np.zeros((1, 2, 1))
    change = change_of_losses(
        outputs,
        outputs,
        outcomes,
        np.ones((1, 2), dtype=bool),
        ties="breslow",
        replicates=4000,
        rng=np.random.default_rng(0),
    )
    np.testing.assert_allclose(change.covariance[0], [[0, 0], [0, 0.5]], atol=0.03)


def stratified_bootstrap_variance(sites, replicates, seed):
    """Variance of the change per event when the patients of each site are drawn anew, row by row."""
    rng = np.random.default_rng(seed)
    values = np.zeros((replicates, HEADS))
    for replicate in range(replicates):
        difference, events = np.zeros((HEADS, ENDPOINTS)), np.zeros((HEADS, ENDPOINTS))
        for before, after, outcomes, present in sites:
            rows = rng.integers(before.shape[1], size=before.shape[1])
            drawn = outcomes[rows], present[:, rows]
            later, earlier = (sum_losses(each[:, rows], *drawn, ties="breslow") for each in (after, before))
            difference += later.loss - earlier.loss
            events += later.events
        values[replicate] = (difference / np.maximum(events, 1)).sum(axis=1)
    return values.var(axis=0, ddof=1)


def test_variance_is_that_of_a_bootstrap_of_the_ratio():
    sites = [site(60, 9), site(40, 10)]
    total = changes(sites[0], replicates=1500, seed=1) + changes(sites[1], replicates=1500, seed=2)
    expected = stratified_bootstrap_variance(sites, 300, 3)
    # A variance from 300 draws has a relative standard error of 8 %; the delta method drops terms of order 1/events.
    np.testing.assert_allclose(total.variance(), expected, rtol=0.35)


def test_variance_needs_the_events_as_well_as_the_change():
    # ratio = change / events with change = 6, events = 3: gradient (1/3, -6/9).
    covariance = np.array([[[4.0, 1.5], [1.5, 0.9]]])
    change = LossChanges(np.array([[6.0]]), np.array([[3.0]]), covariance)
    assert change.variance().tolist() == [pytest.approx(4 / 9 - 2 * 1.5 * 6 / 27 + 0.9 * 36 / 81)]


def test_variance_is_never_below_zero():
    # A change that is proportional to the events has a constant ratio; rounding must not make its variance negative.
    covariance = np.array([[[0.01, 0.1], [0.1, 1 - 1e-12]]])
    change = LossChanges(np.array([[0.3]]), np.array([[3.0]]), covariance)
    gradient = np.array([1 / 3, -0.3 / 9])
    assert gradient @ covariance[0] @ gradient < 0
    assert change.variance().tolist() == [0]


@pytest.mark.parametrize("patients", [0, 1])
def test_hardly_anybody(patients):
    change = changes(site(patients, 11))
    assert np.isfinite(change.covariance).all()
    assert change.change.shape == (HEADS, ENDPOINTS)
    np.testing.assert_allclose(change.change, 0, atol=1e-12)


def test_a_head_without_input_and_an_endpoint_without_record():
    before, after, outcomes, present = site(15, 12)
    present[2] = False
    outcomes.time[:, 1] = outcomes.event[:, 1] = np.nan
    change = changes((before, after, outcomes, present))
    assert not change.change[2].any()
    assert not change.events[:, 1].any()
    assert np.isfinite(change.covariance).all()
    assert change.variance()[2] == 0


def test_the_same_generator_gives_the_same_covariance():
    made = site(15, 13)
    np.testing.assert_array_equal(changes(made, seed=1).covariance, changes(made, seed=1).covariance)
    assert (changes(made, seed=1).covariance != changes(made, seed=2).covariance).any()
