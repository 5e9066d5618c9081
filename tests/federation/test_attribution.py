"""Who a reply is from is known from the question, not from what it says; no reply ends the run."""

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict

from server.audit import AuditLog
from server.consortium import _check_identity
from server.replies import OTHER_REFUSAL, LeftOut, attributed, read_numbers, read_reply
from stsmm_core import protocol
from stsmm_core.audit.chain import read
from stsmm_core.protocol import refusals


def question(number, node):
    message = Message(content=RecordDict(), message_type="train", dst_node_id=node)
    message.metadata.__dict__["_message_id"] = f"m{number}"
    return message


def answer(message, claims=None):
    reply = Message(content=RecordDict(), reply_to=message)
    if claims is not None:
        reply.metadata.__dict__["_src_node_id"] = claims
    return reply


def test_flowers_own_answer_for_an_offline_node_counts_as_the_nodes():
    asked = question(1, 11)
    offline = Message(Error(3, "Node Unavailable"), reply_to=asked)
    offline.metadata.__dict__["_src_node_id"] = 1
    (reply,) = attributed([offline], {"m1": 11})
    assert reply.metadata.src_node_id == 11
    with pytest.raises(LeftOut, match="no answer"):
        read_reply(read_numbers, reply)


def test_a_site_cannot_speak_for_another_or_twice():
    first, second = question(1, 11), question(2, 22)
    forged, honest = answer(first, claims=22), answer(second)
    replies = attributed([forged, honest, answer(first)], {"m1": 11, "m2": 22})
    assert [reply.metadata.src_node_id for reply in replies] == [11, 22]
    assert replies[1] is honest


def test_a_reply_to_no_question_is_dropped():
    assert attributed([answer(question(9, 11))], {"m1": 11}) == []


@pytest.mark.parametrize(
    "content",
    [
        RecordDict({protocol.REFUSAL: MetricRecord({"reason": 1})}),
        RecordDict({protocol.REFUSAL: ConfigRecord({})}),
        RecordDict({"other": MetricRecord({"x": 1})}),
        RecordDict(),
    ],
)
def test_strange_records_are_left_out(content):
    reply = Message(content=content, reply_to=question(1, 11))
    with pytest.raises(LeftOut):
        read_reply(read_numbers, reply)


def refused(reason):
    reply = Message(content=RecordDict({protocol.REFUSAL: ConfigRecord({"reason": reason})}), reply_to=question(1, 11))
    with pytest.raises(LeftOut) as caught:
        read_reply(read_numbers, reply)
    return str(caught.value)


def test_every_fixed_sentence_of_a_site_is_told_as_it_is():
    sentences = {value for name, value in vars(refusals).items() if name.isupper() and isinstance(value, str)}
    assert sentences == refusals.BY_APP | refusals.BY_GATE
    for sentence in sentences:
        assert refused(sentence) == f"refused: {sentence}"


@pytest.mark.parametrize(
    "reason", ["\x1b[2J\x1b]0;x\x07", f"{refusals.CANNOT} 17", "patient 17 has no image", ["patient 17"], 17, b"17", ""]
)
def test_a_sentence_of_a_sites_own_goes_nowhere(reason):
    assert refused(reason) == OTHER_REFUSAL


def test_a_site_that_calls_itself_otherwise_is_named_by_its_key():
    with pytest.raises(LeftOut, match="of its key, leiden") as caught:
        _check_identity({11: "leiden"}, 11, "Mallory\x1b[2J")
    assert "Mallory" not in str(caught.value)


def test_the_audit_log_holds_no_control_characters(tmp_path):
    AuditLog(tmp_path / "audit.jsonl").warned("leiden", "query", "its node has version \x1b[2J of STSMM installed")
    (line,) = read(tmp_path / "audit.jsonl")
    assert line["reason"] == "its node has version ?[2J of STSMM installed"


def test_whatever_goes_wrong_in_reading_is_left_out_without_its_text():
    def read(reply):
        raise KeyError("patient 17")

    with pytest.raises(LeftOut, match="KeyError") as caught:
        read_reply(read, answer(question(1, 11)))
    assert "17" not in str(caught.value)
