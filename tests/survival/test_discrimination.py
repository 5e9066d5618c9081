"""Harrell's C, Uno's C and AUC against scikit-survival and lifelines."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index
from simulated_predictions import development, everyone, simulate
from sksurv.metrics import concordance_index_censored, concordance_index_ipcw, cumulative_dynamic_auc
from sksurv.util import Surv

from stsmm_core.survival.discrimination import auc, harrell_c, uno_c, uno_tau
from stsmm_core.survival.estimates import draw_patients, samples_of
from stsmm_core.survival.predictions import concatenate


def surv(predictions):
    return Surv.from_arrays(predictions.event == 1, predictions.time)


def trained(seed):
    time, event = development(seed)
    return Surv.from_arrays(event == 1, time)


@pytest.mark.parametrize("seed", range(3))
def test_harrell_equals_scikit_survival_and_lifelines(seed):
    predictions = simulate(seed)
    value = harrell_c(predictions, everyone(predictions))[0]
    expected = concordance_index_censored(predictions.event == 1, predictions.time, predictions.risk)[0]
    assert value == pytest.approx(expected, abs=1e-12)
    assert value == pytest.approx(concordance_index(predictions.time, -predictions.risk, predictions.event), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tau", [500.0, 1500.0, None])
def test_uno_equals_scikit_survival(seed, tau):
    predictions = simulate(seed)
    tau = uno_tau(predictions) if tau is None else tau
    expected = concordance_index_ipcw(trained(seed), surv(predictions), predictions.risk, tau=tau)[0]
    assert uno_c(predictions, everyone(predictions), tau=tau)[0] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("horizon", [300.0, 900.0, 1800.0])
def test_auc_equals_scikit_survival(seed, horizon):
    predictions = simulate(seed)
    expected = cumulative_dynamic_auc(trained(seed), surv(predictions), predictions.risk, [horizon])[0][0]
    assert auc(predictions, everyone(predictions), horizon=horizon)[0] == pytest.approx(expected, abs=1e-10)


def test_tau_stays_where_development_patients_are_followed():
    predictions = simulate()
    tau = uno_tau(predictions)
    before = predictions.time < tau
    assert (predictions.censoring_before[before] > 0.1).all()
    assert (predictions.time[before] <= predictions.last_development_time[before]).all()
    assert 0 < before.sum() < len(predictions)  # here it does cut


def test_tau_is_the_last_time_where_all_are_supported():
    predictions = simulate()
    early = predictions[predictions.time < 500]
    assert uno_tau(early) == early.time.max()


def figures(predictions, samples):
    return np.stack(
        [
            harrell_c(predictions, samples),
            uno_c(predictions, samples, tau=1500.0),
            auc(predictions, samples, horizon=900.0),
        ]
    )


def test_replicates_equal_repeating_the_rows():
    """A sample's figure is that of a data set in which each row stands as often as it was drawn."""
    predictions = simulate(patients=30)
    samples = samples_of(predictions, draw_patients(30, 5, np.random.default_rng(1)))
    got = figures(predictions, samples)
    for column, counts in enumerate(samples.astype(int)):
        repeated = predictions[np.repeat(np.arange(30), counts)]
        np.testing.assert_allclose(got[:, column], figures(repeated, everyone(repeated))[:, 0], atol=1e-12)


def test_strata_add_up_and_are_not_compared():
    first, second = simulate(1, patients=40), simulate(2, patients=40)
    shifted = concatenate([first, _moved(second, by=1e4)])
    together = concatenate([first, _moved(second, by=0.0)])
    np.testing.assert_allclose(figures(shifted, everyone(shifted)), figures(together, everyone(together)), rtol=1e-12)


def _moved(predictions, *, by):
    return replace(predictions, stratum=predictions.stratum + 1, risk=predictions.risk + by)


def test_strata_with_a_single_patient_have_no_pair():
    predictions = simulate(patients=6, strata=6)
    assert np.isnan(figures(predictions, everyone(predictions))).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 20), st.sampled_from([1e-4, 1.0, 1e4]), st.integers(1, 3))
def test_bounds_order_and_mirror(seed, patients, scale, strata):
    predictions = simulate(seed, patients=patients, strata=strata, development=60)
    predictions = replace(predictions, risk=np.round(predictions.risk, 1) * scale)
    values = figures(predictions, everyone(predictions))
    known = np.isfinite(values)
    assert ((values[known] >= 0) & (values[known] <= 1)).all()
    shuffled = predictions[np.random.default_rng(seed).permutation(patients)]
    np.testing.assert_allclose(figures(shuffled, everyone(shuffled)), values, atol=1e-12)
    mirrored = replace(predictions, risk=-predictions.risk)
    np.testing.assert_allclose(figures(mirrored, everyone(mirrored)), 1 - values, atol=1e-12)
    constant = replace(predictions, risk=np.full(patients, 3.0))
    np.testing.assert_allclose(figures(constant, everyone(constant))[known], 0.5)


def test_a_horizon_outside_the_grid_is_refused():
    predictions = simulate()
    with pytest.raises(ValueError, match="does not contain 950 days"):
        auc(predictions, everyone(predictions), horizon=950.0)
