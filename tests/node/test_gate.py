"""The gate between Flower's own node loop and a server: what gets in, what gets out."""

import base64
import hashlib
import json
import time
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign
from gate_server import Node, Server, make_app, write_site

from client.node import approval, gate
from client.node.ledger import IN_HAND, LOST, Ledger
from client.node.node import _give_up
from stsmm_core.audit.chain import read, verify
from stsmm_core.protocol import ProtocolError, refusals
from stsmm_core.protocol.weights import pack_weights, unpack_weights

LEGAL = {"patients": 42, "events": 20, "weight": 20.0}
LEGAL |= {"modalities-seen": [1], "modalities-missed": [0], "heads-taught": [1, 0]}
WEIGHTS = {"a": np.arange(6, dtype="float32").reshape(2, 3), "n": np.array(3)}

UNREADABLE = ArrayRecord({"weights": Array("uint8", (10,), "numpy.ndarray", b"patient 17")})


def question(number=1, kind="train"):
    content = RecordDict({"config": ConfigRecord({"fold": 0, "server-round": number})})
    if kind == "train":
        content["arrays"] = arrays()
    return Message(content, 5, kind)


def arrays(**changed):
    return ArrayRecord({"weights": Array(pack_weights(WEIGHTS | changed))})


def answer_with(metrics=None, weights=None, **records):
    content = {"metrics": MetricRecord(metrics or LEGAL), "arrays": weights or arrays()} | records
    return lambda message: Message(RecordDict(content), reply_to=message)


@pytest.fixture
def server():
    return Server(make_app())


@pytest.fixture
def approved(kit, server):
    Ledger(kit).approve(server.run.fab_hash, "stsmm/stsmm", "tester")
    return kit


def turn(kit, server, app=None, message=None):
    server.ask(message or question())
    node = Node(kit, server)
    node.turn(app or answer_with())
    return node


def reason(server):
    return server.sent[-1].content["refusal"]["reason"]


def test_a_legal_answer_of_approved_code_passes_and_is_noted(approved, server):
    turn(approved, server)
    (sent,) = server.sent
    assert dict(sent.content["metrics"]) == LEGAL
    received = unpack_weights(sent.content["arrays"]["weights"].numpy())
    assert {name: value.tolist() for name, value in received.items()} == {
        name: value.tolist() for name, value in WEIGHTS.items()
    }
    log = approved / "state" / "audit.jsonl"
    assert verify(log) == 1
    (line,) = read(log)
    assert line["event"] == "sent"
    assert line["fields"]["arrays"] == [2, 7]
    assert (line["code"], line["round"]) == (server.run.fab_hash, 1)


def test_weights_of_many_parts_pass(approved, server):
    """Flower divides an array into parts of 5 MB."""
    many = np.random.default_rng(0).normal(size=1_600_000)
    asked = question()
    asked.content["arrays"] = arrays(many=many)
    turn(approved, server, answer_with(weights=arrays(many=many + 1)), asked)
    (sent,) = server.sent
    packed = sent.content["arrays"]["weights"]
    assert len(packed.children) == 3
    np.testing.assert_array_equal(unpack_weights(packed.numpy())["many"], many + 1)


def test_a_part_of_an_answer_that_would_fill_the_memory_is_refused(approved, server):
    """An array that names its only part again and again."""
    asked = question()
    server.ask(asked)
    gate = Node(approved, server).gate
    answer = Message(RecordDict({"arrays": arrays()}), reply_to=asked)
    parts, session = gate.send(answer, get_object_tree(answer), 0.0)
    with pytest.raises(ProtocolError, match="names its parts"):
        gate.push_object(7, session, min(parts), b'Array part 30\0{"arraychunk_ids": [0, 0, 0]}')


