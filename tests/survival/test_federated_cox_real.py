"""The federated Cox model of FLamby's fed_tcga_brca, from the sums of its six centres, against the pooled fit."""

from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import concordance_index_censored
from sksurv.util import Surv

from stsmm_core.survival.cox_newton import maximise
from stsmm_core.survival.risk_set_sums import sum_risk_sets

FIRST_FEATURE = "age_at_index"
RIDGE = 0.1
"""Several one-hot columns are copies of each other: without a ridge no fit, pooled or not, is the only one."""
CHOSEN_RIDGE = 31.6
"""By the cross-validated partial likelihood of the training rows (benchmarks/federated_cox.py)."""


@pytest.fixture(scope="module")
def brca():
    """Columns centre, fold, os_days, os_event, and the features standardised by the training rows."""
    path = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "fed_tcga_brca" / "tidy.csv"
    if not path.is_file():
        pytest.skip("the real data are not beside the checkout (../shared/data)")
    table = pd.read_csv(path)
    features = list(table.columns[table.columns.get_loc(FIRST_FEATURE) :])
    assert len(features) == 39
    train = table[table["fold"] == "train"]
    values = (table[features] - train[features].mean()) / train[features].std()
    return pd.concat(
        [table[["centre", "fold", "os_days", "os_event"]], values.loc[:, train[features].std() > 0]], axis=1
    )


def columns(table):
    return table.columns[4:]


def federated(train, *, ties, ridge):
    times = np.unique(train.loc[train["os_event"] == 1, "os_days"])

    def likelihood(coefficients):
        return reduce(
            add,
            (
                sum_risk_sets(
                    site[columns(train)].to_numpy(),
                    time=site["os_days"].to_numpy(),
                    event=site["os_event"].to_numpy(),
                    coefficients=coefficients,
                    times=times,
                    ties=ties,
                )
                for _, site in train.groupby("centre")
            ),
        ).likelihood(coefficients)

    return maximise(likelihood, len(columns(train)), ridge=ridge)


@pytest.mark.real_data
@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_coefficients_equal_scikit_survival_on_the_pooled_rows(brca, ties):
    train = brca[brca["fold"] == "train"]
    assert train.loc[train["os_event"] == 1, "os_days"].duplicated().any()
    outcome = Surv.from_arrays(train["os_event"] == 1, train["os_days"])
    expected = CoxPHSurvivalAnalysis(alpha=RIDGE, ties=ties, tol=1e-14, n_iter=300).fit(train[columns(train)], outcome)
    np.testing.assert_allclose(federated(train, ties=ties, ridge=RIDGE).coefficients, expected.coef_, rtol=0, atol=1e-6)


@pytest.mark.real_data
def test_coefficients_and_errors_equal_lifelines_on_the_pooled_rows(brca):
    train = brca[brca["fold"] == "train"]
    table = train[["os_days", "os_event", *columns(train)]]
    expected = CoxPHFitter(penalizer=RIDGE / len(train)).fit(
        table, "os_days", "os_event", fit_options={"precision": 1e-12, "r_precision": 1e-14, "max_steps": 500}
    )
    fitted = federated(train, ties="efron", ridge=RIDGE)
    np.testing.assert_allclose(fitted.coefficients, expected.params_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fitted.standard_errors, expected.standard_errors_, rtol=0, atol=1e-6)


@pytest.mark.real_data
def test_the_pooled_test_patients_are_ranked_as_well_as_published(brca):
    train, test = brca[brca["fold"] == "train"], brca[brca["fold"] == "test"]
    fitted = federated(train, ties="efron", ridge=CHOSEN_RIDGE)
    risk = test[columns(test)].to_numpy() @ fitted.coefficients
    assert concordance_index_censored(test["os_event"] == 1, test["os_days"], risk)[0] >= 0.84
