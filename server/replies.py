"""Reading a site's reply: what does not fit is left out, with a reason that both ends may read."""

import math

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

from stsmm_core import protocol
from stsmm_core.errors import StsmmError

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


def check_arrays(reply: Message, sent: ArrayRecord | None) -> None:
    """Check a site's update against the arrays that were sent.

    Raises:
        LeftOut: when names, shapes or types differ, a value is not finite, or the weight is not a count.
    """
    weight = read_numbers(reply).get(protocol.WEIGHT)
    if not isinstance(weight, (int, float)) or not math.isfinite(weight) or weight < 0:
        raise LeftOut("the update has no valid weight")
    if sent is None or list(reply.content.array_records) != [protocol.ARRAYS]:
        raise LeftOut("the update does not have the agreed records")
    arrays = reply.content.array_records[protocol.ARRAYS]
    if {name: (array.shape, array.dtype) for name, array in arrays.items()} != {
        name: (array.shape, array.dtype) for name, array in sent.items()
    }:
        raise LeftOut("the update has other arrays than were sent")
    if not all(np.isfinite(array.numpy()).all() for array in arrays.values()):
        raise LeftOut("the update holds a value that is not finite")
