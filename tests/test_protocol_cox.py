"""The messages of a Cox regression and of survival curves, there and back."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord
from hypothesis import assume, given
from hypothesis import strategies as st

from stsmm_core.cohort.covariates import ColumnSums, Design, candidates_of, sum_columns
from stsmm_core.config import parse_experiment
from stsmm_core.protocol import ProtocolError, cox
from stsmm_core.protocol.time_counts import time_counts_from_numbers, time_counts_to_numbers
from stsmm_core.survival.risk_set_sums import sum_risk_sets
from stsmm_core.survival.time_counts import count_times
from stsmm_core.training.cox import ColumnAnswer
from stsmm_core.training.cox_site import CoxTerm

WIDTH = len(candidates_of(("age", "sex")))


def experiment(ties="efron"):
    return parse_experiment(
        f"""
        data = {{ endpoints = ["os", "dm"], modalities = ["clinical"], variables = ["age", "sex"] }}
        model.kind = "cox"
        cox.ties = "{ties}"
        """,
        source="test",
    )


def sums(ties):
    rng = np.random.default_rng(0)
    time = rng.integers(1, 6, 20).astype(float)
    return sum_risk_sets(
        rng.normal(size=(20, 3)),
        time=time,
        event=np.ones(20),
        coefficients=rng.normal(size=3),
        times=np.unique(time),
        ties=ties,
    )


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_sums_come_back_as_they_were(ties):
    sent = sums(ties)
    numbers = MetricRecord(cox.sums_to_numbers(sent, experiment(ties)))
    assert ("tied.second" in numbers) == (ties == "efron")
    got = cox.sums_from_numbers(numbers, experiment(ties), times=5, columns=3)
    at = np.array([0.1, 0.2, 0.3])
    assert got.likelihood(at).value == sent.likelihood(at).value
    np.testing.assert_allclose(got.likelihood(at).information, sent.likelihood(at).information, rtol=1e-12)
    np.testing.assert_array_equal(got.event_total, sent.event_total)


@pytest.mark.parametrize(
    "change",
    [
        lambda numbers: numbers.pop("at-risk.second"),
        lambda numbers: numbers.update({"events": [1.0, 1.0]}),
        lambda numbers: numbers.update({"events": [0.5, 1.0, 1.0, 1.0, 1.0]}),
        lambda numbers: numbers.update({"events": [-1.0, 1.0, 1.0, 1.0, 1.0]}),
        lambda numbers: numbers.update({"at-risk.zeroth": [np.nan] * 5}),
        lambda numbers: numbers.update({"at-risk.zeroth": [-1.0] * 5}),
    ],
)
def test_sums_that_cannot_be_are_refused(change):
    numbers = cox.sums_to_numbers(sums("breslow"), experiment("breslow"))
    change(numbers)
    with pytest.raises(ProtocolError):
        cox.sums_from_numbers(numbers, experiment("breslow"), times=5, columns=3)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
@given(
    patients=st.integers(1, 40),
    days=st.integers(1, 400),
    seed=st.integers(0, 2**32),
    size=st.floats(0, 20),
    rare=st.booleans(),
)
def test_sums_of_honest_patients_are_taken(ties, patients, days, seed, size, rare):
    """Whatever the coefficients on the way to the best, and columns that few patients have or that nearly agree."""
    rng = np.random.default_rng(seed)
    covariates = rng.normal(size=(patients, 4))
    covariates[:, 1] = covariates[:, 0] * (1 + 1e-9)
    covariates[:, 2] = (rng.random(patients) < 0.05) * 100.0 - 5.0 if rare else 0.3
    time, event = rng.integers(0, days, patients).astype(float), (rng.random(patients) < 0.6).astype(float)
    times = np.unique(np.concatenate([time[event > 0], rng.integers(0, days, 3)]))
    coefficients = np.array([1, -1, 0.1, 1]) * rng.uniform(-size, size, 4)
    sums = sum_risk_sets(covariates, time=time, event=event, coefficients=coefficients, times=times, ties=ties)
    numbers = cox.sums_to_numbers(sums, experiment(ties))
    got = cox.sums_from_numbers(numbers, experiment(ties), times=len(times), columns=4, most=patients)
    np.testing.assert_allclose(got.at_risk.second, sums.at_risk.second, rtol=1e-9)
    likelihood = sums.likelihood(coefficients)
    cox.likelihood_from_numbers(cox.likelihood_to_numbers(likelihood), columns=4)


@given(patients=st.integers(0, 40), seed=st.integers(0, 2**32), minimum=st.integers(1, 5), scale=st.floats(0, 1e6))
def test_columns_of_honest_patients_are_taken(patients, seed, minimum, scale):
    rng = np.random.default_rng(seed)
    known, sex = rng.random((patients, 1)) < 0.5, np.eye(3)[rng.integers(0, 3, patients)]
    values = np.concatenate([known * scale, ~known, sex], axis=1)
    event_times = np.unique(rng.integers(0, 50_000, patients)).astype(float)
    answer = ColumnAnswer(sum_columns(values, ("age", "sex"), minimum=minimum), patients, event_times, 30.0)
    got = cox.columns_from_numbers(cox.columns_to_numbers(answer), experiment(), most=patients)
    np.testing.assert_array_equal(got.sums.second, answer.sums.second)


@given(st.lists(st.tuples(st.floats(0, 50_000), st.booleans()), max_size=40), st.integers(1, 5))
def test_counts_by_time_of_honest_patients_are_taken(patients, minimum):
    time, event = (np.array(column, dtype=float) for column in zip(*patients, strict=True)) if patients else ([], [])
    assume(minimum == 1 or not 0 < len(time) < minimum)
    counts = count_times(time=np.asarray(time), event=np.asarray(event), minimum=minimum)
    numbers = time_counts_to_numbers({"os": counts, "dm": None})
    got = time_counts_from_numbers(numbers, experiment(), most=len(patients))
    np.testing.assert_array_equal(got["os"].events, counts.events)


def test_a_site_without_an_event_has_an_answer():
    answer = ColumnAnswer(
        ColumnSums(7, np.arange(WIDTH) / 3, np.arange(WIDTH) / 2, np.arange(WIDTH) == 1), 0, np.zeros(0), 12.5
    )
    got = cox.columns_from_numbers(MetricRecord(cox.columns_to_numbers(answer)), experiment())
    assert (got.sums.patients, got.events, got.largest_move_days, len(got.event_times)) == (7, 0, 12.5, 0)
    np.testing.assert_array_equal(got.sums.first, answer.sums.first)
    np.testing.assert_array_equal(got.sums.withheld, answer.sums.withheld)


def test_a_model_comes_back_as_it_was():
    term = CoxTerm(Design((0, 3), (0.1, 0.5), (1.0, 0.4)), np.array([0.3, -0.2]))
    got = cox.term_from_numbers(ConfigRecord(cox.term_to_numbers(term, "os")), "os", experiment())
    assert got.design == term.design
    np.testing.assert_array_equal(got.coefficients, term.coefficients)


@pytest.mark.parametrize(
    "change",
    [
        {"os.columns": [3, 0]},
        {"os.columns": [0, WIDTH]},
        {"os.columns": [-1, 0]},
        {"os.scales": [1.0, 0.0]},
        {"os.means": [1.0]},
        {"os.coefficients": [0.0, np.inf]},
    ],
)
def test_a_model_that_is_none_is_refused(change):
    term = CoxTerm(Design((0, 3), (0.1, 0.5), (1.0, 0.4)), np.array([0.3, -0.2]))
    with pytest.raises(ProtocolError):
        cox.term_from_numbers(cox.term_to_numbers(term, "os") | change, "os", experiment())


def test_times_must_increase():
    with pytest.raises(ProtocolError, match="does not increase"):
        cox.times_from_numbers({"event-times": [1.0, 1.0]})


def test_counts_by_time_come_back_as_they_were_and_withheld_ones_stay_withheld():
    counts = count_times(time=np.array([1.0, 2, 2, 5]), event=np.array([1.0, 0, 1, 0]), minimum=1)
    numbers = MetricRecord(time_counts_to_numbers({"os": counts, "dm": None}))
    got = time_counts_from_numbers(numbers, experiment())
    assert got["dm"] is None
    for name in ("times", "events", "censored"):
        np.testing.assert_array_equal(getattr(got["os"], name), getattr(counts, name))


def test_counts_that_cannot_be_are_refused():
    counts = count_times(time=np.array([1.0, 2]), event=np.ones(2), minimum=1)
    numbers = time_counts_to_numbers({"os": counts, "dm": None}) | {"os.events": [-1.0, 1.0]}
    with pytest.raises(ProtocolError, match="negative"):
        time_counts_from_numbers(numbers, experiment())
