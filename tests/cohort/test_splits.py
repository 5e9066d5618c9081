"""Splits: what makes a test set honest, checked on cohorts of every size."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stsmm_core.cohort.clinical import fit_encoding, summarise
from stsmm_core.cohort.cohort import Cohort
from stsmm_core.cohort.dictionary import PAPER_VARIABLES, VARIABLES, Number
from stsmm_core.cohort.manifest import Manifest
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.cohort.splits import VOLUME_CUTS_CM3, make_folds
from stsmm_core.config import Evaluation

ENDPOINTS = ("os", "dm")
SPLIT = Evaluation()
CV = Evaluation(scheme="cv", folds=5, repeats=2)


def cohort_of(patients, seed=0, *, event_rate=0.3, missing=0.1, site="north"):
    """A cohort in memory, every stratifying variable spread over its levels."""
    rng = np.random.default_rng(seed)
    index = pd.Index([f"P{number:04d}" for number in range(patients)], name="patient_id")
    columns = {}
    for key, variable in VARIABLES.items():
        if isinstance(variable, Number):
            values = pd.Series(rng.uniform(variable.low, variable.high, size=patients), index=index)
        else:
            values = pd.Series(rng.choice(variable.levels, size=patients), index=index, dtype=object)
        columns[key] = values.mask(rng.uniform(size=patients) < missing)
    columns["volume_cm3"] = pd.Series(rng.lognormal(6, 1, size=patients), index=index)
    endpoints = pd.DataFrame(index=index)
    for endpoint in ENDPOINTS:
        endpoints[f"{endpoint}_days"] = rng.integers(10, 3000, size=patients).astype(float)
        endpoints[f"{endpoint}_event"] = (rng.uniform(size=patients) < event_rate).astype(float)
    manifest = Manifest(schema_version=1, name="test", site=site, channels=(), endpoints=ENDPOINTS, time_zero="surgery")
    return Cohort(Path("nowhere"), manifest, pd.DataFrame(columns), endpoints)


def folds_of(cohort, evaluation=SPLIT, seed=0):
    return make_folds(cohort, evaluation, endpoints=ENDPOINTS, seed=seed)


def named(cohort, fold):
    return [{cohort.patients[row] for row in part} for part in (fold.train, fold.validation, fold.test)]


def same_folds(first, second):
    return all(
        np.array_equal(getattr(a, part), getattr(b, part))
        for a, b in zip(first, second, strict=True)
        for part in ("train", "validation", "test")
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 120), st.integers(0, 10_000), st.sampled_from([SPLIT, CV]))
def test_each_fold_holds_each_patient_once(patients, seed, evaluation):
    for fold in folds_of(cohort_of(patients, seed), evaluation, seed):
        together = np.concatenate([fold.train, fold.validation, fold.test])
        assert sorted(together) == list(range(patients))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(3, 150),
    st.integers(0, 10_000),
    st.sampled_from([(0.70, 0.15), (0.6, 0.2), (0.5, 0.25), (0.8, 0.1), (0.34, 0.33)]),
)
def test_sizes_are_the_fractions_within_one_patient(patients, seed, fractions):
    train, validation = fractions
    evaluation = Evaluation(train_fraction=train, validation_fraction=validation)
    (fold,) = folds_of(cohort_of(patients, seed), evaluation, seed)
    sizes = [len(fold.train), len(fold.validation), len(fold.test)]
    wanted = np.array([train, validation, 1 - train - validation]) * patients
    assert np.abs(sizes - wanted).max() <= 1 + 1e-9


@settings(deadline=None, max_examples=30)
@given(st.integers(5, 60), st.integers(2, 6), st.integers(1, 3), st.integers(0, 1000))
def test_cross_validation_tests_each_patient_once_a_repeat(patients, folds, repeats, seed):
    evaluation = Evaluation(scheme="cv", folds=folds, repeats=repeats)
    made = folds_of(cohort_of(patients, seed), evaluation, seed)
    assert len(made) == evaluation.runs == folds * repeats
    for repeat in range(repeats):
        part = made[repeat * folds : (repeat + 1) * folds]
        assert sorted(np.concatenate([fold.test for fold in part])) == list(range(patients))
        sizes = [len(fold.test) for fold in part]
        assert max(sizes) - min(sizes) <= 1
    for fold in made:
        rest = patients - len(fold.test)
        assert abs(len(fold.train) - rest * 0.70 / 0.85) <= 1 + 1e-9


@pytest.mark.parametrize("evaluation", [SPLIT, CV])
def test_members_of_an_ensemble_test_the_same_patients_and_divide_the_others_differently(evaluation):
    cohort = cohort_of(60)
    alone = folds_of(cohort, evaluation)
    made = folds_of(cohort, evaluation.model_copy(update={"members": 3}))
    assert len(made) == 3 * len(alone)
    assert same_folds(made[::3], alone)
    for first in range(0, len(made), 3):
        ensemble = made[first : first + 3]
        assert len({tuple(fold.test) for fold in ensemble}) == 1
        assert len({tuple(fold.validation) for fold in ensemble}) == 3
        assert np.ptp([len(fold.validation) for fold in ensemble]) <= 1
        for fold in ensemble:
            assert sorted(np.concatenate([fold.train, fold.validation, fold.test])) == list(range(60))


def test_repeats_divide_differently():
    made = folds_of(cohort_of(40), Evaluation(scheme="cv", folds=4, repeats=10))
    assert len({tuple(fold.test) for fold in made}) >= 36


@pytest.mark.parametrize("evaluation", [SPLIT, CV])
def test_same_seed_same_folds_and_another_seed_others(evaluation):
    cohort = cohort_of(50)
    assert same_folds(folds_of(cohort, evaluation, 3), folds_of(cohort, evaluation, 3))
    assert not same_folds(folds_of(cohort, evaluation, 3), folds_of(cohort, evaluation, 4))


def test_the_global_generators_do_not_matter():
    cohort = cohort_of(50)
    np.random.seed(1)
    first = folds_of(cohort)
    np.random.seed(2)
    assert same_folds(first, folds_of(cohort))


def test_sites_divide_independently():
    north, south = cohort_of(50, site="north"), cohort_of(50, site="south")
    assert not same_folds(folds_of(north), folds_of(south))


@pytest.mark.parametrize("evaluation", [SPLIT, Evaluation(scheme="cv", folds=3)])
def test_row_order_of_the_table_does_not_matter(make_cohort, evaluation):
    folder = make_cohort(20, channels=())
    for number, location in enumerate(("axial", "upper_extremity", "lower_extremity"), start=1):
        for patient in range(number, 21, 4):
            folder.set_cell(f"P{patient:02d}", "location", location)
    sorted_cohort = load_cohort(folder.root)
    header, *rows = folder.rows()
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(rows))
        folder.write_rows([header, *(rows[position] for position in order)])
        permuted = load_cohort(folder.root)
        for one, other in zip(folds_of(sorted_cohort, evaluation), folds_of(permuted, evaluation), strict=True):
            assert named(sorted_cohort, one) == named(permuted, other)


def imbalance(cohort, rows, column):
    """Test events beyond what a fair share would be."""
    event = cohort.endpoints[column].to_numpy()
    return event[rows].sum() - event.mean() * len(rows)


def test_events_are_balanced_far_better_than_at_random():
    stratified, chance = [], []
    for seed in range(60):
        cohort = cohort_of(60, seed)
        (fold,) = folds_of(cohort, seed=seed)
        random = np.random.default_rng(seed).choice(60, size=len(fold.test), replace=False)
        stratified.append(imbalance(cohort, fold.test, "os_event"))
        chance.append(imbalance(cohort, random, "os_event"))
    assert np.std(stratified) < np.std(chance) / 2
    assert np.max(np.abs(stratified)) <= 1.5
    assert abs(np.mean(stratified)) < 0.3


@pytest.mark.parametrize("variable", ["dm_event", "volume"])
def test_later_strata_are_balanced_too(variable):
    stratified, chance = [], []
    for seed in range(60):
        cohort = cohort_of(120, seed, missing=0)
        cohort.clinical["metastasis_at_presentation"] = "0"  # else many are not at risk of dm
        level = cohort.endpoints["dm_event"].to_numpy()
        if variable == "volume":
            level = (cohort.clinical["volume_cm3"] > VOLUME_CUTS_CM3[0]).to_numpy()
        (fold,) = folds_of(cohort, seed=seed)
        random = np.random.default_rng(seed).choice(120, size=len(fold.test), replace=False)
        stratified.append(level[fold.test].mean() - level.mean())
        chance.append(level[random].mean() - level.mean())
    assert np.std(stratified) < 0.75 * np.std(chance)


def test_each_test_fold_of_a_cross_validation_has_its_share_of_events():
    cohort = cohort_of(50, 1, event_rate=0.2)
    events = cohort.endpoints["os_event"].to_numpy()
    shares = [events[fold.test].sum() for fold in folds_of(cohort, Evaluation(scheme="cv", folds=5))]
    assert max(shares) - min(shares) <= 1


def test_every_patient_is_tested_under_some_seed():
    # At a fair 15 %, a patient stays out of 100 test sets with probability 0.85^100 < 1e-7.
    cohort = cohort_of(50)
    tested = {row for seed in range(100) for row in folds_of(cohort, seed=seed)[0].test}
    assert tested == set(range(50))


@pytest.mark.parametrize("evaluation", [SPLIT, Evaluation(scheme="cv", folds=3), Evaluation(scheme="cv", folds=10)])
@pytest.mark.parametrize("patients", [1, 2, 3, 4])
def test_tiny_cohorts(patients, evaluation):
    for seed in range(10):
        for fold in folds_of(cohort_of(patients), evaluation, seed):
            assert sorted(np.concatenate([fold.train, fold.validation, fold.test])) == list(range(patients))


def test_three_patients_train_at_least_one():
    for seed in range(30):
        (fold,) = folds_of(cohort_of(3), seed=seed)
        assert len(fold.train) >= 1


def test_missing_values_and_endpoints_do_not_stop_it():
    cohort = cohort_of(30, missing=1.0)
    cohort.clinical["volume_cm3"] = np.nan
    cohort.endpoints.iloc[::3] = np.nan
    for evaluation in (SPLIT, CV):
        for fold in folds_of(cohort, evaluation):
            assert sorted(np.concatenate([fold.train, fold.validation, fold.test])) == list(range(30))


def test_patients_metastatic_at_presentation_are_divided_too():
    cohort = cohort_of(40)
    cohort.clinical["metastasis_at_presentation"] = ["1", "0"] * 20
    (fold,) = folds_of(cohort)
    metastatic = np.arange(0, 40, 2)
    assert abs(np.isin(fold.test, metastatic).sum() - 3) <= 1


@pytest.mark.parametrize("evaluation", [SPLIT, CV])
def test_test_patients_cannot_change_the_encoding(evaluation):
    cohort = cohort_of(40, 2)
    for fold in folds_of(cohort, evaluation):
        before = fit_encoding(summarise(cohort.clinical.iloc[fold.train], PAPER_VARIABLES), PAPER_VARIABLES)
        spoilt = cohort.clinical.copy()
        unseen = np.concatenate([fold.validation, fold.test])
        spoilt.iloc[unseen, spoilt.columns.get_loc("age")] = 120.0
        spoilt.iloc[unseen, spoilt.columns.get_loc("histology")] = "other"
        after = fit_encoding(summarise(spoilt.iloc[fold.train], PAPER_VARIABLES), PAPER_VARIABLES)
        assert after == before
        whole = fit_encoding(summarise(spoilt, PAPER_VARIABLES), PAPER_VARIABLES)
        assert whole != before


def test_covariates_that_do_not_stratify_do_not_change_the_folds():
    cohort = cohort_of(40)
    changed = dataclasses.replace(cohort, clinical=cohort.clinical.assign(age=50.0, sex="F", histology="other"))
    assert same_folds(folds_of(cohort), folds_of(changed))