@pytest.mark.parametrize(
    ("app", "why"),
    [
        (answer_with(LEGAL | {"oldest": 93}), "field"),
        (answer_with(LEGAL | {"modalities-seen": [1, 4711001]}), "shape"),
        (answer_with(LEGAL | {"patients": 4}), "min_cell"),
        (answer_with(LEGAL | {"patients": 4711001}), "patients"),
        (answer_with(notes=ConfigRecord({"text": "patient 17"})), "records"),
        (answer_with(weights=arrays(a=np.zeros((3, 2), "float32"))), "arrays"),
        (answer_with(weights=arrays(a=np.zeros((2, 3), "float64"))), "arrays"),
        (answer_with(weights=arrays(b=np.zeros(3))), "arrays"),
        (answer_with(weights=ArrayRecord({name: Array(value) for name, value in WEIGHTS.items()})), "arrays"),
        (answer_with(metrics={"patients": 42, "weight": float("inf")}), "number"),
        (
            answer_with(weights=UNREADABLE),
            "read",
        ),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_in_the_table_is_replaced_by_a_refusal(approved, server, app, why):
    turn(approved, server, app)
    assert reason(server) == refusals.HELD_BACK
    assert list(server.sent[0].content) == ["refusal"]
    (line,) = read(approved / "state" / "audit.jsonl")
    assert why in line["detail"]
    assert "17" not in line["detail"]


def test_the_text_of_an_error_stays(approved, server):
    turn(approved, server, lambda message: Message(Error(2, "KeyError: 'patient 17'"), reply_to=message))
    assert server.sent[0].error.code == 2
    assert server.sent[0].error.reason == "the app failed at the site"


def test_an_error_number_of_the_apps_own_stays(approved, server):
    turn(approved, server, lambda message: Message(Error(4711001, ""), reply_to=message))
    assert server.sent[0].error.code == 0


def test_text_in_the_metadata_is_held_back(approved, server):
    def app(message):
        reply = answer_with()(message)
        reply.metadata.group_id = "patient 17"
        return reply

    turn(approved, server, app)
    assert reason(server) == refusals.HELD_BACK
    assert server.sent[0].metadata.group_id == ""


def test_a_refusal_of_the_app_passes_if_it_is_a_fixed_sentence(approved, server):
    def app(sentence):
        return lambda message: Message(RecordDict({"refusal": ConfigRecord({"reason": sentence})}), reply_to=message)

    turn(approved, server, app(refusals.COHORT))
    assert reason(server) == refusals.COHORT
    turn(approved, server, app("patient 17 has no image"))
    assert reason(server) == refusals.HELD_BACK


def test_unapproved_code_never_starts(kit, server):
    node = turn(kit, server)
    assert node.started == 0
    assert reason(server) == refusals.NOT_APPROVED
    assert read(kit / "state" / "audit.jsonl")[0]["event"] == "refused"


def test_nothing_begins_on_a_full_disk(approved, server, monkeypatch):
    monkeypatch.setattr("client.node.gate.shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    assert turn(approved, server).started == 0
    assert reason(server) == refusals.NO_SPACE


def test_a_refusal_waits_until_the_server_has_the_whole_message(kit, server):
    """What Flower is told to have arrived it drops, also the parts that it is still taking in for other sites."""
    turn(kit, server)
    assert server.confirmed_whole == [True]


def test_a_changed_byte_is_other_code(approved):
    server = Server(make_app("# changed"))
    assert turn(approved, server).started == 0
    assert reason(server) == refusals.NOT_APPROVED


def test_revoked_code_is_refused_within_a_run(approved, server):
    server.ask(question())
    node = Node(approved, server)
    node.turn(answer_with())
    approval.revoke(approved, server.run.fab_hash[:10])
    server.ask(question(2))
    node.turn(answer_with())
    assert reason(server) == refusals.NOT_APPROVED
    assert node.started == 1


@pytest.mark.parametrize("change", [{"fab_id": "stsmm/other"}, {"fab_version": "0.0.9"}, {"fab_hash": "0" * 64}])
def test_a_run_cannot_name_another_folder_of_code(approved, change):
    server = Server(make_app(), **change)
    assert turn(approved, server).started == 0
    assert reason(server) == refusals.OTHER_CODE


def test_other_kinds_of_task_and_message_are_refused(approved, server):
    turn(approved, server, message=question(kind="evaluate.rows"))
    assert reason(server) == refusals.UNKNOWN_MESSAGE
    server.run.primary_task_type = "flwr-agentapp"
    turn(approved, server)
    assert reason(server) == refusals.OTHER_TASK


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ('models = ["mmnn"]', refusals.OTHER_MODEL),
        ('endpoints = ["os"]', refusals.OTHER_ENDPOINT),
        ("require_secure_aggregation = true", refusals.SECURE_AGGREGATION),
        ("rounds_a_day = 1", refusals.ROUNDS_A_DAY),
    ],
)
def test_policy(approved, server, policy, sentence):
    write_site(approved, (approved / "site.toml").read_text() + f"[policy]\n{policy}\n")
    Ledger(approved).serve_round("other", 0, 1, limit=10)
    assert turn(approved, server).started == 0
    assert reason(server) == sentence


def test_a_repeated_round_counts_once(approved, server):
    write_site(approved, (approved / "site.toml").read_text() + "[policy]\nrounds_a_day = 2\n")
    for number in (1, 1, 2, 1, 2):
        turn(approved, server, message=question(number))  # a new node each time: the ledger remembers
    assert all("metrics" in sent.content for sent in server.sent)
    turn(approved, server, message=question(3))
    assert reason(server) == refusals.ROUNDS_A_DAY
    assert Ledger(approved).rounds_today() == 2


@pytest.mark.parametrize("name", ["../elsewhere", ""])
def test_a_run_without_a_name_that_is_one_is_refused(approved, server, name):
    server.run.override_config["run"] = name
    assert turn(approved, server).started == 0
    assert reason(server) == refusals.BAD_CONFIGURATION


def test_what_goes_wrong_in_the_gate_lets_nothing_pass(approved, server, monkeypatch):
    monkeypatch.setattr("client.node.gate.append", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    turn(approved, server)
    assert reason(server) == refusals.HELD_BACK
    monkeypatch.setattr("client.node.gate.admit", lambda *_, **__: 1 / 0)
    assert turn(approved, server).started == 0
    assert reason(server) == refusals.GATE_FAILED


def test_code_on_the_disk_is_installed_anew(approved, server):
    old = approved / "state" / "flower" / "apps" / "x"
    old.mkdir(parents=True)
    turn(approved, server)
    assert not old.exists()


@pytest.mark.parametrize(
    ("signers", "passes"),
    [
        ([], False),
        ([("a", "leiden")], False),
        ([("a", "leiden"), ("b", "leiden")], False),
        ([("a", "leiden"), ("b", "paris")], True),
        ([("a", "leiden"), ("wrong", "paris")], False),
    ],
)
def test_signatures_of_reviewers_of_different_sites(kit, server, signers, passes):
    write_site(kit, (kit / "site.toml").read_text() + "[policy]\nrequired_signatures = 2\n")
    digest, lines = hashlib.sha256(server.fab.content).digest(), {}
    for name, site in signers:
        key = Ed25519PrivateKey.generate()
        lines[name] = f"{key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {site}"
        signer = Ed25519PrivateKey.generate() if name == "wrong" else key
        at = int(time.time())
        signature = base64.urlsafe_b64encode(signer.sign(create_message_to_sign(digest, at))).decode()
        server.fab.verifications[name] = json.dumps({"signature": signature, "signed_at": at})
    (kit / "reviewers.yaml").write_text(yaml.safe_dump(lines))
    assert turn(kit, server).started == passes
    if not passes:
        assert reason(server) == refusals.NOT_SIGNED


def end_over_a_message(kit, server):
    """As a killed node leaves it; the next node."""
    server.ask(question())
    assert Node(kit, server).connection[1]() is not None
    assert Ledger(kit).noted(IN_HAND)["message"] == "train"
    _give_up(Ledger(kit))  # what the command does before it starts the next process
    assert Ledger(kit).noted(IN_HAND) is None
    return Node(kit, server)


def test_a_node_that_was_killed_over_a_message_says_so_when_it_is_back(approved, server):
    node = end_over_a_message(approved, server)
    assert server.sent == []
    node.gate.give_up_lost()
    assert reason(server) == refusals.INTERRUPTED
    metadata = server.sent[-1].metadata
    assert (metadata.message_type, metadata.run_id, metadata.dst_node_id) == ("train", 7, 1)
    assert metadata.reply_to_message_id
    (line,) = read(approved / "state" / "audit.jsonl")
    assert (line["event"], line["reason"], line["code"]) == ("refused", refusals.INTERRUPTED, server.run.fab_hash)
    node.gate.give_up_lost()
    assert node.connection[1]() is None
    assert len(server.sent) == 1


def not_sent(*_):
    raise ConnectionError("the run is over")


def test_a_lost_message_that_nobody_takes_an_answer_to_is_forgotten_without_a_line(approved, server):
    node = end_over_a_message(approved, server)
    node.gate._send = not_sent
    node.gate.give_up_lost()
    assert Ledger(approved).noted(LOST) is None
    assert not (approved / "state" / "audit.jsonl").exists()
    turn(approved, server)
    assert dict(server.sent[-1].content["metrics"]) == LEGAL


def test_an_answer_that_could_not_be_sent_is_not_in_hand_any_more(approved, server):
    server.ask(question())
    node = Node(approved, server)
    node.gate._send = not_sent
    node.turn(answer_with())
    assert server.sent == []
    assert Ledger(approved).noted(IN_HAND) is None


def in_trouble(call, *, times, status=500):
    """The call, that fails so many times."""
    left = [times]

    def called(*arguments):
        if left[0]:
            left[0] -= 1
            request = httpx.Request("POST", "https://server")
            raise httpx.HTTPStatusError("trouble", request=request, response=httpx.Response(status, request=request))
        return call(*arguments)

    return called


@pytest.mark.parametrize("part", ["_send", "_push"])
def test_an_answer_outlives_the_servers_trouble(approved, server, monkeypatch, part):
    monkeypatch.setattr(gate, "WAITS_S", (0.0, 0.0))
    server.ask(question())
    node = Node(approved, server)
    setattr(node.gate, part, in_trouble(getattr(node.gate, part), times=2))
    node.turn(answer_with())
    (sent,) = server.sent
    assert dict(sent.content["metrics"]) == LEGAL


@pytest.mark.parametrize(("times", "status"), [(3, 500), (1, 401)])
def test_trouble_that_stays_or_is_the_sites_own_is_not_tried_for_ever(approved, server, monkeypatch, times, status):
    monkeypatch.setattr(gate, "WAITS_S", (0.0, 0.0))
    server.ask(question())
    node = Node(approved, server)
    node.gate._send = in_trouble(node.gate._send, times=times, status=status)
    node.turn(answer_with())
    assert server.sent == []
