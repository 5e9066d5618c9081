"""What crosses the wire comes back as it was, through Flower's own records, and what does not fit is named."""

import math

import numpy as np
import pandas as pd
import pytest
from flwr.app import Array, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import assume, given
from hypothesis import strategies as st

from stsmm_core import protocol
from stsmm_core.cohort.clinical import ClinicalEncoding, ClinicalSummary, summarise
from stsmm_core.cohort.dictionary import VARIABLES, Category, Number
from stsmm_core.config import Data, Evaluation, Experiment
from stsmm_core.imaging.flag_kinds import FLAG_KINDS, KINDS_AS_READ
from stsmm_core.protocol import MISSED, SEEN, TAUGHT, ProtocolError, most_patients, parts
from stsmm_core.protocol.description import (
    description_from_numbers,
    description_to_numbers,
    training_sums_from_numbers,
    training_sums_to_numbers,
)
from stsmm_core.protocol.evaluation import output_sums_from_numbers, output_sums_to_numbers
from stsmm_core.protocol.pairs import pairs_from_numbers, pairs_to_numbers
from stsmm_core.protocol.parts import bounded, check_part
from stsmm_core.protocol.rounds import (
    contribution_from_numbers,
    encoding_from_numbers,
    encoding_to_numbers,
    losses_from_numbers,
    losses_to_numbers,
)
from stsmm_core.protocol.weights import LONGEST_HEAD, pack_weights, unpack_weights
from stsmm_core.survival.common_scale import OutputSums
from stsmm_core.survival.concordance import PairCounts
from stsmm_core.training.centre import SiteDescription
from stsmm_core.training.losses import LossChanges, LossSums
from stsmm_core.training.rounds import RoundLosses

EXPERIMENT = Experiment(evaluation=Evaluation(bootstrap_replicates=100))
HEADS, ENDPOINTS = len(EXPERIMENT.heads), len(EXPERIMENT.data.endpoints)
CHECKPOINT, BETWEEN = 5, 3


def over_the_wire(numbers, record=MetricRecord):
    """Through a Flower record and its serialised form."""
    sent = recorddict_to_proto(RecordDict({"numbers": record(numbers)}))
    received = recorddict_from_proto(type(sent).FromString(sent.SerializeToString()))
    return received["numbers"]


def directly(numbers):
    return numbers


def an_encoding():
    numbers = [key for key in EXPERIMENT.data.variables if isinstance(VARIABLES[key], Number)]
    moments = {key: (10.0 / (place + 3), place / 7) for place, key in enumerate(numbers)}
    return ClinicalEncoding(EXPERIMENT.data.variables, moments)


def a_summary(seed=0):
    rng = np.random.default_rng(seed)
    numbers, levels = {}, {}
    for key in EXPERIMENT.data.variables:
        variable = VARIABLES[key]
        if isinstance(variable, Category):
            levels[key] = tuple(float(count) for count in rng.integers(0, 50, size=len(variable.levels)))
        else:
            values = rng.uniform(variable.low, variable.high, size=rng.integers(1, 50))
            numbers[key] = (float(len(values)), float(values.sum()), float((values**2).sum()))
    return ClinicalSummary(numbers, levels)


def a_description(**changes):
    return SiteDescription(
        **{
            "site": "north",
            "channels": ("t1", "t2"),
            "patients": 57,
            "events": {"os": 12, "dm": None},
            "with_image": 0,
            "summary": a_summary(),
            "withheld": ("sex",),
            "image_flags": dict.fromkeys(KINDS_AS_READ, 0) | {"volume": 7, "border": None},
        }
        | changes
    )


def identity_of(description):
    """The strings that go beside the numbers of a description."""
    return {
        protocol.NAME: description.site,
        protocol.CHANNELS: list(description.channels),
        protocol.WITHHELD_VARIABLES: list(description.withheld),
    }


def some_losses(checkpoint, seed=0):
    rng = np.random.default_rng(seed)
    shape = HEADS, ENDPOINTS

    def sums():
        return LossSums(rng.normal(size=shape), rng.integers(0, 9, size=shape).astype(float))

    def changes():
        covariance = rng.normal(size=(HEADS, 2 * ENDPOINTS, 2 * ENDPOINTS))
        return LossChanges(rng.normal(size=shape), rng.integers(0, 9, size=shape).astype(float), covariance)

    return RoundLosses(sums(), sums(), changes(), changes()) if checkpoint else RoundLosses(sums())


