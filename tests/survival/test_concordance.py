"""Pair counts against scikit-survival, and what their bootstrap interval is worth."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sksurv.metrics import concordance_index_censored

from stsmm_core.survival.concordance import PairCounts, concordance, count_pairs, total
from stsmm_core.survival.estimates import estimate


def count(risk, time, event, *, replicates=0, rng=None):
    return count_pairs(
        np.array(risk, dtype=float),
        time=np.array(time, dtype=float),
        event=np.array(event, dtype=float),
        replicates=replicates,
        rng=np.random.default_rng(0) if rng is None else rng,
    )


def naive_pairs(risk, time, event):
    """Concordant (ties half) and comparable pairs by Harrell's definition, pair by pair."""
    concordant = comparable = 0.0
    for i in range(len(risk)):
        for j in range(len(risk)):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                comparable += 1
                concordant += 1 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0
    return concordant, comparable


class FixedDraws:
    """Stands in for a generator: bootstrap samples that the test chose."""

    def __init__(self, counts):
        self.counts = np.array(counts)

    def multinomial(self, n, pvals, size):
        assert n == len(pvals) == self.counts.shape[1]
        assert size == len(self.counts)
        np.testing.assert_allclose(pvals, 1 / n)
        return self.counts


@st.composite
def patients(draw, min_size=0):
    """Few distinct times and risks, so that ties of every kind occur."""
    n = draw(st.integers(min_size, 15))
    risk = draw(st.lists(st.integers(-3, 3).map(lambda value: value / 2), min_size=n, max_size=n))
    time = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    event = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return risk, time, event


@settings(deadline=None, max_examples=200)
@given(patients(min_size=2))
def test_equals_scikit_survival(drawn):
    risk, time, event = drawn
    assume(naive_pairs(*drawn)[1] > 0)  # where there is none, scikit-survival raises or divides by zero
    counts = count(*drawn)
    value, concordant, discordant, tied_risk, _ = concordance_index_censored(
        np.array(event), np.array(time, dtype=float), np.array(risk)
    )
    assert counts.concordant == concordant + tied_risk / 2
    assert counts.comparable == concordant + discordant + tied_risk
    result = concordance(counts)
    assert result.value == pytest.approx(value, abs=1e-12)
    assert result.pairs == concordant + discordant + tied_risk


@settings(deadline=None, max_examples=100)
@given(patients())
def test_equals_the_definition(drawn):
    counts = count(*drawn)
    assert (counts.concordant, counts.comparable) == naive_pairs(*drawn)
    assert (counts.patients, counts.events) == (len(drawn[0]), sum(drawn[2]))


def test_risks_nearer_than_the_tolerance_are_tied():
    time, event = [1, 2], [1, 0]
    assert count([1 + 5e-9, 1], time, event).concordant == 0.5
    assert count([1, 1 + 5e-9], time, event).concordant == 0.5
    assert count([1 + 1e-6, 1], time, event).concordant == 1
    assert count([1, 1 + 1e-6], time, event).concordant == 0


def test_higher_risk_is_worse():
    assert concordance(count([3, 2, 1], [1, 2, 3], [1, 1, 0])).value == 1
    assert concordance(count([1, 2, 3], [1, 2, 3], [1, 1, 0])).value == 0
    assert concordance(count([2, 2, 2], [1, 2, 3], [1, 1, 0])).value == 0.5


@settings(deadline=None, max_examples=60)
@given(patients(), patients(), patients())
def test_strata_add_up(first, second, third):
    sites = (first, second, third)
    strata = [count(*drawn, replicates=5, rng=np.random.default_rng(seed)) for seed, drawn in enumerate(sites)]
    together = total(strata)
    pairs = [naive_pairs(*drawn) for drawn in sites]
    assert together.concordant == sum(concordant for concordant, _ in pairs)
    assert together.comparable == sum(comparable for _, comparable in pairs)
    assert together.patients == sum(len(drawn[0]) for drawn in sites)
    assert together.events == sum(sum(drawn[2]) for drawn in sites)
    np.testing.assert_allclose(together.concordant_replicates, sum(s.concordant_replicates for s in strata))
    np.testing.assert_allclose(together.comparable_replicates, sum(s.comparable_replicates for s in strata))


