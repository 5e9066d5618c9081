"""What the server tells a site before it joins: the state of its key, and the server's versions.

Two GET requests beside Flower's API, on the same port. The first is signed as Flower signs a node's requests, so that
only the holder of a key learns its state.
"""

from typing import Literal, get_args

NODE_PATH = "/stsmm/v1/node"
"""Signed. Answers `{"state": NodeState}`, or 401 as Flower does."""
VERSION_PATH = "/stsmm/v1/version"
"""Answers `{"stsmm": version, "flwr": version}`."""

NodeState = Literal["unknown", "registered", "online", "offline", "revoked"]
"""unknown: the server has never seen the key; registered: it has not connected yet; offline: it has, and is not now."""
NODE_STATES: tuple[NodeState, ...] = get_args(NodeState)