def some_pairs(seed=0):
    rng = np.random.default_rng(seed)

    def counts():
        pairs = rng.integers(0, 99, size=(2, EXPERIMENT.evaluation.bootstrap_replicates)).astype(float)
        (concordant, comparable), (events, patients) = (np.sort(rng.integers(0, 99, size=2)).tolist() for _ in "ab")
        return PairCounts(concordant / 2, float(comparable), *np.sort(pairs, axis=0), patients, events)

    return [[counts() for _ in range(ENDPOINTS)] for _ in range(HEADS)]


def assert_equal(one, other):
    """Equal dataclasses, arrays included, types of scalars too."""
    if isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
        assert one.shape == other.shape
    elif hasattr(one, "__dataclass_fields__"):
        assert type(one) is type(other)
        for name in one.__dataclass_fields__:
            assert_equal(getattr(one, name), getattr(other, name))
    elif isinstance(one, list):
        for each, its in zip(one, other, strict=True):
            assert_equal(each, its)
    else:
        assert one == other
        assert type(one) is type(other)


carriers = pytest.mark.parametrize(
    "carry",
    [directly, over_the_wire, lambda numbers: over_the_wire(numbers, ConfigRecord)],
    ids=["directly", "metrics", "config"],
)


@carriers
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patients": None, "with_image": 33, "events": {"os": 0, "dm": 5}},
        {"channels": ()},
        {"withheld": ()},
        {"withheld": ("age", "grade")},
    ],
)
def test_description(carry, changes):
    description = a_description(**changes)
    numbers = carry(description_to_numbers(description, EXPERIMENT))
    identity = over_the_wire(identity_of(description), ConfigRecord)
    assert_equal(description_from_numbers(numbers, identity, EXPERIMENT), description)


def test_flags_that_depend_on_the_settings_do_not_leave():
    whole = a_description(image_flags=dict.fromkeys(FLAG_KINDS, 20))
    numbers = description_to_numbers(whole, EXPERIMENT)
    assert numbers["image-flags"] == [20] * len(KINDS_AS_READ)
    received = description_from_numbers(numbers, identity_of(whole), EXPERIMENT)
    assert not {"grid", "coverage", "registration"} & set(received.image_flags)


@pytest.mark.parametrize("key", [protocol.NAME, protocol.CHANNELS, protocol.WITHHELD_VARIABLES])
@pytest.mark.parametrize("value", [None, 3])
def test_a_site_that_does_not_say_who_it_is_is_refused(key, value):
    identity = identity_of(a_description()) | {key: value}
    numbers = description_to_numbers(a_description(), EXPERIMENT)
    with pytest.raises(ProtocolError, match="name, channels or withheld variables"):
        description_from_numbers(numbers, identity, EXPERIMENT)


def test_a_site_cannot_withhold_what_nobody_asked_for():
    identity = identity_of(a_description(withheld=("age", "shoe_size")))
    numbers = description_to_numbers(a_description(), EXPERIMENT)
    with pytest.raises(ProtocolError, match="withholds a variable that the experiment does not ask for"):
        description_from_numbers(numbers, identity, EXPERIMENT)


@carriers
def test_training_sums_go_beside_the_description_without_levels(carry):
    training = a_summary(2)
    numbers = description_to_numbers(a_description(), EXPERIMENT)
    numbers |= training_sums_to_numbers(training)
    levels = [key for key in EXPERIMENT.data.variables if isinstance(VARIABLES[key], Category)]
    assert not [key for key in levels if f"training.{key}" in numbers]
    received = carry(numbers)
    read = training_sums_from_numbers(received, EXPERIMENT)
    assert_equal(read, ClinicalSummary(training.numbers, {}))
    described = description_from_numbers(received, identity_of(a_description()), EXPERIMENT)
    assert_equal(described.summary, a_summary())


@carriers
def test_encoding(carry):
    encoding = an_encoding()
    assert_equal(encoding_from_numbers(carry(encoding_to_numbers(encoding)), EXPERIMENT), encoding)


def test_encoding_of_other_variables():
    experiment = Experiment(data=Data(variables=("grade", "volume_cm3")))
    encoding = ClinicalEncoding(("grade", "volume_cm3"), {"volume_cm3": (1.5, 0.0)})
    numbers = encoding_to_numbers(encoding)
    assert list(numbers) == ["encoding.volume_cm3"]
    assert_equal(encoding_from_numbers(numbers, experiment), encoding)


