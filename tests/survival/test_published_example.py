"""The validation example of the STRATOS initiative (McLernon et al., Ann Intern Med 2023, doi 10.7326/M22-0844).

A Cox model of 2982 Rotterdam breast cancer patients (size, grade, nodes winsorised at 19 on a spline with knots 0, 1
and 9) predicts recurrence-free survival at 5 years of the 686 patients of the GBSG trial, censored at 5 years. The
coefficients are those of the example with more digits than the three that are printed, found by fitting it again.
Censoring is that of the validation set. Brier score, Uno's C and AUC are at 4.99 and 4.96 years, as in the example:
nobody was followed beyond 5.
"""

import numpy as np
import pytest
from simulated_predictions import everyone
from sksurv.datasets import load_gbsg2

from stsmm_core.survival.brier import brier
from stsmm_core.survival.calibration import calibration_errors, calibration_slope, observed_to_expected
from stsmm_core.survival.discrimination import auc, harrell_c, uno_c
from stsmm_core.survival.predictions import predict_fold

YEAR = 365.25
BASELINE_SURVIVAL = 0.8038509515
MEDIUM_SIZE, LARGE_SIZE, GRADE_3, NODES, NODES_BEND = (
    0.3418422896,
    0.5735549074,
    0.3617100718,
    0.3039651182,
    -0.8111669353,
)


@pytest.fixture(scope="module")
def published():
    table, outcome = load_gbsg2()
    size, nodes = table["tsize"].to_numpy(), np.minimum(table["pnodes"].to_numpy(), 19)

    def cubed(knot):
        return np.maximum(nodes - knot, 0.0) ** 3

    bend = (cubed(0) - cubed(1) * 9 / 8 + cubed(9) / 8) / 81
    risk = (
        MEDIUM_SIZE * ((size > 20) & (size <= 50))
        + LARGE_SIZE * (size > 50)
        + GRADE_3 * (table["tgrade"] == "III").to_numpy()
        + NODES * nodes
        + NODES_BEND * bend
    )
    time = np.minimum(outcome["time"], 5 * YEAR)
    event = (outcome["cens"] & (outcome["time"] <= 5 * YEAR)).astype(float)
    survival = BASELINE_SURVIVAL ** np.exp(risk)
    return predict_fold(
        patients=np.arange(len(time)),
        stratum=np.zeros(len(time), dtype=int),
        development_time=time,
        development_event=event,
        time=time,
        event=event,
        risk=risk,
        survival=np.stack([survival] * 3, axis=1),
        times=np.array([4.96, 4.99, 5]) * YEAR,
    )


def test_calibration(published):
    drawn, horizon = everyone(published), 5 * YEAR
    assert observed_to_expected(published, drawn, horizon=horizon)[0] == pytest.approx(1.02, abs=0.005)
    assert calibration_slope(published, drawn, horizon=horizon)[0] == pytest.approx(1.06, abs=0.005)
    errors = calibration_errors(published, drawn, horizon=horizon)
    # Ties here are Breslow's, in the example Efron's.
    assert errors.ici[0] == pytest.approx(0.0301, abs=0.0001)
    assert errors.e50[0] == pytest.approx(0.0262, abs=0.0001)
    assert errors.e90[0] == pytest.approx(0.0746, abs=0.0001)


def test_brier_score(published):
    # Censoring just before an event's day here, on that day in the example.
    assert brier(published, everyone(published), horizon=4.99 * YEAR)[0] == pytest.approx(0.2249, abs=0.0002)


def test_discrimination(published):
    drawn = everyone(published)
    assert harrell_c(published, drawn)[0] == pytest.approx(0.65, abs=0.005)
    assert uno_c(published, drawn, tau=4.96 * YEAR)[0] == pytest.approx(0.634, abs=0.0005)
    assert auc(published, drawn, horizon=4.96 * YEAR)[0] == pytest.approx(0.678, abs=0.0005)
