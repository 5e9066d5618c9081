"""The parts in which a message crosses the wire: how much may come before it is put together."""

import json
from collections.abc import Callable

from stsmm_core.protocol.keys import ProtocolError

LARGEST_MESSAGE = 500_000_000
"""Bytes; DenseNet-121's weights are 45 MB."""
_HEAD_END = b"\0"


def bounded(pull: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """Fetches the parts of one message as `pull` does, as long as the message is not larger than any should be.

    Whoever sends it may claim what he likes: an array that lists a part a thousand times needs a thousand times the
    memory when it is put together.

    Raises:
        ProtocolError: from the function that is returned, for a part too many or such an array.
    """
    received = 0

    def pull_part(name: str) -> bytes:
        nonlocal received
        content = pull(name)
        received += len(content)
        if received > LARGEST_MESSAGE:
            raise ProtocolError(f"a message of more than {LARGEST_MESSAGE} bytes")
        check_part(content)
        return content

    return pull_part


def check_part(content: bytes) -> None:
    """Refuse an array that is longer than the parts it consists of.

    Args:
        content: of one part, as Flower writes it.

    Raises:
        ProtocolError: for an array that names a part more than once.
    """
    head, _, body = content.partition(_HEAD_END)
    if head.startswith(b"Array "):
        try:
            named = json.loads(body)["arraychunk_ids"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ProtocolError("an array that cannot be read") from None
        if named != list(range(len(named))):
            raise ProtocolError("an array that names its parts more than once, or out of order")