@carriers
@pytest.mark.parametrize("round_number", [0, BETWEEN, CHECKPOINT])
def test_losses(carry, round_number):
    losses = some_losses(EXPERIMENT.is_checkpoint(round_number))
    numbers = carry(losses_to_numbers(losses))
    read = losses_from_numbers(numbers, EXPERIMENT, round_number)
    assert (read.train is None) == (round_number == BETWEEN)
    assert_equal(read.validation, losses.validation)
    for name in ("train", "validation_change", "train_change"):
        if round_number != BETWEEN:
            assert_equal(getattr(read, name), getattr(losses, name))
        else:
            assert getattr(read, name) is None


@carriers
def test_pairs(carry):
    pairs = some_pairs()
    assert_equal(pairs_from_numbers(carry(pairs_to_numbers(pairs)), EXPERIMENT), pairs)


MESSAGES = {
    "description": (
        description_to_numbers(a_description(), EXPERIMENT),
        lambda numbers: description_from_numbers(numbers, identity_of(a_description()), EXPERIMENT),
    ),
    "training sums": (
        training_sums_to_numbers(a_summary()),
        lambda numbers: training_sums_from_numbers(numbers, EXPERIMENT),
    ),
    "encoding": (
        encoding_to_numbers(an_encoding()),
        lambda numbers: encoding_from_numbers(numbers, EXPERIMENT),
    ),
    "losses": (
        losses_to_numbers(some_losses(checkpoint=True)),
        lambda numbers: losses_from_numbers(numbers, EXPERIMENT, CHECKPOINT),
    ),
    "pairs": (
        pairs_to_numbers(some_pairs()),
        lambda numbers: pairs_from_numbers(numbers, EXPERIMENT),
    ),
}
FIELDS = [(message, field) for message, (numbers, _) in MESSAGES.items() for field in numbers]


def refusal(message, field, value):
    numbers, read = MESSAGES[message]
    numbers = dict(numbers)
    del numbers[field]
    if value is not None:
        numbers[field] = value
    with pytest.raises(ProtocolError) as caught:
        read(numbers)
    assert f"'{field}'" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("message", "field"), FIELDS)
def test_every_missing_field_is_named(message, field):
    assert "missing" in refusal(message, field, None)


@pytest.mark.parametrize(("message", "field"), FIELDS)
def test_every_field_of_wrong_length_is_named(message, field):
    value = MESSAGES[message][0][field]
    longer = [value, value] if not isinstance(value, list) else [*value, value[0]]
    assert f"holds {len(longer)} numbers" in refusal(message, field, longer)
    assert "holds 0 numbers" in refusal(message, field, [])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("message", "field"), FIELDS)
def test_every_field_that_is_not_finite_is_named(message, field, bad):
    value = MESSAGES[message][0][field]
    spoilt = [*value[:-1], bad] if isinstance(value, list) else bad
    assert "not a number" in refusal(message, field, spoilt)


@pytest.mark.parametrize("bad", ["many", b"\x00", ["a", "b"]])
@pytest.mark.parametrize(("message", "field"), [("encoding", "encoding.age"), ("description", "patients")])
def test_a_field_of_text_is_named(message, field, bad):
    refusal(message, field, bad)


def test_a_checkpoint_reply_without_training_losses_is_refused():
    numbers = losses_to_numbers(some_losses(checkpoint=False))
    with pytest.raises(ProtocolError, match=r"'train\.loss' is missing"):
        losses_from_numbers(numbers, EXPERIMENT, CHECKPOINT)


def test_a_site_with_another_number_of_heads_is_refused():
    other = Experiment(data=Data(modalities=("clinical",)))
    numbers = losses_to_numbers(some_losses(checkpoint=True))
    with pytest.raises(ProtocolError, match=r"'validation\.loss' holds 6 numbers, not 4"):
        losses_from_numbers(numbers, other, CHECKPOINT)


@pytest.mark.parametrize("patients", [protocol.keys.MOST_PATIENTS + 1, 1e300, -2, 3.5])
def test_a_number_of_patients_that_no_site_has_is_refused(patients):
    refusal("description", "patients", patients)


