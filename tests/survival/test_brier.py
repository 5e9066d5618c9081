"""Brier scores against scikit-survival."""

from dataclasses import replace

import numpy as np
import pytest
from simulated_predictions import TIMES, development, everyone, simulate
from sksurv.metrics import brier_score, integrated_brier_score
from sksurv.util import Surv

from stsmm_core.survival.brier import (
    brier,
    index_of_prediction_accuracy,
    integrated_brier,
    integrated_null_brier,
    null_brier,
)
from stsmm_core.survival.estimates import draw_patients, samples_of


def outcomes(seed):
    predictions = simulate(seed)
    time, event = development(seed)
    return Surv.from_arrays(event == 1, time), Surv.from_arrays(predictions.event == 1, predictions.time), predictions


@pytest.mark.parametrize("seed", range(3))
def test_brier_and_its_null_equal_scikit_survival(seed):
    trained, tested, predictions = outcomes(seed)
    for column in (2, 8, 16):
        horizon, drawn = TIMES[column], everyone(predictions)
        model, null = (
            brier_score(trained, tested, 1 - risk[:, [column]], [horizon])[1][0]
            for risk in (predictions.absolute_risk, predictions.null_risk)
        )
        assert brier(predictions, drawn, horizon=horizon)[0] == pytest.approx(model, abs=1e-12)
        assert null_brier(predictions, drawn, horizon=horizon)[0] == pytest.approx(null, abs=1e-12)
        gained = index_of_prediction_accuracy(predictions, drawn, horizon=horizon)[0]
        assert gained == pytest.approx(1 - model / null, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_integrated_brier_equals_scikit_survival(seed):
    trained, tested, predictions = outcomes(seed)
    for score, risk in ((integrated_brier, predictions.absolute_risk), (integrated_null_brier, predictions.null_risk)):
        expected = integrated_brier_score(trained, tested, 1 - risk[:, :15], TIMES[:15])
        assert score(predictions, everyone(predictions), until=TIMES[14])[0] == pytest.approx(expected, abs=1e-12)


def test_a_single_time_has_no_integral():
    predictions = simulate()
    assert np.isnan(integrated_brier(predictions, everyone(predictions), until=TIMES[0])).all()


def test_knowing_the_outcome_scores_zero():
    predictions = simulate(patients=20)
    known = ((predictions.time[:, None] <= TIMES) & (predictions.event[:, None] > 0)).astype(float)
    certain = replace(predictions, absolute_risk=known)
    assert brier(certain, everyone(certain), horizon=900.0)[0] == 0
    assert index_of_prediction_accuracy(certain, everyone(certain), horizon=900.0)[0] == 1


def test_replicates_equal_repeating_the_rows():
    predictions = simulate(patients=30)
    samples = samples_of(predictions, draw_patients(30, 5, np.random.default_rng(1)))
    got = index_of_prediction_accuracy(predictions, samples, horizon=900.0)
    for value, counts in zip(got, samples.astype(int), strict=True):
        repeated = predictions[np.repeat(np.arange(30), counts)]
        expected = index_of_prediction_accuracy(repeated, everyone(repeated), horizon=900.0)[0]
        assert value == pytest.approx(expected, abs=1e-12)
