"""Columns of a Cox model chosen from sums."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stsmm_core.cohort.clinical import fit_encoding, summarise
from stsmm_core.cohort.covariates import (
    Candidate,
    candidate_values,
    candidates_of,
    choose_design,
    references_of,
    sum_columns,
)
from stsmm_core.cohort.dictionary import VARIABLES

KEYS = ("age", "grade", "sex")


def table(seed, n, *, missing=0.1):
    rng = np.random.default_rng(seed)
    clinical = pd.DataFrame(
        {
            "age": rng.normal(60, 12, n),
            "grade": rng.choice(["low", "intermediate", "high"], n, p=[0.1, 0.3, 0.6]).astype(object),
            "sex": rng.choice(["F", "M"], n).astype(object),
        }
    )
    return clinical.mask(rng.random((n, 3)) < missing)


def values_of(clinical):
    return candidate_values(fit_encoding(summarise(clinical, KEYS), KEYS), clinical)


def test_each_candidate_is_a_value_a_level_or_what_is_missing():
    assert candidates_of(("age", "sex")) == (
        Candidate("age", None),
        Candidate("age", ""),
        Candidate("sex", "F"),
        Candidate("sex", "M"),
        Candidate("sex", ""),
    )
    clinical = pd.DataFrame({"age": [50.0, np.nan, 70.0], "grade": ["low", "high", None], "sex": ["F", "M", "F"]})
    values = values_of(clinical)
    assert values.shape == (3, len(candidates_of(KEYS)))
    np.testing.assert_allclose(values[:, 1], [0, 1, 0])
    np.testing.assert_allclose(values[:, 2:6], [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 60))
def test_the_design_from_sums_of_sites_standardises_the_pooled_columns(seed, n):
    clinical = table(seed, n)
    encoding = fit_encoding(summarise(clinical, KEYS), KEYS)
    values = candidate_values(encoding, clinical)
    parts = [candidate_values(encoding, clinical.iloc[rows]) for rows in (slice(0, 1), slice(1, 1), slice(1, None))]
    sums = [sum_columns(part, KEYS, minimum=1) for part in parts]
    design = choose_design(sums[0] + sums[1] + sums[2], KEYS)
    covariates = design.covariates(values)
    np.testing.assert_allclose(covariates.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(covariates.std(axis=0, ddof=1), 1, atol=1e-9)
    candidates = candidates_of(KEYS)
    for key in ("grade", "sex"):
        places = [place for place, each in enumerate(candidates) if each.variable == key]
        commonest = places[int(np.argmax(values[:, places].sum(axis=0)))]
        varying = [place for place in places if place != commonest and np.ptp(values[:, place]) > 0]
        assert [column for column in design.columns if column in places] == varying


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10_000), st.integers(5, 40), st.integers(2, 5))
def test_no_subtraction_tells_of_a_level_with_fewer_patients_than_the_minimum(seed, n, minimum):
    values = values_of(table(seed, n, missing=0.2))
    sums = sum_columns(values, KEYS, minimum=minimum)
    assert not sums.first[sums.withheld].any()
    candidates = candidates_of(KEYS)
    for key in ("grade", "sex"):
        places = np.array([place for place, each in enumerate(candidates) if each.variable == key])
        shown = places[~sums.withheld[places]]
        hidden = n - sums.first[shown].sum()
        for count in (*sums.first[shown], *(n - sums.first[shown]), hidden):
            assert count == 0 or count >= minimum


def test_a_withheld_level_has_no_column_at_any_site():
    def patients(*counts):
        grade = np.repeat(["low", "high", "intermediate"], counts).astype(object)
        clinical = pd.DataFrame({"age": 50.0, "grade": grade, "sex": "F"})
        clinical.loc[::2, "sex"] = "M"
        return values_of(clinical)

    few, many = patients(10, 17, 3), patients(20, 10, 30)
    sums = sum_columns(few, KEYS, minimum=5) + sum_columns(many, KEYS, minimum=5)
    design = choose_design(sums, KEYS)
    names = [candidates_of(KEYS)[column] for column in design.columns]
    assert Candidate("grade", "intermediate") not in names
    assert Candidate("grade", "low") not in names  # too few to hide the three with, so the next smallest went too
    assert references_of(sums, design, KEYS) == {"grade": ("low", "intermediate"), "sex": ("F",)}


def test_the_dictionary_has_no_level_without_name():
    """An empty level stands for a missing value."""
    levels = [level for variable in VARIABLES.values() for level in getattr(variable, "levels", ())]
    assert all(levels)


@pytest.mark.parametrize("patients", [0, 1])
def test_hardly_anybody(patients):
    values = values_of(table(0, 20))[:patients]
    assert choose_design(sum_columns(values, KEYS, minimum=1), KEYS).columns == ()


def test_levels_that_nobody_has_cannot_hide_one():
    """Rows without any level are no patients' tables, but they must not keep a site busy for ever."""
    values = np.zeros((10, 5))
    values[:2, 2] = 1
    assert sum_columns(values, ("age", "sex"), minimum=5).withheld.tolist() == [False, False, True, False, False]