def test_pairs_between_strata_do_not_count():
    # Within each stratum the order is right; across them it would be wrong.
    first, second = ([1, 0], [1, 2], [1, 1]), ([11, 10], [3, 4], [1, 1])
    assert concordance(count(*first) + count(*second)).value == 1
    assert concordance(count([1, 0, 11, 10], [1, 2, 3, 4], [1, 1, 1, 1])).value < 0.5


@settings(deadline=None, max_examples=60)
@given(patients(min_size=1), st.data())
def test_replicates_equal_counting_repeated_rows(drawn, data):
    n = len(drawn[0])
    rows = st.lists(st.integers(0, n - 1), min_size=n, max_size=n)
    samples = data.draw(st.lists(rows, min_size=1, max_size=4))
    draws = [np.bincount(sample, minlength=n) for sample in samples]
    counts = count(*drawn, replicates=len(samples), rng=FixedDraws(draws))
    expected = [naive_pairs(*([column[row] for row in sample] for column in drawn)) for sample in samples]
    np.testing.assert_allclose(counts.concordant_replicates, [pairs[0] for pairs in expected])
    np.testing.assert_allclose(counts.comparable_replicates, [pairs[1] for pairs in expected])


def test_interval_is_the_percentiles_of_the_replicates():
    comparable = np.full(201, 200.0)
    counts = PairCounts(120, 200, np.arange(201.0)[::-1], comparable, 30, 20)
    result = concordance(counts)
    assert result.value == 0.6
    assert (result.ci_low, result.ci_high) == (pytest.approx(0.025), pytest.approx(0.975))
    narrow = concordance(counts, level=0.5)
    assert (narrow.ci_low, narrow.ci_high) == (pytest.approx(0.25), pytest.approx(0.75))


def test_replicates_without_a_pair_are_left_out_of_the_interval():
    counts = PairCounts(3, 4, np.array([0.0, 3, 0, 4]), np.array([0.0, 4, 0, 4]), 5, 2)
    result = concordance(counts, level=0.999999)
    assert (result.ci_low, result.ci_high) == (pytest.approx(0.75, abs=1e-5), pytest.approx(1, abs=1e-5))


@pytest.mark.parametrize("replicates", [0, 3])
def test_no_usable_replicate_gives_a_value_without_interval(replicates):
    nothing = np.zeros(replicates)
    result = concordance(PairCounts(1, 2, nothing, nothing, 3, 1))
    assert result.value == 0.5
    assert (result.ci_low, result.ci_high) == (None, None)


def coverage(times_apart, *, simulations=200, n=60):
    """Share of simulations whose interval holds the true C of exponential times under a known risk."""
    rng = np.random.default_rng(20)
    risk = rng.normal(size=(400, 1)) * times_apart
    # P(T_i < T_j) = e^ri / (e^ri + e^rj) for exponential times; C is its mean over pairs with r_i > r_j.
    gap = np.abs(risk - risk.T)[np.triu_indices(400, 1)]
    truth = np.mean(1 / (1 + np.exp(-gap)))
    held = 0
    for _ in range(simulations):
        sample = rng.normal(size=n) * times_apart
        time = rng.exponential(np.exp(-sample))
        result = concordance(count(sample, time, np.ones(n), replicates=200, rng=rng))
        held += result.ci_low <= truth <= result.ci_high
    return held / simulations


def test_interval_contains_the_truth_about_95_times_in_100():
    # 200 simulations of a 95 % interval: standard error 1.5 %; the percentile bootstrap is a little narrow at n = 60.
    assert 0.89 <= coverage(0.7) <= 0.99


