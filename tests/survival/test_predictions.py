"""Predictions of test patients: what is kept, what is refused."""

from dataclasses import fields, replace

import numpy as np
import pytest

from stsmm_core.survival.predictions import concatenate, predict_fold


def fold(*, stratum=0, patients=(0, 1, 2), times=(100.0, 200.0), **changes):
    rows = len(patients)
    values = {
        "patients": np.array(patients),
        "stratum": np.full(rows, stratum),
        "development_time": np.array([50.0, 100, 150, 200]),
        "development_event": np.array([1.0, 0, 1, 0]),
        "time": np.linspace(80.0, 150, rows),
        "event": np.arange(rows) % 2.0,
        "risk": np.arange(rows) * 1.0,
        "survival": np.tile([0.9, 0.7], (rows, 1)),
        "times": np.array(times),
    }
    return predict_fold(**{**values, **changes})


def test_null_model_and_censoring_are_those_of_the_development_patients():
    predictions = fold(time=np.array([50.0, 100, 150]))
    np.testing.assert_allclose(predictions.absolute_risk[0], [0.1, 0.3])
    np.testing.assert_allclose(predictions.null_risk[0], [1 - 3 / 4, 1 - 3 / 4 / 2])
    np.testing.assert_allclose(predictions.censoring_at[0], [2 / 3, 0])
    np.testing.assert_allclose(predictions.censoring_before, [1, 1, 2 / 3])
    np.testing.assert_array_equal(predictions.last_development_time, 200)


def test_folds_are_put_together_and_taken_apart():
    first, second = fold(), fold(stratum=1, patients=(3, 4))
    together = concatenate([first, second])
    assert len(together) == 5
    again = together[together.stratum == 1]
    for field in fields(second):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(second, field.name))


def test_folds_with_other_times_are_refused():
    with pytest.raises(ValueError, match="share one grid"):
        concatenate([fold(), fold(times=(100.0, 201.0))])
    with pytest.raises(ValueError, match="no fold"):
        concatenate([])


@pytest.mark.parametrize("name", ["time", "risk", "absolute_risk", "null_risk", "event"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_is_refused(name, value):
    predictions = fold()
    values = getattr(predictions, name).copy()
    values.flat[0] = value
    with pytest.raises(ValueError, match=f"{name} holds a value that is not a finite number"):
        replace(predictions, **{name: values})


def test_shapes_and_order_are_checked():
    with pytest.raises(ValueError, match="risk must have shape"):
        fold(risk=np.zeros(2))
    with pytest.raises(ValueError, match="absolute_risk must have shape"):
        fold(survival=np.ones((3, 3)))
    with pytest.raises(ValueError, match="times must increase"):
        fold(times=(200.0, 100.0))
    with pytest.raises(ValueError, match="event must be 0 or 1"):
        fold(event=np.array([0.0, 2, 1]))
    with pytest.raises(ValueError, match="no development patient"):
        fold(development_time=np.zeros(0), development_event=np.zeros(0))
