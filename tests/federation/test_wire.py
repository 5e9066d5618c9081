"""Nothing crosses the wire that docs/wire.md does not list."""

import pytest
from flwr.app import Message, RecordDict
from wire_table import fields_of, listed_fields

# Each run shows other messages: what a plain round carries, and what is asked only with other settings.
RUNS: dict[str, dict[str, dict[str, object]]] = {"network": {}}


@pytest.fixture
def carried(federate, experiment, cohorts, tmp_path_factory):
    """Every field of every message of a run."""

    def run(settings):
        seen = set()

        def deliver(site, message, answer):
            reply = answer()
            kind = message.metadata.message_type
            seen.update(fields_of(message, direction="to site", kind=kind))
            seen.update(fields_of(reply, direction="to server", kind=kind))
            return reply

        changed = {
            section: getattr(experiment, section).model_copy(update=values) for section, values in settings.items()
        }
        federate(
            experiment.model_copy(update=changed),
            [cohorts / f"site_{number}" for number in (1, 2, 3)],
            tmp_path_factory.mktemp("run"),
            deliver=deliver,
        )
        return seen

    return run


def unlisted(fields):
    listed = listed_fields()
    anywhere = {(direction, name) for direction, message, name in listed if message in ("all", "any")}
    return {field for field in fields if field not in listed and (field[0], field[2]) not in anywhere}


@pytest.mark.parametrize("name", RUNS)
def test_every_field_is_listed(carried, name):
    seen = carried(RUNS[name])
    assert len(seen) > 20
    assert unlisted(seen) == set()


def test_a_field_that_is_not_listed_is_found():
    from flwr.app import MetricRecord

    message = Message(
        content=RecordDict({"metrics": MetricRecord({"patients": 3, "oldest-patient": 93})}),
        message_type="train",
        dst_node_id=1,
    )
    fields = fields_of(message, direction="to server", kind="train")
    assert unlisted(fields) == {("to server", "train", "oldest-patient")}


def test_nothing_is_listed_that_no_run_carries(carried):
    seen = set().union(*(carried(settings) for settings in RUNS.values()))
    stale = {
        field
        for field in listed_fields() - seen
        if field[1] not in ("all", "any") and not field[2].startswith(("cohort.", "training.", "encoding."))
    }
    assert stale == set()
