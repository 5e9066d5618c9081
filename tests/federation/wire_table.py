"""The tables of docs/wire.md, to compare with what messages carry."""

import re
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message

from stsmm_core.cohort.dictionary import ENDPOINTS, VARIABLES

WIRE = Path(__file__).parents[2] / "docs" / "wire.md"
SECTIONS = {"## Server to site": "to site", "## Site to server": "to server"}
PLACEHOLDERS = {
    "VARIABLE": "|".join(VARIABLES),
    "ENDPOINT": "|".join(ENDPOINTS),
    "HEAD": "[a-z]+",
    "FOLD": r"\d+",
    "NUMBER": r"\d+",
}
Field = tuple[str, str, str]
"""Direction, message type, name."""


@dataclass(frozen=True)
class Listed:
    """One name of a row; capitals stand for what differs from run to run."""

    direction: str
    message: str
    name: str

    def covers(self, field: Field) -> bool:
        """Whether the row speaks of a field."""
        direction, kind, name = field
        everywhere = self.message in ("all", "any") or (self.message == "all evaluate" and kind.startswith("evaluate"))
        return (
            direction == self.direction
            and (everywhere or kind == self.message)
            and re.fullmatch(self._pattern(), name) is not None
        )

    def _pattern(self) -> str:
        pattern = re.escape(self.name)
        for word, choices in PLACEHOLDERS.items():
            pattern = pattern.replace(word, f"(?:{choices})")
        return pattern


def listed_fields() -> list[Listed]:
    """What docs/wire.md lists."""
    fields: list[Listed] = []
    direction = ""
    for line in WIRE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            direction = SECTIONS.get(line, "")
        if direction and line.startswith("| ") and not line.startswith(("| message", "| ---")):
            messages, names = line.split("|")[1:3]
            fields += [
                Listed(direction, message.strip(), name)
                for message in messages.split(",")
                for name in re.findall(r"`([^`]+)`", names)
            ]
    return fields


def fields_of(message: Message, *, direction: str, kind: str) -> set[Field]:
    """Names of everything a message carries; arrays count as one field a record."""
    content = message.content
    fields = {(direction, kind, name) for name in content.array_records}
    records = [*content.config_records.values(), *content.metric_records.values()]
    return fields | {(direction, kind, name) for record in records for name in record}
