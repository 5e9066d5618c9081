"""Encoding from sums: what federated sites compute must be what pandas computes on the pooled table."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stsmm_core.cohort.clinical import (
    ClinicalEncoding,
    ClinicalSummary,
    fit_encoding,
    shareable_training_sums,
    summarise,
)
from stsmm_core.cohort.dictionary import PAPER_VARIABLES, VARIABLES, Category, Number

SOME_VARIABLES = ("age", "size_cm", "grade", "histology")
NUMBERS = [key for key in PAPER_VARIABLES if isinstance(VARIABLES[key], Number)]
CATEGORIES = [key for key in PAPER_VARIABLES if isinstance(VARIABLES[key], Category)]


def table(patients, seed, missing=0.2):
    """A clinical table as `load_cohort` gives it: floats and strings, NaN where missing."""
    rng = np.random.default_rng(seed)
    columns = {}
    for key, variable in VARIABLES.items():
        if isinstance(variable, Number):
            values = pd.Series(rng.uniform(variable.low, variable.high, size=patients))
        else:
            values = pd.Series(rng.choice(variable.levels, size=patients), dtype=object)
        columns[key] = values.mask(rng.uniform(size=patients) < missing)
    return pd.DataFrame(columns)


def pooled_summary(sites, variables=PAPER_VARIABLES):
    total = summarise(sites[0], variables)
    for site in sites[1:]:
        total = total + summarise(site, variables)
    return total


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 1000))
def test_sums_of_sites_are_the_summary_of_the_pool(sizes, seed):
    sites = [table(size, seed + number) for number, size in enumerate(sizes)]
    pool = pd.concat(sites, ignore_index=True)
    summed, whole = pooled_summary(sites), summarise(pool, PAPER_VARIABLES)
    assert summed.levels == whole.levels
    for key in NUMBERS:
        np.testing.assert_allclose(summed.numbers[key], whole.numbers[key], rtol=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(2, 20), min_size=1, max_size=4), st.integers(0, 1000))
def test_federated_moments_are_those_of_pandas_on_the_pool(sizes, seed):
    sites = [table(size, seed + number) for number, size in enumerate(sizes)]
    pool = pd.concat(sites, ignore_index=True)
    encoding = fit_encoding(pooled_summary(sites), PAPER_VARIABLES)
    for key in NUMBERS:
        if pool[key].count() >= 2:
            mean, sd = encoding.moments[key]
            assert mean == pytest.approx(pool[key].mean(), rel=1e-10)
            assert sd == pytest.approx(pool[key].std(ddof=1), rel=1e-6)


def test_summary_counts_only_what_is_known():
    clinical = pd.DataFrame({"age": [50.0, np.nan, 70.0], "sex": ["F", np.nan, "F"], "grade": [np.nan] * 3})
    summary = summarise(clinical, ("age", "sex", "grade"))
    assert summary == ClinicalSummary(
        {"age": (2.0, 120.0, 50.0**2 + 70.0**2)}, {"sex": (2.0, 0.0), "grade": (0.0, 0.0, 0.0)}
    )


def test_only_the_asked_variables_are_summarised():
    summary = summarise(table(10, 0), SOME_VARIABLES)
    assert set(summary.numbers) | set(summary.levels) == set(SOME_VARIABLES)


def test_encoded_columns_are_those_of_pandas():
    clinical = table(40, 1)
    encoding = fit_encoding(summarise(clinical, PAPER_VARIABLES), PAPER_VARIABLES)
    expected = []
    for key in PAPER_VARIABLES:
        values = clinical[key]
        if key in NUMBERS:
            expected += [((values - values.mean()) / values.std()).fillna(0), values.isna()]
        else:
            dummies = pd.get_dummies(pd.Categorical(values, categories=VARIABLES[key].levels))
            expected += [dummies[level] for level in VARIABLES[key].levels]
    encoded = encoding.encode(clinical)
    np.testing.assert_allclose(encoded, np.stack(expected, axis=1).astype(float), atol=1e-5)
    assert encoded.dtype == np.float32
    assert encoded.shape == (40, encoding.width)


@pytest.mark.parametrize("variables", [PAPER_VARIABLES, SOME_VARIABLES, ("sex",), ("age",), ("grade", "age")])
def test_width_is_the_number_of_columns(variables):
    clinical = table(6, 2)
    encoding = fit_encoding(summarise(clinical, variables), variables)
    assert encoding.encode(clinical).shape == (6, encoding.width)


def test_columns_follow_the_order_of_the_variables():
    clinical = pd.DataFrame({"age": [40.0, 60.0], "sex": ["F", "M"]})
    summary = summarise(clinical, ("age", "sex"))
    step = 1 / np.sqrt(2)
    np.testing.assert_allclose(
        fit_encoding(summary, ("sex", "age")).encode(clinical), [[1, 0, -step, 0], [0, 1, step, 0]], rtol=1e-6
    )
    np.testing.assert_allclose(
        fit_encoding(summary, ("age", "sex")).encode(clinical), [[-step, 0, 1, 0], [step, 0, 0, 1]], rtol=1e-6
    )


def test_a_missing_number_is_the_mean_and_says_so():
    clinical = pd.DataFrame({"age": [40.0, np.nan, 60.0], "sex": ["F", np.nan, "M"]})
    encoding = fit_encoding(summarise(clinical, ("age", "sex")), ("age", "sex"))
    encoded = encoding.encode(clinical)
    assert encoded[1].tolist() == [0, 1, 0, 0]
    assert encoded[:, 1].tolist() == [0, 1, 0]


@pytest.mark.parametrize("value", [0.1, 65.3, 119.99])
@pytest.mark.parametrize("n", [1, 2, 1000])
def test_a_constant_column_is_zero(value, n):
    # The sum of n equal decimals and n times their square differ by rounding, which is not spread.
    clinical = pd.DataFrame({"age": [value] * n})
    encoded = fit_encoding(summarise(clinical, ("age",)), ("age",)).encode(clinical)
    np.testing.assert_allclose(encoded, 0, atol=1e-6)


@pytest.mark.parametrize("known", [[], [120.0] * 5, [120.0], [120.1] * 1000, [0.1] * 7, [119.7] * 33])
def test_a_number_that_training_patients_could_not_teach_stays_zero_for_others(known):
    training = pd.DataFrame({"volume_cm3": np.array(known, dtype=float)})
    encoding = fit_encoding(summarise(training, ("volume_cm3",)), ("volume_cm3",))
    others = pd.DataFrame({"volume_cm3": [120.0, 3000.0, np.nan]})
    assert encoding.encode(others).tolist() == [[0, 0], [0, 0], [0, 1]]


def test_a_level_that_training_patients_lack_keeps_its_column():
    training = pd.DataFrame({"grade": ["low", "low", "high"]}, dtype=object)
    encoding = fit_encoding(summarise(training, ("grade",)), ("grade",))
    assert encoding.encode(pd.DataFrame({"grade": ["intermediate"]}, dtype=object)).tolist() == [[0, 1, 0]]


def test_nobody_to_encode():
    clinical = table(5, 3)
    encoding = fit_encoding(summarise(clinical, PAPER_VARIABLES), PAPER_VARIABLES)
    assert encoding.encode(clinical.iloc[:0]).shape == (0, encoding.width)


def test_encoding_uses_the_training_moments_for_every_table():
    encoding = ClinicalEncoding(("age",), {"age": (50.0, 10.0)})
    assert encoding.encode(pd.DataFrame({"age": [70.0]})).tolist() == [[2, 0]]


def test_numbers_of_too_few_patients_are_suppressed():
    summary = ClinicalSummary({"age": (4.0, 200.0, 10100.0), "size_cm": (5.0, 40.0, 330.0)}, {})
    assert summary.small(5) == ("age",)
    assert summary.suppressed(5).numbers == {"age": (0.0, 0.0, 0.0), "size_cm": (5.0, 40.0, 330.0)}


def test_a_small_level_withholds_its_whole_variable():
    levels = {"sex": (20.0, 4.0), "grade": (5.0, 0.0, 19.0), "depth": (0.0, 0.0)}
    summary = ClinicalSummary({}, levels)
    assert summary.small(5) == ("sex",)
    assert summary.suppressed(5).levels == {
        "sex": (0.0, 0.0),
        "grade": (5.0, 0.0, 19.0),
        "depth": (0.0, 0.0),
    }


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 30), st.integers(1, 12), st.integers(0, 100))
def test_nothing_between_one_and_the_minimum_is_ever_shown(patients, minimum, seed):
    whole = summarise(table(patients, seed, missing=0.5), PAPER_VARIABLES)
    shown = whole.suppressed(minimum)
    counts = [value[0] for value in shown.numbers.values()] + [c for value in shown.levels.values() for c in value]
    assert not [count for count in counts if 0 < count < minimum]
    for key, value in (shown.numbers | shown.levels).items():
        original = (whole.numbers | whole.levels)[key]
        assert value == original or not any(value)
    assert whole.suppressed(1) == whole


def test_training_sums_are_shared_without_levels():
    whole = summarise(table(40, 6, missing=0), PAPER_VARIABLES)
    training = summarise(table(40, 6, missing=0).iloc[:28], PAPER_VARIABLES)
    assert shareable_training_sums(training, whole, 5) == ClinicalSummary(training.numbers, {})


@pytest.mark.parametrize(("trained", "shared"), [(0, True), (4, False), (5, True), (15, True), (16, False), (20, True)])
def test_training_sums_do_not_tell_of_few_patients_by_subtraction(trained, shared):
    # Of 20 known ages `trained` are in the training set and the others can be had by subtraction; 4 are too few.
    training = ClinicalSummary({"age": (float(trained), trained * 50.0, trained * 2600.0)}, {})
    whole = ClinicalSummary({"age": (20.0, 1000.0, 52000.0)}, {})
    expected = training.numbers["age"] if shared else (0.0, 0.0, 0.0)
    assert shareable_training_sums(training, whole, 5).numbers == {"age": expected}


def test_a_suppressed_site_does_not_move_the_others_moments():
    large, small = table(30, 4, missing=0), table(3, 5, missing=0)
    shown = [summarise(site, PAPER_VARIABLES).suppressed(5) for site in (large, small)]
    encoding = fit_encoding(shown[0] + shown[1], PAPER_VARIABLES)
    for key in NUMBERS:
        assert encoding.moments[key] == pytest.approx((large[key].mean(), large[key].std()), rel=1e-6)


def test_table_of_a_report():
    clinical = pd.DataFrame(
        {
            "age": [40.0, 60.0, np.nan],
            "size_cm": [np.nan] * 3,
            "sex": ["F", "F", np.nan],
            "volume_cm3": [7.5, *[np.nan] * 2],
        }
    )
    printed = summarise(clinical, ("age", "size_cm", "sex", "volume_cm3")).to_table()
    assert printed["age"] == {"n": 2, "mean": 50.0, "sd": pytest.approx(np.sqrt(200))}
    assert printed["size_cm"] == {"n": 0, "mean": None, "sd": None}
    assert printed["volume_cm3"] == {"n": 1, "mean": 7.5, "sd": 0.0}
    assert printed["sex"] == {"n": 2, "levels": {"F": 2, "M": 0}}
