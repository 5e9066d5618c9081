"""Reading a site's reply: what does not fit is left out, with a reason that both ends may read."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from flwr.app import Message, MetricRecord
from flwr.common.constant import ErrorCode

from stsmm_core import protocol
from stsmm_core.config import Experiment
from stsmm_core.errors import StsmmError
from stsmm_core.model.mmnn import Weights, is_running_variance
from stsmm_core.protocol import refusals
from stsmm_core.protocol.rounds import Contribution, contribution_from_numbers
from stsmm_core.protocol.weights import unpack_weights

OTHER_REFUSAL = "refused, with a sentence that is not one of ours; do site and server run one version?"
"""What is told of a refusal in the site's own words: those would come into logs, tables and the report."""
_ERRORS = {
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "no answer: the app failed at the site; the site's log says why",
    ErrorCode.CLIENT_APP_CRASHED: "no answer: the app stopped at the site, for want of memory perhaps",
    ErrorCode.MESSAGE_UNAVAILABLE: "no answer: the message or its answer did not come across whole",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "no answer: it did not come across whole",
    ErrorCode.NODE_UNAVAILABLE: "no answer: the site went offline",
}
"""Flower's error codes in words; its own text may be the site's."""

Reading = TypeVar("Reading")


class LeftOut(StsmmError):  # noqa: N818 - it names what happens to the reply, not a failure of the server
    """A reply that cannot take part in the round."""


def attributed(replies: Iterable[Message], asked: Mapping[str, int]) -> list[Message]:
    """The replies, each as from the node that was asked; a second one and those to no question are dropped.

    Who a reply says it is from proves nothing: Flower itself answers for a node that is offline, and the field is
    among the bytes that a site sends.

    Args:
        asked: the node of each message, by the message's id.
    """
    by_node: dict[int, Message] = {}
    for reply in replies:
        node = asked.get(reply.metadata.reply_to_message_id)
        if node is not None and node not in by_node:
            reply.metadata.__dict__["_src_node_id"] = node
            by_node[node] = reply
    return list(by_node.values())


def read_reply(read: Callable[[Message], Reading], reply: Message) -> Reading:
    """What a reply says.

    Raises:
        LeftOut, ProtocolError: when it cannot take part, whatever is wrong with what the site sent.
    """
    try:
        return read(reply)
    except (LeftOut, protocol.ProtocolError):
        raise
    except Exception as error:
        # One site must not end the run. The text may be the site's: only the kind of error is for the log.
        raise LeftOut(f"the reply cannot be read ({type(error).__name__})") from None


def read_numbers(reply: Message) -> MetricRecord:
    """The reply's numbers.

    Raises:
        LeftOut: when the reply is an error or a refusal, or has other records than agreed.
    """
    if reply.has_error():
        raise LeftOut(_ERRORS.get(reply.error.code, f"no answer (Flower error {reply.error.code})"))
    refusal = reply.content.config_records.get(protocol.REFUSAL)
    if refusal is not None:
        reason = refusal.get("reason")
        if isinstance(reason, str) and reason in refusals.BY_APP | refusals.BY_GATE:
            raise LeftOut(f"refused: {reason}")
        raise LeftOut(OTHER_REFUSAL)
    if list(reply.content.metric_records) != [protocol.METRICS]:
        raise LeftOut("the reply does not have the agreed records")
    return reply.content.metric_records[protocol.METRICS]


@dataclass(frozen=True, eq=False)
class Update:
    """A site's contribution to a round.

    Attributes:
        message: the reply that it was read from.
        weights: what the site sent; without the normalisation layers where they stay at the sites.
    """

    site: str
    message: Message
    contribution: Contribution
    weights: Weights


def read_update(
    reply: Message, site: str, sent: Weights, experiment: Experiment, *, patients: int, local: Collection[str] = ()
) -> Update:
    """Read a site's update and check it against the weights that were sent.

    Args:
        patients: that the site has, as it said before: its weight must not exceed them.
        local: names of the weights that stay at the sites.

    Raises:
        LeftOut, ProtocolError: when names, shapes or types differ, a value is not finite, a variance is negative, or a
            count is none.
    """
    contribution = contribution_from_numbers(read_numbers(reply), experiment, most=patients)
    if list(reply.content.array_records) != [protocol.ARRAYS]:
        raise LeftOut("the update does not have the agreed records")
    arrays = reply.content.array_records[protocol.ARRAYS]
    if list(arrays) != [protocol.WEIGHTS]:
        raise LeftOut("the update does not have the agreed records")
    received = unpack_weights(arrays[protocol.WEIGHTS].numpy())
    expected = {name: value for name, value in sent.items() if name not in local}
    if set(received) != set(expected):
        raise LeftOut("the update has other arrays than were sent")
    weights = {name: received[name] for name in expected}
    if any(
        (weights[name].shape, weights[name].dtype) != (value.shape, value.dtype) for name, value in expected.items()
    ):
        raise LeftOut("the update has other arrays than were sent")
    if not all(np.isfinite(value).all() for value in weights.values()):
        raise LeftOut("the update holds a value that is not finite")
    if any(is_running_variance(name) and (value < 0).any() for name, value in weights.items()):
        raise LeftOut("the update holds a running variance below 0")
    return Update(site, reply, contribution, weights)
