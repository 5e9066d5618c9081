"""The network's weights in a message: read, and replaced by others."""

from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from numpy.typing import NDArray

from stsmm_core import protocol
from stsmm_core.protocol.weights import pack_weights, unpack_weights


def weights_in(message: Message) -> dict[str, NDArray[np.float32]]:
    """What the message carries, by name."""
    return unpack_weights(message.content.array_records[protocol.ARRAYS][protocol.WEIGHTS].numpy())


def with_weights(message: Message, weights: Mapping[str, NDArray[np.float32]]) -> Message:
    """The message with these in place of its own."""
    message.content[protocol.ARRAYS] = ArrayRecord({protocol.WEIGHTS: Array(pack_weights(weights))})
    return message
