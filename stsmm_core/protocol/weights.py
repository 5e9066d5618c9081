"""A network's weights as they cross the wire: in one piece, for Flower fetches each array by a request of its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from stsmm_core.protocol.keys import ProtocolError


def pack_weights(weights: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """All arrays with their names, types and shapes in the safetensors format, shape (bytes,)."""
    return np.frombuffer(save({name: np.asarray(value, order="C") for name, value in weights.items()}), dtype=np.uint8)


def unpack_weights(packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Inverse of `pack_weights`, in the order of the names; the arrays may be written to.

    Raises:
        ProtocolError: when the bytes are no such arrays.
    """
    try:
        return {name: value.copy() for name, value in sorted(load(packed.tobytes()).items())}
    except (SafetensorError, KeyError, TypeError, ValueError):  # a type that numpy does not know is a KeyError
        raise ProtocolError("the weights cannot be read") from None
