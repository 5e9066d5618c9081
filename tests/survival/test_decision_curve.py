"""Net benefit against dcurves."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from dcurves import dca
from simulated_predictions import TIMES, simulate

from stsmm_core.survival.decision_curve import decision_curve

HORIZON = 900.0


@pytest.mark.parametrize("seed", range(2))
def test_net_benefit_equals_dcurves(seed):
    predictions = simulate(seed, patients=200)
    curve = decision_curve(predictions, horizon=HORIZON)
    table = pd.DataFrame(
        {
            "time": predictions.time,
            "event": predictions.event,
            "model": predictions.absolute_risk[:, list(TIMES).index(HORIZON)],
        }
    )
    expected = dca(
        data=table,
        outcome="event",
        modelnames=["model"],
        thresholds=curve.threshold[::6],
        time=HORIZON,
        time_to_outcome_col="time",
    )
    for values, name in ((curve.model, "model"), (curve.everyone, "all")):
        benefit = expected[expected["model"] == name].sort_values("threshold")["net_benefit"].to_numpy()
        known = np.isfinite(benefit)
        assert known.sum() > 10
        np.testing.assert_allclose(values[::6][known], benefit[known], atol=1e-9)


def test_the_curve_ends_where_nobody_above_the_threshold_is_followed():
    predictions = simulate(patients=4)
    risk = np.tile(np.array([[0.9], [0.5], [0.2], [0.1]]), (1, len(TIMES)))
    time, event = np.array([300.0, 1500, 400, 1800]), np.array([0.0, 0, 1, 0])
    curve = decision_curve(replace(predictions, time=time, event=event, absolute_risk=risk), horizon=HORIZON)
    assert curve.threshold[-1] == 0.5  # above it only the patient who was lost at 300 days


def test_above_the_highest_risk_nobody_is_treated():
    predictions = simulate()
    low = replace(predictions, absolute_risk=predictions.absolute_risk * 0.3)
    curve = decision_curve(low, horizon=HORIZON)
    assert (curve.model[curve.threshold > 0.3] == 0).all()
    assert curve.threshold[-1] == 0.99
