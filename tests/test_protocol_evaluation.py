"""The layouts of the test over all sites: what is sent comes back, what does not fit is named."""

import math

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from stsmm_core.config import Data, Evaluation, Experiment
from stsmm_core.protocol import ProtocolError
from stsmm_core.protocol.evaluation import (
    development_from_numbers,
    development_to_numbers,
    output_sums_from_numbers,
    output_sums_to_numbers,
    scale_from_numbers,
    scale_to_numbers,
    site_test_from_numbers,
    site_test_to_numbers,
)
from stsmm_core.survival.common_scale import sum_outputs
from stsmm_core.survival.estimates import draw_patients
from stsmm_core.survival.site_records import FoldRecords, SiteRecords
from stsmm_core.survival.site_sums import sum_development_of, sum_test
from stsmm_core.survival.time_grid import MIDDLE_STEP_DAYS
from stsmm_core.training.evaluation_over_sites import horizons_in_days

EXPERIMENT = Experiment(
    data=Data(modalities=("clinical",)),
    evaluation=Evaluation(scheme="cv", folds=2, bootstrap_replicates=100, horizons_years=(1.0, 2.0)),
)


def records(patients):
    rng = np.random.default_rng(patients)
    time, event = rng.integers(1, 2000, (patients, 2)).astype(float), rng.integers(0, 2, (patients, 2)).astype(float)
    outputs = rng.normal(size=(2, patients, 2))
    halves = np.array_split(np.arange(patients), 2)
    folds = []
    for test in halves:
        rest = np.setdiff1d(np.arange(patients), test)
        folds.append(FoldRecords(rest, rest % 4 > 0, outputs[:, rest], test, outputs[:, test]))
    return SiteRecords(time, event, tuple(folds), np.stack([draw_patients(patients, 100, rng)] * 2), salt=0)


def over_the_wire(numbers, record=MetricRecord):
    sent = recorddict_to_proto(RecordDict({"numbers": record(numbers)}))
    return recorddict_from_proto(type(sent).FromString(sent.SerializeToString()))["numbers"]


def messages(patients, minimum):
    site = records(patients)
    sums = sum_outputs(site, minimum=minimum)
    scale = sums.scale()
    development = sum_development_of(site, scale, minimum=minimum)
    test = sum_test(site, scale, development, horizons=horizons_in_days(EXPERIMENT), minimum=minimum)
    return {
        "sums": (sums, output_sums_to_numbers(sums), output_sums_from_numbers),
        "scale": (scale, scale_to_numbers(scale), scale_from_numbers),
        "development": (
            development,
            development_to_numbers(development, EXPERIMENT),
            development_from_numbers,
        ),
        "test": (test, site_test_to_numbers(test, EXPERIMENT), site_test_from_numbers),
    }


def assert_equal(one, other):
    if isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
        assert one.shape == other.shape
    elif hasattr(one, "__dataclass_fields__"):
        for name in one.__dataclass_fields__:
            assert_equal(getattr(one, name), getattr(other, name))
    elif isinstance(one, (list, tuple)):
        for each, its in zip(one, other, strict=True):
            assert_equal(each, its)
    else:
        assert one == other


@pytest.mark.parametrize("record", [MetricRecord, ConfigRecord])
@pytest.mark.parametrize("patients", [1, 3, 40])
@pytest.mark.parametrize("minimum", [1, 5])
def test_what_is_sent_comes_back(record, patients, minimum):
    for sent, numbers, read in messages(patients, minimum).values():
        assert_equal(read(over_the_wire(numbers, record), EXPERIMENT), sent)


def test_with_a_minimum_no_number_is_a_patient_s_own_risk_or_time():
    site = records(40)
    own = {*np.unique(site.time[site.time % MIDDLE_STEP_DAYS > 0]).tolist()}
    for _, numbers, _ in messages(40, 5).values():
        for key, values in numbers.items():
            if key.endswith(("times", "time-low", "time-high")):
                assert not own & set(values), key


FIELDS = [(name, field) for name, (_, numbers, _) in messages(12, 1).items() for field in numbers]


@pytest.mark.parametrize(("message", "field"), FIELDS)
def test_what_does_not_fit_is_named(message, field):
    _, numbers, read = messages_of_twelve()[message]
    value = numbers[field]
    longer = [*value, 1.0] if isinstance(value, list) else [value, value]
    spoilt = [*value[:-1], math.nan] if isinstance(value, list) else math.nan
    for wrong in (None, longer, spoilt, "many"):
        changed = dict(numbers)
        del changed[field]
        if wrong is not None:
            changed[field] = wrong
        with pytest.raises(ProtocolError):
            read(changed, EXPERIMENT)


def test_a_negative_count_or_a_time_out_of_order_is_refused():
    _, numbers, read = messages_of_twelve()["development"]
    key = "development.0.os"
    for field, value in (("events", -1.0), ("censored", -1.0), ("times", 1e9)):
        changed = numbers | {f"{key}.{field}": [value, *numbers[f"{key}.{field}"][1:]]}
        with pytest.raises(ProtocolError, match=f"{key}.{field}"):
            read(changed, EXPERIMENT)


def messages_of_twelve():
    return messages(12, 1)
