"""The gate's table is docs/wire.md, and every answer of whole runs passes it."""

import re

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from test_wire import RUNS
from wire_table import WIRE, listed_fields

from client.node import gate
from client.node.outgoing import OUTGOING
from client.node.outgoing_check import HeldBackError, SiteLimits, check_answer, read_question
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.run_folder import software_versions


def test_the_table_is_that_of_the_page():
    listed = {(row.message, row.name) for row in listed_fields() if row.direction == "to server"}
    assert {(row.message, row.name) for row in OUTGOING} == listed


def test_the_errors_of_the_gate_are_those_of_the_page():
    (row,) = (line for line in WIRE.read_text(encoding="utf-8").splitlines() if line.startswith("| any | an error"))
    listed = {int(number): text for number, text in re.findall(r'(\d+) "([^"]+)"', row)}
    assert listed == {int(number): text for number, text in gate._ERRORS.items()}


@pytest.fixture(scope="module")
def large_cohorts(tmp_path_factory):
    """Two hospitals whose sets are not below a minimum of five."""
    out = tmp_path_factory.mktemp("large")
    write_synthetic_cohorts(out, sites=2, patients=150, seed=3)
    return out


def limits(minimum, site="centre-0"):
    return SiteLimits(site, 150, ("t1", "t2"), minimum, frozenset({software_versions()["stsmm"]}))


# Efron's ties need five events at one time, which no hospital of this size has: it refuses.
@pytest.mark.parametrize(
    ("minimum", "name"), [(minimum, name) for minimum in (1, 5) for name in RUNS if (minimum, name) != (5, "efron")]
)
def test_every_answer_of_a_run_passes(federate, experiment, cohorts, large_cohorts, tmp_path, request, name, minimum):
    if minimum == 5:
        request.getfixturevalue("hospitals")
        cohorts = large_cohorts
    changed = {
        section: getattr(experiment, section).model_copy(update=values) for section, values in RUNS[name].items()
    }
    asked = experiment.model_copy(update=changed)
    passed: list[bool] = []

    def deliver(site, message, answer):
        reply = answer()
        question = read_question(message.metadata.message_type, message.content)
        named = reply.content.config_records.get("site", {}).get("name", "")
        checked = check_answer(reply.content, question, asked, limits(minimum, str(named)))
        for key, record in checked.metric_records.items():
            assert dict(record) == dict(reply.content.metric_records[key])
        passed.append("refusal" not in checked)
        reply.content = checked
        return reply

    federate(asked, [cohorts], tmp_path / "run", deliver=deliver)
    assert any(passed)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"metrics": MetricRecord({"patients": 8, "oldest": 93})}, "not list"),
        ({"metrics": MetricRecord({"patients": [8, 4711001]})}, "a list where"),
        ({"metrics": MetricRecord({"patients": 4711001})}, "more than"),
        ({"metrics": MetricRecord({"patients": 8.5})}, "no count"),
        ({"metrics": MetricRecord({"patients": 3})}, "min_cell_size"),
        ({"metrics": MetricRecord({"events": [8, 9, 10]})}, "shape"),
        ({"metrics": MetricRecord({"events": [8, 2]})}, "min_cell_size"),
        ({"metrics": MetricRecord({"image-flags": [0, 0, 4, 0, 0]})}, "min_cell_size"),
        ({"metrics": MetricRecord({"cohort.sex": [50, 2]})}, "min_cell_size"),
        ({"metrics": MetricRecord({"cohort.age": [3.0, 9.0, 30.0]})}, "min_cell_size"),
        ({"metrics": MetricRecord({"cohort.age": [30.0, float("nan"), 30.0]})}, "no number"),
        ({"metrics": ConfigRecord({"patients": "eight"})}, "another kind"),
        ({"site": ConfigRecord({"name": "Mr Smith"})}, "text"),
        ({"site": ConfigRecord({"channels": ["t1", "patient-17"]})}, "text"),
        ({"site": ConfigRecord({"software-version": "patient-17"})}, "text"),
        ({"site": ConfigRecord({"withheld": ["patient-17"]})}, "text"),
        ({"site": ConfigRecord({"schema-version": b"17"})}, "text"),
        ({"refusal": ConfigRecord({"reason": "patient 17 has no image"})}, "text"),
        ({"notes": ConfigRecord({"reason": "x"})}, "records"),
        ({}, "records"),
    ],
)
def test_what_is_not_in_the_table_is_held_back(experiment, content, why):
    question = read_question("query", RecordDict())
    with pytest.raises(HeldBackError, match=why) as held:
        check_answer(RecordDict(content), question, experiment, limits(5))
    assert "17" not in str(held.value)
    assert "Smith" not in str(held.value)


