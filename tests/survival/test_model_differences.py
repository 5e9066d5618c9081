"""Differences of two models on the same patients."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from simulated_predictions import everyone, simulate

from stsmm_core.survival.discrimination import harrell_c
from stsmm_core.survival.estimates import draw_patients
from stsmm_core.survival.model_differences import differences_by_fold, paired_difference, resampled_t_test
from stsmm_core.survival.predictions import concatenate


def models(seed=0, **options):
    """A good model and a poor one on the same patients."""
    good = simulate(seed, noise=0.3, **options)
    noise = np.random.default_rng(seed + 100).normal(size=len(good)) * 2
    return good, replace(good, risk=good.risk + noise)


def draws(patients, replicates=400):
    return draw_patients(patients, replicates, np.random.default_rng(7))


def test_difference_is_that_of_the_figures_and_antisymmetric():
    good, poor = models()
    there = paired_difference(good, poor, metric=harrell_c, multiplicities=draws(120))
    back = paired_difference(poor, good, metric=harrell_c, multiplicities=draws(120))
    expected = harrell_c(good, everyone(good))[0] - harrell_c(poor, everyone(poor))[0]
    assert there.difference.value == pytest.approx(expected)
    assert back.difference.value == pytest.approx(-expected)
    assert (back.difference.low, back.difference.high) == (
        pytest.approx(-there.difference.high),
        pytest.approx(-there.difference.low),
    )
    assert there.p == back.p
    assert there.difference.low > 0
    assert there.p < 0.05


def test_pairing_makes_the_interval_narrower():
    good, _ = models()
    nearly = replace(good, risk=good.risk + np.random.default_rng(0).normal(size=120) * 0.2)
    paired = paired_difference(good, nearly, metric=harrell_c, multiplicities=draws(120)).difference
    samples = np.concatenate([np.ones((1, 120)), draws(120)])
    alone = harrell_c(good, samples)[1:].std()
    assert paired.sd < alone / 2


def test_equal_models_do_not_differ():
    good, _ = models()
    found = paired_difference(good, good, metric=harrell_c, multiplicities=draws(120))
    assert (found.difference.value, found.difference.low, found.p) == (0, None, None)


@pytest.mark.parametrize(("below", "p"), [(0, 2 / 100), (4, 10 / 100), (60, 80 / 100)])
def test_p_counts_the_samples_beyond_zero(below, p):
    """99 samples, of which `below` lie under 0."""
    good, poor = models()
    values = np.concatenate([[1.0], np.linspace(-2, -1, below), np.linspace(1, 2, 99 - below)])
    found = paired_difference(
        good, poor, metric=lambda rows, _: values if rows is good else 0 * values, multiplicities=draws(120, 99)
    )
    assert found.p == pytest.approx(p)


def test_p_is_about_uniform_between_equally_good_models():
    """Two noisy copies of one risk: 5 % of 200 data sets should have p < 0.05; the standard error is 1.5 %."""
    significant = 0
    for seed in range(200):
        good = simulate(seed, patients=60, development=80)
        rng = np.random.default_rng(seed + 1000)
        one, two = (replace(good, risk=good.risk + rng.normal(size=60)) for _ in range(2))
        found = paired_difference(one, two, metric=harrell_c, multiplicities=draws(60, 199))
        significant += found.p < 0.05
    assert 2 <= significant <= 22


def test_other_patients_are_refused():
    good, poor = models()
    with pytest.raises(ValueError, match="patient differs"):
        paired_difference(good, poor[::-1], metric=harrell_c, multiplicities=draws(120))


@pytest.mark.parametrize(
    ("events", "longest", "reason"),
    [(0, False, "no event"), (4, False, "fewer than 5 events"), (5, True, "no comparable pairs")],
)
def test_without_enough_events_or_a_pair_there_is_a_reason(events, longest, reason):
    """Events of those who were followed longest leave nobody to compare with, if they are all of one time."""
    good, poor = models()
    order = np.argsort(-good.time if longest else good.time)[:events]
    event = np.isin(np.arange(120), order).astype(float)
    time = np.where(event > 0, good.time.max(), good.time) if longest else good.time
    good, poor = (replace(each, time=time, event=event) for each in (good, poor))
    found = paired_difference(good, poor, metric=harrell_c, multiplicities=draws(120))
    assert (found.difference.value, found.difference.reason, found.p) == (None, reason, None)


def test_five_events_are_enough():
    good, poor = models()
    few = np.isin(np.arange(120), np.argsort(good.time)[:5]).astype(float)
    good, poor = (replace(each, event=few) for each in (good, poor))
    assert paired_difference(good, poor, metric=harrell_c, multiplicities=draws(120)).difference.value is not None


def test_a_patient_in_two_repeats_is_drawn_once():
    good, poor = models()
    twice = [concatenate([each, replace(each, stratum=each.stratum + 1)]) for each in (good, poor)]
    once = paired_difference(good, poor, metric=harrell_c, multiplicities=draws(120))
    repeated = paired_difference(*twice, metric=harrell_c, multiplicities=draws(120))
    assert repeated.difference.sd == pytest.approx(once.difference.sd)
    assert (repeated.difference.n, repeated.difference.events) == (once.difference.n, once.difference.events)


def test_difference_of_each_fold():
    good, poor = models(strata=3)
    found = differences_by_fold(good, poor, fold=good.stratum, metric=harrell_c)
    for fold in range(3):
        one, two = (each[good.stratum == fold] for each in (good, poor))
        assert found[fold] == pytest.approx(harrell_c(one, everyone(one))[0] - harrell_c(two, everyone(two))[0])


def test_corrected_t_by_hand_and_without_overlap_students():
    differences = np.array([0.02, 0.05, -0.01, 0.04, 0.03])
    found = resampled_t_test(differences, n_train=80, n_test=20)
    statistic = 0.026 / np.sqrt((1 / 5 + 20 / 80) * np.var(differences, ddof=1))
    assert statistic == pytest.approx(1.6830, abs=1e-3)
    assert found.mean == pytest.approx(0.026)
    assert found.p == pytest.approx(0.1677, abs=1e-3)
    assert found.high - found.mean == pytest.approx(2.7764 * 0.026 / statistic, rel=1e-3)
    student = ttest_1samp(differences, 0)
    plain = resampled_t_test(differences, n_train=1e12, n_test=1)
    assert plain.p == pytest.approx(student.pvalue)
    assert (plain.low, plain.high) == tuple(pytest.approx(bound) for bound in student.confidence_interval())


def test_corrected_t_at_its_edges():
    assert resampled_t_test(np.array([0.1]), n_train=80, n_test=20) is None
    assert resampled_t_test(np.array([0.1, np.nan]), n_train=80, n_test=20) is None
    assert resampled_t_test(np.zeros(5), n_train=80, n_test=20).p == 1
    assert resampled_t_test(np.full(5, 0.5), n_train=80, n_test=20).p == 0
