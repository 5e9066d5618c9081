"""What a courier may bring by mistake or on purpose, at both ends."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from courier_ends import APP, Authority, Ends, message_in, new_ends, new_key, parcel_to_server, run_of, wrapped
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.proto.message_pb2 import Message as ProtoMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.node.courier import answer_file
from server.deploy import courier as server_courier
from server.deploy.courier import alone, carry, clear, parcel_of, read_answer, short_wait, write_out
from stsmm_core import protocol
from stsmm_core.audit.chain import read, verify
from stsmm_core.courier.envelope import read_envelope
from stsmm_core.courier.parcel import CourierError, Parcel


@pytest.fixture
def ends(tmp_path) -> Ends:
    return new_ends(tmp_path)


@pytest.fixture
def once(ends, tmp_path) -> tuple[Ends, bytes, bytes]:
    """A file and its answer."""
    file = send(ends)
    answer = tmp_path / "answer"
    answer_file(ends.site, file, answer, Node())
    return ends, file.read_bytes(), answer.read_bytes()


def question(run: int = 1, node: int = 7, identity: str = "a" * 64) -> Message:
    message = Message(RecordDict({"config": ConfigRecord({"round": 1})}), message_type="train", dst_node_id=node)
    message.metadata.__dict__["_run_id"] = run
    message.metadata.__dict__["_message_id"] = identity
    return message


def number_of(file) -> int:
    return read_envelope(file.read_bytes(), file.name).header.sequence


def send(ends: Ends, message: Message | None = None):
    message = message or question()
    parcel = parcel_of(*wrapped(message), run_of(message, {}), APP)
    return write_out(ends.server, parcel, message.metadata.run_id)


class Node:
    """Answers a message and counts how often it worked."""

    def __init__(self) -> None:
        self.worked = 0

    def __call__(self, parcel: Parcel) -> Parcel:
        self.worked += 1
        content = RecordDict({"metrics": MetricRecord({"patients": 12 + self.worked})})
        return parcel_to_server(Message(content, reply_to=message_in(parcel)))


def refused_at_site(ends: Ends, file, sentence: str) -> None:
    node = Node()
    with pytest.raises(CourierError, match=sentence):
        answer_file(ends.site, file, ends.site.state / "out", node)
    assert node.worked == 0
    assert not (ends.site.state / "out").exists()
    last = read(ends.site.audit)[-1]
    assert last["courier"] == "refused"
    assert str(ends.site.state) not in last["reason"]
    verify(ends.site.audit)


def test_a_file_that_was_answered_gives_the_same_answer_and_is_not_worked_on_again(ends, tmp_path):
    node = Node()
    file = send(ends)
    assert answer_file(ends.site, file, tmp_path / "first", node)
    assert not answer_file(ends.site, file, tmp_path / "second", node)
    assert node.worked == 1
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert [entry["courier"] for entry in read(ends.site.audit)] == [
        "received",
        "answered",
        "answered again, with the same file",
    ]


def test_work_that_failed_is_done_when_the_file_comes_again(ends, tmp_path):
    def fails(parcel):
        raise CourierError("the node could not work on the message; its log says why")

    file = send(ends)
    with pytest.raises(CourierError, match="its log"):
        answer_file(ends.site, file, tmp_path / "out", fails)
    assert answer_file(ends.site, file, tmp_path / "out", Node())


def test_an_old_file_is_refused_at_the_site(ends, tmp_path):
    file = send(ends)
    first, old = number_of(file), file.read_bytes()
    clear(ends.server)
    file = send(ends, question(run=2))
    second = number_of(file)
    assert second > first
    answer_file(ends.site, file, tmp_path / "out", Node())
    (tmp_path / "old").write_bytes(old)
    refused_at_site(ends, tmp_path / "old", f"file {first} from the server, but file {second} was answered already")


@pytest.mark.parametrize("counter", [None, "7"])
def test_a_site_works_on_after_the_server_lost_its_counter_or_took_an_old_one(ends, tmp_path, monkeypatch, counter):
    ends.server.state.mkdir()
    (ends.server.state / server_courier.COUNTER_FILE).write_text("40")
    file = send(ends)
    answer_file(ends.site, file, tmp_path / "out", Node())
    for left in ends.server.state.iterdir():
        left.unlink()
    if counter is not None:
        (ends.server.state / server_courier.COUNTER_FILE).write_text(counter)
    monkeypatch.setattr(server_courier, "time", SimpleNamespace(time=lambda: time.time() + 60))
    assert answer_file(ends.site, send(ends, question(run=2)), tmp_path / "out", Node())


def test_numbers_grow_though_the_servers_clock_is_set_back(ends, monkeypatch):
    numbers = []
    for now in (2e9, 2e9, 1e9, 2e9 + 1.5, 3e9):
        monkeypatch.setattr(server_courier, "time", SimpleNamespace(time=lambda now=now: now))
        numbers.append(number_of(send(ends)))
        clear(ends.server)
    assert numbers == [2_000_000_000, 2_000_000_001, 2_000_000_002, 2_000_000_003, 3_000_000_000]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"site": "berlin"}, "for the site leiden; this kit is that of berlin"),
        ({"consortium": "other"}, "of the consortium sarcoma-2026; this kit belongs to other"),
        ({"host": "elsewhere.example.org"}, "its certificate is for something else"),
        ({"key": new_key()}, "encrypted for another key"),
    ],
)
def test_a_file_for_somebody_else_is_refused_at_the_site(ends, changed, sentence):
    refused_at_site(replace(ends, site=replace(ends.site, **changed)), send(ends), sentence)


def with_certificate(ends: Ends, authority: Authority, **issued) -> Ends:
    return replace(ends, server=replace(ends.server, certificate=authority.issue(ends.server.sign, **issued)))


def test_a_file_of_a_stranger_is_refused_at_the_site(ends, tmp_path):
    stranger = new_ends(tmp_path / "stranger")
    refused_at_site(ends, send(with_certificate(ends, stranger.authority)), "not signed by the server")
    impostor = replace(ends, server=replace(ends.server, sign=new_key()))
    refused_at_site(ends, send(impostor), "not signed by the server, or changed")
    refused_at_site(ends, send(with_certificate(ends, ends.authority, days=(-9, -1))), "valid from .* clock")


def test_an_answer_is_not_worked_on(ends, tmp_path):
    answer_file(ends.site, send(ends), tmp_path / "answer", Node())
    refused_at_site(ends, tmp_path / "answer", "an answer of a site to the server")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda data: b"", "not a courier file"),
        (lambda data: b"PK" + data, "not a courier file"),
        (lambda data: data.replace(b"file 1\n", b"file 2\n"), "another version of stsmm"),
        (lambda data: data[:-1], "not complete"),
        (lambda data: data[:40], "not complete"),
        (lambda data: data + b"\0", "not complete"),
    ],
)
def test_a_file_that_suffered_is_refused_at_both_ends(ends, tmp_path, spoil, sentence):
    file = send(ends)
    answer_file(ends.site, file, tmp_path / "answer", Node())
    (tmp_path / "asked").write_bytes(spoil(file.read_bytes()))
    (tmp_path / "answered").write_bytes(spoil((tmp_path / "answer").read_bytes()))
    refused_at_site(ends, tmp_path / "asked", sentence)
    with pytest.raises(CourierError, match=sentence):
        read_answer(ends.server, tmp_path / "answered")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0), byte=st.integers(1, 255), direction=st.sampled_from([0, 1]))
def test_any_changed_byte_is_refused(once, tmp_path, position, byte, direction):
    ends, *files = once
    data = bytearray(files[direction])
    data[position % len(data)] ^= byte
    (tmp_path / "changed").write_bytes(data)
    if direction == 0:
        with pytest.raises(CourierError):
            answer_file(ends.site, tmp_path / "changed", tmp_path / "out", Node())
    else:
        with pytest.raises(CourierError):
            read_answer(ends.server, tmp_path / "changed")


def test_an_answer_to_another_file_is_refused_at_the_server(ends, tmp_path):
    file = send(ends)
    first = number_of(file)
    answer_file(ends.site, file, tmp_path / "first", Node())
    clear(ends.server)
    second = number_of(send(ends, question(identity="b" * 64)))
    with pytest.raises(CourierError, match=rf"answers file {first}, .* file {second} is on its way"):
        read_answer(ends.server, tmp_path / "first")
    clear(ends.server)
    send(ends, question(run=2))
    with pytest.raises(CourierError, match="belongs to another run"):
        read_answer(ends.server, tmp_path / "first")


def test_another_sites_answer_is_refused_at_the_server(ends, tmp_path):
    answer_file(ends.site, send(ends), tmp_path / "answer", Node())
    other = replace(ends.server, site="berlin")
    with pytest.raises(CourierError, match="from the site leiden; this folder is that of berlin"):
        read_answer(other, tmp_path / "answer")
    with pytest.raises(CourierError, match="not signed by the site leiden"):
        read_answer(replace(ends.server, site_key=new_key().public_key()), tmp_path / "answer")
    with pytest.raises(CourierError, match="of the consortium sarcoma-2026; this is other"):
        read_answer(replace(ends.server, consortium="other"), tmp_path / "answer")
    with pytest.raises(CourierError, match="from the server to a site"):
        read_answer(ends.server, next(ends.server.out.iterdir()))


def test_a_message_that_answers_something_else_is_refused_at_the_server(ends, tmp_path):
    def answers_another(parcel):
        return parcel_to_server(Message(RecordDict({}), reply_to=question(identity="c" * 64)))

    def leaves_out_an_object(parcel):
        answer = Node()(parcel)
        return replace(answer, objects=dict(list(answer.objects.items())[1:]))

    def holds(message, tree=b""):
        return lambda parcel: Parcel(message, tree)

    strange = ProtoMessage()
    strange.content.items.add()
    no_messages = [holds(b"\xff", b"\xff"), holds(b""), holds(strange.SerializeToString())]
    file = send(ends)
    for number, work in enumerate((answers_another, leaves_out_an_object, *no_messages)):
        site = replace(ends.site, state=tmp_path / f"site-{number}")
        answer_file(site, file, tmp_path / "answer", work)
        with pytest.raises(CourierError, match="no answer to the message"):
            read_answer(ends.server, tmp_path / "answer")


def test_a_second_courier_for_the_same_site_is_refused(ends):
    with alone(ends.server), pytest.raises(CourierError, match="another courier for leiden"), alone(ends.server):
        pass


@pytest.mark.parametrize(("timeout", "warned"), [(3600, True), (86400, False)])
def test_a_run_that_does_not_wait_a_day_is_warned_of(timeout, warned):
    run = run_of(question(), {protocol.EXPERIMENT: f"federation.timeout_s = {timeout}"})
    assert (short_wait(run) is not None) == warned


class Superlink:
    """What a node has of its server, with messages from a list."""

    def __init__(self, messages: list[Message], status: str = "running") -> None:
        self.waiting = [wrapped(message) for message in messages]
        self.confirmed: list[str] = []
        self.sent: list[Message] = []
        self.pushed: dict[str, bytes] = {}
        self.status = status
        self._objects: dict[str, bytes] = {}

    def connection(self) -> server_courier.Connection:
        def receive():
            if not self.waiting:
                raise KeyboardInterrupt
            message, tree, objects = self.waiting.pop(0)
            self._objects = objects
            return message, tree

        def send(message, tree, seconds):
            self.sent.append(message)
            assert seconds == 1.5
            return {each.object_id for each in server_courier.iterate_object_tree(tree)}, "session"

        def get_run(number):
            run = run_of(question(run=number), {})
            run.status.status = self.status
            return run

        return (
            7,
            receive,
            send,
            get_run,
            lambda digest, run: APP,
            lambda run, name: self._objects[name],
            lambda run, session, name, content: self.pushed.update({name: content}),
            lambda run, name: self.confirmed.append(name),
        )


def test_the_courier_carries_one_message_after_the_other(ends, tmp_path):
    link = Superlink([question(), question(identity="b" * 64)])
    node, said = Node(), []
    (ends.server.arrivals).mkdir(parents=True)
    (ends.server.arrivals / "aerial.jpg").write_bytes(b"JFIF")

    def say(sentence: str) -> None:
        said.append(sentence)
        for file in ends.server.out.iterdir():  # the courier is quick
            answer_file(ends.site, file, ends.server.arrivals / f"answer-{file.name}", node)

    with pytest.raises(KeyboardInterrupt):
        carry(link.connection(), ends.server, say, poll_s=0)
    assert node.worked == 2
    assert [message.metadata.reply_to_message_id for message in link.sent] == ["a" * 64, "b" * 64]
    assert link.confirmed == ["a" * 64, "b" * 64]
    assert len(link.pushed) >= 4
    assert [file.name for file in ends.server.arrivals.iterdir()] == ["aerial.jpg"]
    assert not list(ends.server.out.iterdir())
    assert len([sentence for sentence in said if "aerial.jpg" in sentence]) == 1
    assert verify(ends.server.audit) == 5


def test_the_file_on_its_way_survives_a_restart_of_the_server(ends):
    file = send(ends)
    data = file.read_bytes()
    file.unlink()
    answer = ends.server.arrivals / "answer"

    def say(sentence: str) -> None:
        if file.exists() and not answer.exists():
            assert file.read_bytes() == data
            answer_file(ends.site, file, answer, Node())

    link = Superlink([])
    with pytest.raises(KeyboardInterrupt):
        carry(link.connection(), ends.server, say, poll_s=0)
    assert [message.metadata.reply_to_message_id for message in link.sent] == ["a" * 64]


@pytest.mark.parametrize(
    ("status", "ttl", "sentence"), [("finished", 1e6, "its run has ended"), ("running", 0.001, "as long as it could")]
)
def test_a_file_that_nobody_waits_for_is_given_up(ends, monkeypatch, status, ttl, sentence):
    monkeypatch.setattr(server_courier, "RUN_CHECK_S", 0)
    message = question()
    message.metadata.ttl = ttl
    link, said = Superlink([message], status), []
    with pytest.raises(KeyboardInterrupt):
        carry(link.connection(), ends.server, said.append, poll_s=0)
    assert sentence in said[-1]
    assert not link.sent
    assert not list(ends.server.out.iterdir())