@pytest.mark.parametrize(("named", "most"), [(None, protocol.keys.MOST_PATIENTS_WITHHELD), (57, 57)])
def test_a_site_trains_on_no_more_patients_than_it_has(named, most):
    def update(patients):
        return {"patients": patients, "events": 1, "weight": patients, SEEN: [1, 1], MISSED: [1, 1], TAUGHT: [1] * 6}

    assert contribution_from_numbers(update(most), EXPERIMENT, most=most_patients(named)).weight == most
    with pytest.raises(ProtocolError, match="'patients' holds a number that is not from 0"):
        contribution_from_numbers(update(most + 1), EXPERIMENT, most=most_patients(named))


NUMBERS = [key for key in EXPERIMENT.data.variables if isinstance(VARIABLES[key], Number)]


@given(st.data())
def test_sums_of_honest_patients_are_taken(data):
    clinical = pd.DataFrame(
        {
            key: data.draw(st.lists(st.floats(VARIABLES[key].low, VARIABLES[key].high), min_size=9, max_size=9))
            for key in NUMBERS
        }
    ).head(data.draw(st.integers(0, 9)))
    if data.draw(st.booleans()):  # nobody differs: all is rounding
        clinical[:] = clinical.head(1).to_numpy().repeat(len(clinical), axis=0)
    sums = ClinicalSummary(summarise(clinical, NUMBERS).numbers, {})
    read = training_sums_from_numbers(training_sums_to_numbers(sums), EXPERIMENT, most=len(clinical))
    assert_equal(read, sums)


@given(st.integers(0, 20), st.integers(0, 2**32), st.floats(0, 1e5), st.floats(-1e5, 1e5))
def test_outputs_of_honest_patients_are_taken(patients, seed, spread, centre):
    shape = (EXPERIMENT.evaluation.runs, HEADS, ENDPOINTS, patients)
    outputs = np.random.default_rng(seed).normal(centre, spread, shape)
    sums = OutputSums(np.full(shape[:-1], float(patients)), outputs.sum(axis=-1), (outputs**2).sum(axis=-1))
    assert_equal(output_sums_from_numbers(output_sums_to_numbers(sums), EXPERIMENT, most=patients), sums)


def test_withheld_counts_are_told_from_zero():
    numbers = description_to_numbers(a_description(patients=0, with_image=None), EXPERIMENT)
    assert (numbers["patients"], numbers["with-image"], numbers["events"]) == (0, protocol.WITHHELD, [12, -1])


WEIGHTS = {
    "b": np.arange(6, dtype="float32").reshape(2, 3).T,  # not in C order
    "a": np.array(3),
    "none": np.zeros((0, 4), "float64"),
}


def test_weights_come_back_in_the_order_of_their_names():
    received = unpack_weights(pack_weights(WEIGHTS))
    assert list(received) == ["a", "b", "none"]
    for name, value in received.items():
        assert (value.dtype, value.shape) == (WEIGHTS[name].dtype, WEIGHTS[name].shape)
        np.testing.assert_array_equal(value, WEIGHTS[name])
    received["b"] += 1


@given(st.binary(max_size=200) | st.integers(0, 300).map(lambda kept: pack_weights(WEIGHTS).tobytes()[:kept]))
def test_other_bytes_are_no_weights(content):
    assume(content != pack_weights(WEIGHTS).tobytes() and b"{}" not in content)  # {} is a head of no arrays
    with pytest.raises(ProtocolError, match=r"^the weights cannot be read$"):
        unpack_weights(np.frombuffer(content, dtype=np.uint8))


def test_a_long_head_of_weights_is_not_read():
    head = LONGEST_HEAD + 1
    content = head.to_bytes(8, "little") + b"{}".ljust(head)
    with pytest.raises(ProtocolError, match="cannot be read"):
        unpack_weights(np.frombuffer(content, dtype=np.uint8))
    assert unpack_weights(np.frombuffer((2).to_bytes(8, "little") + b"{}", dtype=np.uint8)) == {}


def test_parts_of_a_message_are_counted_together(monkeypatch):
    monkeypatch.setattr(parts, "LARGEST_MESSAGE", 10)
    pull = bounded(lambda name: name.encode())
    assert pull("12345") == b"12345"
    assert pull("1234") == b"1234"
    with pytest.raises(ProtocolError, match="more than 10 bytes"):
        pull("12")


def test_an_array_as_flower_writes_it_passes():
    array = Array(np.zeros(3_000_000, dtype="float32"))
    array.data = array.data[:-1] + b"x"  # chunks that differ
    for part in [array, *array.children.values()]:
        check_part(part.deflate())
    with pytest.raises(ProtocolError, match="names its parts"):
        check_part(Array(np.zeros(5_000_000, dtype="float32")).deflate())