def test_times_of_few_patients_are_held_back(experiment):
    question = read_question("evaluate.time_counts", RecordDict())

    def check(times, events, censored):
        fields = {"os.times": times, "os.events": events, "os.censored": censored, "os.withheld": 0}
        return check_answer(RecordDict({"metrics": MetricRecord(fields)}), question, experiment, limits(5))

    check([30.0, 90.0], [1, 5], [4, 0])
    for wrong in (([30.0, 90.0], [1, 2], [4, 1]), ([31.0, 90.0], [1, 5], [4, 0]), ([90.0, 30.0], [1, 5], [4, 0])):
        with pytest.raises(HeldBackError):
            check(*wrong)


def leaving(events, censored, *, places=([0, 1], [0]), without=(), times=(30.0, 90.0)):
    """Test patients who leave at two times; in the bootstrap samples any number does."""
    drawn = [1] * 100
    fields = {"times": list(times), "moved": 1, "events.places": places[0], "censored.places": places[1]}
    fields |= {"events": [*events, *drawn * len(places[0])], "censored": [*censored, *drawn * len(places[1])]}
    return {f"leaving.os.{name}": value for name, value in fields.items() if name not in without}


@pytest.mark.parametrize(
    ("fields", "evaluation", "why"),
    [
        (leaving([1, 5], [4]), {}, None),
        (leaving([5, 5], [], places=([0, 1], [])), {}, None),
        (leaving([1, 5], [4]), {"repeats": 2}, None),  # of cross-validation alone
        (leaving([1, 9], [8]), {"scheme": "cv", "repeats": 2}, None),
        (leaving([1, 9], [8]), {"members": 2}, None),
        (leaving([1, 5], [3]), {}, "leave at a time"),
        (leaving([1, 8], [8]), {"members": 2}, "leave at a time"),
        (leaving([1, 4], [9]), {}, "leave at a time"),
        (leaving([9], [], places=([1], [])), {}, "leave at a time"),
        (leaving([1, 8], [8]), {"scheme": "cv", "repeats": 2}, "leave at a time"),  # four patients twice
        (leaving([1, 5], [4], times=(31.0, 90.0)), {}, "not moved"),
        (leaving([1, 5], [4], places=([0, 2], [0])), {}, "none of the times"),
        (leaving([1, 5], [4], without=("times",)), {}, "times without"),
        (leaving([1, 5], [4], without=("censored",)), {}, "times without"),
    ],
)
def test_test_patients_who_leave_at_a_time_are_no_few(experiment, fields, evaluation, why):
    changed = experiment.evaluation.model_copy(update={"bootstrap_replicates": 100} | evaluation)
    asked, question = (
        experiment.model_copy(update={"evaluation": changed}),
        read_question("evaluate.test", RecordDict()),
    )
    content = RecordDict({"metrics": MetricRecord(fields)})
    if why is None:
        assert dict(check_answer(content, question, asked, limits(5))["metrics"]) == fields
    else:
        with pytest.raises(HeldBackError, match=why):
            check_answer(content, question, asked, limits(5))
