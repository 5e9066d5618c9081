"""A network's weights as they cross the wire: in one piece, for Flower fetches each array by a request of its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from stsmm_core.protocol.keys import ProtocolError

LONGEST_HEAD = 1_000_000
"""Bytes of names, types and shapes; DenseNet-121 has 0.1 MB, and each takes a hundred times its length in memory."""
_LENGTH_BYTES = 8


def pack_weights(weights: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """All arrays with their names, types and shapes in the safetensors format, shape (bytes,)."""
    return np.frombuffer(save({name: np.asarray(value, order="C") for name, value in weights.items()}), dtype=np.uint8)


def unpack_weights(packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Inverse of `pack_weights`, in the order of the names; the arrays may be written to.

    Raises:
        ProtocolError: when the bytes are no such arrays.
    """
    content = packed.tobytes()
    if int.from_bytes(content[:_LENGTH_BYTES], "little") > LONGEST_HEAD:
        raise ProtocolError("the weights cannot be read")
    try:
        return {name: value.copy() for name, value in sorted(load(content).items())}
    except (SafetensorError, KeyError, TypeError, ValueError):  # a type that numpy does not know is a KeyError
        raise ProtocolError("the weights cannot be read") from None
