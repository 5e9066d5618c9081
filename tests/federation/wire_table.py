"""The tables of docs/wire.md as sets of (direction, message, field)."""

import re
from pathlib import Path

from flwr.app import Message

from stsmm_core.cohort.dictionary import VARIABLES

WIRE = Path(__file__).parents[2] / "docs" / "wire.md"
SECTIONS = {"## Server to site": "to site", "## Site to server": "to server"}
Field = tuple[str, str, str]


def listed_fields() -> set[Field]:
    """What docs/wire.md lists; VARIABLE stands for each variable of the data dictionary."""
    fields: set[Field] = set()
    direction = ""
    for line in WIRE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            direction = SECTIONS.get(line, "")
        if direction and line.startswith("| ") and not line.startswith(("| message", "| ---")):
            messages, names = line.split("|")[1:3]
            for message in messages.split(","):
                for name in re.findall(r"`([^`]+)`", names):
                    fields |= {(direction, message.strip(), each) for each in _spelled_out(name)}
    return fields


def fields_of(message: Message, *, direction: str, kind: str) -> set[Field]:
    """Names of everything a message carries; arrays count as one field a record."""
    content = message.content
    fields = {(direction, kind, name) for name in content.array_records}
    records = [*content.config_records.values(), *content.metric_records.values()]
    return fields | {(direction, kind, name) for record in records for name in record}


def _spelled_out(name: str) -> list[str]:
    return [name.replace("VARIABLE", key) for key in VARIABLES] if "VARIABLE" in name else [name]
