"""Reading a site's reply: what does not fit is left out, with a reason that both ends may read."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, MetricRecord

from stsmm_core import protocol
from stsmm_core.config import Experiment
from stsmm_core.errors import StsmmError
from stsmm_core.model.mmnn import Weights

LONGEST_REASON = 200


class LeftOut(StsmmError):  # noqa: N818 - it names what happens to the reply, not a failure of the server
    """A reply that cannot take part in the round."""


def read_numbers(reply: Message) -> MetricRecord:
    """The reply's numbers.

    Raises:
        LeftOut: when the reply is an error or a refusal, or has other records than agreed.
    """
    if reply.has_error():
        raise LeftOut(f"no answer (Flower error {reply.error.code})")
    if protocol.REFUSAL in reply.content:
        raise LeftOut(f"refused: {str(reply.content.config_records[protocol.REFUSAL]['reason'])[:LONGEST_REASON]}")
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
    contribution: protocol.Contribution
    weights: Weights


def read_update(
    reply: Message, site: str, sent: Weights, experiment: Experiment, *, local: Collection[str] = ()
) -> Update:
    """Read a site's update and check it against the weights that were sent.

    Args:
        local: names of the weights that stay at the sites.

    Raises:
        LeftOut, ProtocolError: when names, shapes or types differ, a value is not finite, or a count is none.
    """
    contribution = protocol.contribution_from_numbers(read_numbers(reply), experiment)
    if list(reply.content.array_records) != [protocol.ARRAYS]:
        raise LeftOut("the update does not have the agreed records")
    arrays = reply.content.array_records[protocol.ARRAYS]
    expected = {name: value for name, value in sent.items() if name not in local}
    if set(arrays) != set(expected):
        raise LeftOut("the update has other arrays than were sent")
    try:
        weights = {name: arrays[name].numpy() for name in expected}
    except Exception:
        # The bytes are the site's: whatever is wrong with them, numpy's error is not for the log.
        raise LeftOut("the update has an array that cannot be read") from None
    if any(
        (weights[name].shape, weights[name].dtype) != (value.shape, value.dtype) for name, value in expected.items()
    ):
        raise LeftOut("the update has other arrays than were sent")
    if not all(np.isfinite(value).all() for value in weights.values()):
        raise LeftOut("the update holds a value that is not finite")
    return Update(site, reply, contribution, weights)
