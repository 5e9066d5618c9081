"""Which node belongs to which site: known where nodes prove who they are, which simulations do not need."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

NODES_VARIABLE = "STSMM_NODES"
"""Environment variable of a real server: the file with the node id of each site."""


def registered_sites() -> Mapping[int, str] | None:
    """The site of each node that may connect, or None where nodes have no keys."""
    file = os.environ.get(NODES_VARIABLE)
    if file is None:
        return None
    nodes = json.loads(Path(file).read_text(encoding="utf-8"))
    return {int(node): site for site, node in nodes.items()}
