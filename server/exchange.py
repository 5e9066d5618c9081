"""Messages to the nodes, and their replies."""

import time
from collections.abc import Iterable

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.1, 3.0


def exchange(grid: Grid, messages: Iterable[Message], *, timeout: float) -> list[Message]:
    """Send the messages and wait for the replies, as Flower's `send_and_receive`, but one message at a time.

    A node that confirms its message before the server has handed over all of it makes that fail. Of messages that are
    sent together it would end the run for everybody; so it has an error in the place of its own reply.

    Args:
        timeout: seconds to wait for replies; who has not answered by then has none.
    """
    replies: list[Message] = []
    waiting: set[str] = set()
    for message in messages:
        try:
            waiting.update(filter(None, grid.push_messages([message])))
        except ObjectPushError:
            error = Error(ErrorCode.MESSAGE_UNAVAILABLE, "confirmed before it was there")
            replies.append(Message(error, reply_to=message))
    deadline, wait = time.monotonic() + timeout, SHORTEST_WAIT_S
    while waiting and time.monotonic() < deadline:
        arrived = list(grid.pull_messages(waiting))
        replies += arrived
        waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
        if waiting:
            time.sleep(wait)
            wait = min(1.2 * wait, LONGEST_WAIT_S)
    return replies