@pytest.mark.parametrize(
    ("time", "event", "reason", "events"),
    [
        ([1, 2, 3], [0, 0, 0], "no event", 0),
        ([1, 2, 3], [0, 0, 1], "no comparable pairs", 1),
        ([2, 2, 2], [1, 1, 1], "no comparable pairs", 3),
        ([5], [1], "no comparable pairs", 1),
        ([], [], "no event", 0),
    ],
)
def test_without_a_comparable_pair_there_is_a_reason_and_no_number(time, event, reason, events):
    result = concordance(count([0.5] * len(time), time, event, replicates=100))
    assert (result.value, result.ci_low, result.ci_high) == (None, None, None)
    assert (result.reason, result.n, result.events, result.pairs) == (reason, len(time), events, 0)


def test_patients_without_a_time_are_left_out():
    full = count([3, 1, 2], [1, 2, 3], [1, 1, 0], replicates=20)
    with_unknown = count([3, np.nan, 1, 9, 2], [1, np.nan, 2, np.nan, 3], [1, np.nan, 1, np.nan, 0], replicates=20)
    assert (with_unknown.concordant, with_unknown.comparable) == (full.concordant, full.comparable)
    assert (with_unknown.patients, with_unknown.events) == (3, 2)


def test_patients_without_a_risk_are_left_out_and_the_samples_stay_the_same():
    risk, time, event = np.array([3.0, 1, 2, 5]), [1, 2, 3, 4], [1, 1, 0, 1]
    some = np.array([3.0, 1, np.nan, 5])
    # Samples in which the third patient was not drawn must give the same counts with and without its risk.
    rng = np.random.default_rng(0)
    absent = rng.multinomial(4, np.full(4, 1 / 4), size=50)[:, 2] == 0
    assert absent.any()
    whole, part = (count(each, time, event, replicates=50, rng=np.random.default_rng(0)) for each in (risk, some))
    assert part.patients == 3
    np.testing.assert_array_equal(whole.comparable_replicates[absent], part.comparable_replicates[absent])


def test_an_infinite_risk_is_refused():
    with pytest.raises(ValueError, match="risk holds an infinite value"):
        count([1, np.inf], [1, 2], [1, 0])


def test_patients_all_in_order_have_no_interval():
    """One event, ranked first: every bootstrap sample says 1, which is no certainty."""
    result = concordance(count([5, 1, 2, 3], [1, 2, 3, 4], [1, 0, 0, 0], replicates=200))
    assert (result.value, result.ci_low, result.ci_high) == (1, None, None)
    assert result.reason == "too few events for an interval"


def test_the_same_generator_draws_the_same_replicates():
    drawn = ([3, 1, 2, 5, 4], [1, 2, 3, 4, 5], [1, 1, 0, 1, 0])
    first, again, other = (count(*drawn, replicates=50, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.concordant_replicates, again.concordant_replicates)
    np.testing.assert_array_equal(first.comparable_replicates, again.comparable_replicates)
    assert (first.comparable_replicates != other.comparable_replicates).any()


def test_two_heads_see_the_same_bootstrap_samples():
    time, event = [1, 2, 3, 4, 5], [1, 1, 0, 1, 0]
    one = count([1, 2, 3, 4, 5], time, event, replicates=50, rng=np.random.default_rng(3))
    two = count([5, 4, 3, 2, 1], time, event, replicates=50, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(one.comparable_replicates, two.comparable_replicates)
    np.testing.assert_allclose(one.concordant_replicates + two.concordant_replicates, one.comparable_replicates)


@pytest.mark.parametrize(("usable", "has_interval"), [(20, False), (49, False), (50, True), (100, True)])
def test_an_interval_rests_on_half_of_the_samples_at_least_as_everywhere(usable, has_interval):
    comparable = np.where(np.arange(100) < usable, 4.0, 0.0)
    concordant = np.where(comparable > 0, np.arange(100) % 5, 0.0)
    found = concordance(PairCounts(3, 4, concordant, comparable, 6, 2))
    with np.errstate(invalid="ignore"):
        reference = estimate(np.concatenate([[3 / 4], concordant / comparable]), n=6, events=2)
    assert (found.ci_low, found.ci_high, found.reason) == (reference.low, reference.high, reference.reason)
    assert (found.ci_low is not None) == has_interval
