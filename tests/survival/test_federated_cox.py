"""Cox regression from sums of sites against lifelines and scikit-survival on the pooled rows."""

from functools import reduce
from operator import add

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from stsmm_core.errors import RunError
from stsmm_core.survival.cox_newton import maximise
from stsmm_core.survival.risk_set_sums import sum_risk_sets


def cohort(seed=0, n=160, covariates=3):
    """Standardised covariates, and times in months: many ties, also between events and censorings."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, covariates))
    values[:, -1] = values[:, -1] > 0.5
    values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0, ddof=1), 1e-3)
    time = rng.exponential(600 * np.exp(-0.5 * values[:, 0]))
    return values, np.ceil(time / 60) * 60, (rng.random(n) < 0.6).astype(float)


def split(n, sizes, seed=0):
    """Rows of each site: the first sizes as given, the last site has the rest."""
    order = np.random.default_rng(seed).permutation(n)
    return np.split(order, np.cumsum(sizes))


def sums_at(values, time, event, sites, ties):
    times = np.unique(time[event > 0])

    def at(coefficients):
        parts = [
            sum_risk_sets(
                values[rows],
                time=time[rows],
                event=event[rows],
                coefficients=coefficients,
                times=times,
                ties=ties,
            )
            for rows in sites
        ]
        return reduce(add, parts)

    return at


def fit(values, time, event, sites, *, ties, ridge=0.0):
    at = sums_at(values, time, event, sites, ties)
    fitted = maximise(lambda coefficients: at(coefficients).likelihood(coefficients), values.shape[1], ridge=ridge)
    return fitted, at(fitted.coefficients).baseline(np.unique(time[event > 0]))


def awkward_sites(event):
    """A site without event, two sites of one patient, an empty one, two larger ones."""
    quiet = np.flatnonzero(event == 0)[:20]
    rest = np.setdiff1d(np.arange(len(event)), quiet)
    return [quiet, rest[:1], rest[1:2], rest[:0], rest[2:50], rest[50:]]


@pytest.mark.parametrize("ridge", [0.0, 5.0])
@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_equals_scikit_survival_on_the_pooled_rows(ties, ridge):
    values, time, event = cohort()
    expected = CoxPHSurvivalAnalysis(alpha=ridge, ties=ties, tol=1e-14, n_iter=200).fit(
        values, Surv.from_arrays(event == 1, time)
    )
    fitted, baseline = fit(values, time, event, awkward_sites(event), ties=ties, ridge=ridge)
    np.testing.assert_allclose(fitted.coefficients, expected.coef_, rtol=0, atol=1e-7)
    if ties == "breslow":  # scikit-survival's baseline is Breslow's, whatever the ties
        times = baseline.times
        hazard = expected.cum_baseline_hazard_(times)
        np.testing.assert_allclose(np.exp(baseline.log_cumulative_hazard), hazard, rtol=1e-7)


@pytest.mark.parametrize("ridge", [0.0, 8.0])
def test_equals_lifelines_on_the_pooled_rows(ridge):
    values, time, event = cohort()
    table = pd.DataFrame(values, columns=list("abc")).assign(time=time, event=event)
    expected = CoxPHFitter(penalizer=ridge / len(time)).fit(
        table, "time", "event", fit_options={"precision": 1e-12, "r_precision": 1e-14}
    )
    fitted, _ = fit(values, time, event, awkward_sites(event), ties="efron", ridge=ridge)
    np.testing.assert_allclose(fitted.coefficients, expected.params_, rtol=0, atol=1e-7)
    np.testing.assert_allclose(fitted.standard_errors, expected.standard_errors_, rtol=0, atol=1e-7)
    assert fitted.log_likelihood - ridge / 2 * fitted.coefficients @ fitted.coefficients == pytest.approx(
        expected.log_likelihood_, abs=1e-6
    )
    low, high = fitted.interval()
    np.testing.assert_allclose(np.stack([low, high], axis=1), expected.confidence_intervals_, atol=1e-6)


def test_stratified_by_site_equals_lifelines_strata():
    values, time, event = cohort()
    sites = [rows for rows in awkward_sites(event) if len(rows)]
    site = np.empty(len(time), dtype=int)
    for number, rows in enumerate(sites):
        site[rows] = number

    def likelihood(coefficients):
        return reduce(
            add,
            (
                sums_at(values[rows], time[rows], event[rows], [slice(None)], "efron")(coefficients).likelihood(
                    coefficients
                )
                for rows in sites
            ),
        )

    table = pd.DataFrame(values, columns=list("abc")).assign(time=time, event=event, site=site)
    expected = CoxPHFitter().fit(
        table, "time", "event", strata=["site"], fit_options={"precision": 1e-12, "r_precision": 1e-14}
    )
    fitted = maximise(likelihood, 3, ridge=0.0)
    np.testing.assert_allclose(fitted.coefficients, expected.params_, rtol=0, atol=1e-7)
    np.testing.assert_allclose(fitted.standard_errors, expected.standard_errors_, rtol=0, atol=1e-7)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000), st.lists(st.integers(0, 20), min_size=1, max_size=7), st.sampled_from(["breslow", "efron"])
)
def test_how_rows_are_split_into_sites_does_not_matter(seed, sizes, ties):
    values, time, event = cohort(seed % 50, n=70)
    whole, whole_baseline = fit(values, time, event, [np.arange(70)], ties=ties, ridge=0.5)
    parts, parts_baseline = fit(values, time, event, split(70, np.minimum(sizes, 9), seed), ties=ties, ridge=0.5)
    np.testing.assert_allclose(parts.coefficients, whole.coefficients, rtol=0, atol=1e-9)
    np.testing.assert_allclose(parts.standard_errors, whole.standard_errors, rtol=0, atol=1e-9)
    np.testing.assert_allclose(parts_baseline.log_cumulative_hazard, whole_baseline.log_cumulative_hazard, atol=1e-9)


def test_efron_without_ties_is_breslow_and_the_baseline_with_ties_is_a_sum_over_the_tied():
    values, time, event = cohort(n=40)
    apart = time + np.arange(40) / 100
    fits = [fit(values, apart, event, [np.arange(40)], ties=ties)[0] for ties in ("breslow", "efron")]
    np.testing.assert_allclose(fits[0].coefficients, fits[1].coefficients, atol=1e-12)
    # All risks equal: three at risk, two of them tied, add 1/3 + 1/2 (Efron) or 2/3 (Breslow).
    for ties, step in (("efron", 1 / 3 + 1 / 2), ("breslow", 2 / 3)):
        sums = sum_risk_sets(
            np.zeros((3, 1)),
            time=np.array([1.0, 1, 2]),
            event=np.array([1.0, 1, 0]),
            coefficients=np.zeros(1),
            times=np.array([1.0]),
            ties=ties,
        )
        assert np.exp(sums.baseline(np.array([1.0])).log_cumulative_hazard[0]) == pytest.approx(step)


def test_separated_events_have_no_maximum_but_with_a_ridge():
    values, time, event = np.array([[1.5], [0.5], [-0.5], [-1.5]]), np.arange(1.0, 5), np.ones(4)
    with pytest.raises(RunError, match=r"no maximum.*cox\.ridge"):
        fit(values, time, event, [np.arange(4)], ties="breslow")
    assert 0 < fit(values, time, event, [np.arange(4)], ties="breslow", ridge=0.1)[0].coefficients[0] < 20


def test_columns_that_say_the_same_have_no_single_fit_but_with_a_ridge():
    values, time, event = cohort(n=50)
    values = np.column_stack([values, values[:, 0]])
    with pytest.raises(RunError, match="columns that say the same"):
        fit(values, time, event, [np.arange(50)], ties="breslow")
    fitted, _ = fit(values, time, event, [np.arange(50)], ties="breslow", ridge=1e-4)
    assert fitted.coefficients[0] == pytest.approx(fitted.coefficients[3])


def test_without_an_event_there_is_no_fit():
    values, time, _ = cohort(n=30)
    with pytest.raises(RunError, match="no events"):
        fit(values, time, np.zeros(30), [np.arange(30)], ties="breslow")


def test_an_event_off_the_grid_is_refused():
    with pytest.raises(ValueError, match="none of the event times"):
        sum_risk_sets(
            np.zeros((1, 1)),
            time=np.array([3.0]),
            event=np.ones(1),
            coefficients=np.zeros(1),
            times=np.array([2.0, 4.0]),
            ties="breslow",
        )
