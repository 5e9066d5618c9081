"""Nothing crosses the wire that docs/wire.md does not list."""

import pytest
from flwr.app import Message, MetricRecord, RecordDict
from wire_table import Field, fields_of, listed_fields

COX: dict[str, dict[str, object]] = {"model": {"kind": "cox"}, "data": {"modalities": ("clinical",)}}
# Each run shows messages and fields that the others do not have.
RUNS: dict[str, dict[str, dict[str, object]]] = {
    "network": {},
    "fedprox, own blending weights": {"federation": {"strategy": "fedprox"}, "blending": {"scope": "site"}},
    "breslow": COX,
    "efron": COX | {"cox": {"ties": "efron"}},
    "stratified": COX | {"cox": {"stratified": True}},
}


@pytest.fixture(scope="module")
def seen() -> dict[str, set[Field]]:
    """Fields of the runs so far."""
    return {}


@pytest.fixture
def carried(federate, experiment, cohorts, tmp_path_factory, seen):
    """Every field of every message of a run, which is made once."""

    def run(name):
        if name not in seen:
            fields: set[Field] = set()

            def deliver(site, message, answer):
                reply = answer()
                kind = message.metadata.message_type
                fields.update(fields_of(message, direction="to site", kind=kind))
                fields.update(fields_of(reply, direction="to server", kind=kind))
                return reply

            changed = {
                section: getattr(experiment, section).model_copy(update=values)
                for section, values in RUNS[name].items()
            }
            federate(experiment.model_copy(update=changed), [cohorts], tmp_path_factory.mktemp("run"), deliver=deliver)
            seen[name] = fields
        return seen[name]

    return run


def unlisted(fields: set[Field]) -> set[Field]:
    listed = listed_fields()
    return {field for field in fields if not any(row.covers(field) for row in listed)}


def test_every_field_of_every_run_is_listed_and_every_listed_field_is_carried(carried):
    fields = set().union(*(carried(name) for name in RUNS))
    assert unlisted(fields) == set()
    stale = [row for row in listed_fields() if not any(row.covers(field) for field in fields)]
    # These are no records of a message, or need a fault.
    assert {row.name for row in stale} <= {"experiment", "sites", "run", "reason"}


def test_a_field_that_is_not_listed_is_found():
    message = Message(
        content=RecordDict({"metrics": MetricRecord({"patients": 3, "oldest-patient": 93})}),
        message_type="train",
        dst_node_id=1,
    )
    fields = fields_of(message, direction="to server", kind="train")
    assert unlisted(fields) == {("to server", "train", "oldest-patient")}
