"""Messages to the nodes, and their replies."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import httpx
from flwr.app import Array, ArrayRecord, Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError, pull_objects
from flwr.superlink.grid import http_grid

from stsmm_core import protocol
from stsmm_core.model.mmnn import Weights
from stsmm_core.protocol.parts import bounded
from stsmm_core.protocol.weights import pack_weights

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.1, 3.0
SHORTEST_PULL_S = 5.0
"""For a reply that is being uploaded as the time is up."""


def packed(weights: Weights) -> ArrayRecord:
    """The network's weights as a message carries them."""
    return ArrayRecord({protocol.WEIGHTS: Array(pack_weights(weights))})


def exchange(grid: Grid, messages: Iterable[Message], *, timeout: float) -> list[Message]:
    """Send the messages and wait for the replies, as Flower's `send_and_receive`, but one by one.

    Of messages that go out together, or replies that are fetched together, a single bad one raises for all: a message
    that its node confirms before the server has handed over all of it, a reply whose bytes cannot be read. Here such a
    node has an error in the place of its reply.

    Args:
        timeout: seconds to wait for replies; who has not answered by then has none.
    """
    replies: list[Message] = []
    waiting: dict[str, Message] = {}
    for message in messages:
        try:
            waiting.update((identity, message) for identity in grid.push_messages([message]) if identity)
        except ObjectPushError:
            replies.append(_failed(message))
    deadline, wait, is_last = time.monotonic() + timeout, SHORTEST_WAIT_S, False
    while waiting and not is_last:
        # A look waits for a reply that is being uploaded: who answered meanwhile must be seen after it.
        is_last = time.monotonic() >= deadline
        with _pulls_until(deadline):
            arrived = {identity: reply for identity in waiting for reply in _pull(grid, identity, waiting[identity])}
        replies += arrived.values()
        waiting = {identity: message for identity, message in waiting.items() if identity not in arrived}
        if waiting and not is_last:
            time.sleep(min(wait, max(deadline - time.monotonic(), 0.0)))
            wait = min(1.2 * wait, LONGEST_WAIT_S)
    return replies


@contextmanager
def _pulls_until(deadline: float) -> Iterator[None]:
    """Let Flower's grid wait no longer, and take in no more, than a reply may need: on its own it waits two hours for
    one that drips in, and puts together whatever comes."""

    def pull(object_ids: list[str], pull_object_fn: Callable[[str], bytes]) -> dict[str, bytes]:
        rest = max(deadline - time.monotonic(), SHORTEST_PULL_S)
        return pull_objects(object_ids, bounded(pull_object_fn), max_time=rest)

    http_grid.pull_objects = pull  # type: ignore[assignment]
    try:
        yield
    finally:
        http_grid.pull_objects = pull_objects


def _pull(grid: Grid, identity: str, message: Message) -> list[Message]:
    """The reply to a message, if it is there."""
    try:
        arrived = list(grid.pull_messages([identity]))
    except httpx.HTTPError:
        raise  # the server's own trouble
    except Exception:  # whatever the bytes of a site make Flower raise
        return [_failed(message)]
    for reply in arrived:
        # Which message it answers is among the bytes that the site wrote; the server has checked it as it was asked.
        reply.metadata.__dict__["_reply_to_message_id"] = identity
    return arrived[:1]


def _failed(message: Message) -> Message:
    return Message(Error(ErrorCode.MESSAGE_UNAVAILABLE, "did not come across whole"), reply_to=message)
