"""Messages go out one by one: one that cannot be handed over does not touch the others."""

import itertools
import time

import httpx
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError, ObjectUnavailableError, pull_objects
from flwr.superlink.grid import http_grid

from server import exchange as exchange_module
from server.exchange import exchange
from server.replies import LeftOut, attributed, read_numbers
from stsmm_core.protocol import parts


class Grid:
    """Answers after some looks.

    `early` are nodes whose message cannot be handed over, `full` what is not accepted, `garbled` whose reply cannot be
    read; `slow` is a node at which a look takes so many seconds.
    """

    def __init__(self, *, looks, early=(), full=(), garbled=(), slow=None):
        self.looks, self.early, self.full, self.garbled, self.slow = looks, early, full, garbled, slow or {}
        self.waiting, self.ids = {}, itertools.count(1)

    def push_messages(self, messages):
        (message,) = messages
        message.metadata.__dict__["_message_id"] = str(next(self.ids))
        if message.metadata.dst_node_id in self.early:
            raise ObjectPushError("part", 1, "session")
        if message.metadata.dst_node_id in self.full:
            return []
        self.waiting[message.metadata.message_id] = message
        return [message.metadata.message_id]

    def pull_messages(self, identities):
        (identity,) = identities
        node = self.waiting[identity].metadata.dst_node_id
        time.sleep(self.slow.get(node, 0))
        self.looks[node] -= 1
        if self.looks[node] >= 0:
            return []
        if node in self.garbled:
            raise IndexError("whatever the bytes make Flower raise")
        reply = Message(RecordDict(), reply_to=self.waiting.pop(identity))
        reply.metadata.__dict__["_reply_to_message_id"] = "another site's"
        return [reply]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(exchange_module, "SHORTEST_WAIT_S", 0.001)


def messages(*nodes):
    return [Message(RecordDict(), dst_node_id=node, message_type="train") for node in nodes]


def answered(grid, asked, timeout=5.0):
    replies = exchange(grid, asked, timeout=timeout)
    return attributed(replies, {each.metadata.message_id: each.metadata.dst_node_id for each in asked})


def test_every_node_is_waited_for():
    replies = answered(Grid(looks={1: 3, 2: 0, 3: 1}), messages(1, 2, 3))
    assert [reply.metadata.src_node_id for reply in replies] == [2, 3, 1]


def test_a_node_that_confirms_too_early_is_the_only_one_without_a_reply_of_its_own():
    replies = {
        reply.metadata.src_node_id: reply for reply in answered(Grid(looks={1: 0, 3: 1}, early={2}), messages(1, 2, 3))
    }
    assert sorted(replies) == [1, 2, 3]
    assert [node for node, reply in replies.items() if reply.has_error()] == [2]
    with pytest.raises(LeftOut, match="no answer"):
        read_numbers(replies[2])


def test_who_is_silent_or_not_reached_has_no_reply():
    replies = answered(Grid(looks={1: 0, 2: 1000}, full={3}), messages(1, 2, 3), timeout=0.2)
    assert [reply.metadata.src_node_id for reply in replies] == [1]


def test_a_reply_that_cannot_be_read_is_nobody_elses_matter():
    replies = {
        reply.metadata.src_node_id: reply
        for reply in answered(Grid(looks={1: 0, 2: 1, 3: 2}, garbled={2}), messages(1, 2, 3))
    }
    assert [node for node, reply in sorted(replies.items()) if reply.has_error()] == [2]
    assert sorted(replies) == [1, 2, 3]


def test_who_answered_while_another_was_looked_at_is_seen_after_the_time_is_over():
    grid = Grid(looks={1: 1, 2: 1000}, slow={2: 0.3})
    assert [reply.metadata.src_node_id for reply in answered(grid, messages(1, 2), timeout=0.2)] == [1]


class Parts:
    """A grid that fetches a reply's parts with Flower's function; one never comes, or they are too many."""

    def __init__(self, part):
        self.part, self.grid = part, Grid(looks={1: 1000})

    def push_messages(self, asked):
        return self.grid.push_messages(asked)

    def pull_messages(self, identities):
        http_grid.pull_objects(object_ids=["a", "b"], pull_object_fn=self.part)


def test_a_reply_that_drips_in_costs_no_more_than_the_rounds_time(monkeypatch):
    monkeypatch.setattr(exchange_module, "SHORTEST_PULL_S", 0.1)

    def missing(name):
        raise ObjectUnavailableError(name)

    began = time.monotonic()
    (reply,) = exchange(Parts(missing), messages(1), timeout=1.0)
    assert reply.has_error()
    assert time.monotonic() < began + 10  # Flower's own time is two hours


@pytest.mark.parametrize(
    "content", [bytes(parts.LARGEST_MESSAGE // 2 + 1), b'Array x 30\0{"arraychunk_ids": [0, 0]}', b"Array x 3\0{{{"]
)
def test_a_reply_that_would_fill_the_memory_is_left_out(content):
    (reply,) = exchange(Parts(lambda name: content), messages(1), timeout=5.0)
    assert reply.has_error()
    assert http_grid.pull_objects is pull_objects


def test_trouble_of_the_server_itself_is_not_a_sites(monkeypatch):
    grid = Grid(looks={1: 0})
    monkeypatch.setattr(grid, "pull_messages", lambda _: (_ for _ in ()).throw(httpx.ConnectError("down")))
    with pytest.raises(httpx.ConnectError):
        exchange(grid, messages(1), timeout=1.0)


def test_no_message_needs_no_time():
    assert exchange(Grid(looks={}), [], timeout=1000.0) == []
