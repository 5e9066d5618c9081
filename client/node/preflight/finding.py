"""What a check found, in words that can be shown to anybody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

State = Literal["ok", "warning", "fault", "skipped"]

Check = Literal[
    "kit",
    "kit unchanged",
    "permissions",
    "node key",
    "settings",
    "approved code",
    "this node",
    "proxy",
    "name",
    "port",
    "certificate",
    "clock",
    "registration",
    "version",
    "control",
    "health",
    "device",
    "cohort",
    "disk",
    "memory",
]
CHECKS: tuple[Check, ...] = get_args(Check)


@dataclass(frozen=True)
class Finding:
    """The answer of one check.

    Attributes:
        what: a fixed sentence; `{name}` in it stands for one of `numbers`. A bundle shows this and `remedy`.
        remedy: what to do, a fixed sentence; empty where there is nothing to do.
        numbers: days, bytes, counts.
        detail: names, addresses and paths of this machine. Shown here, never in a bundle.
    """

    check: Check
    state: State
    what: str
    remedy: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""

    def sentence(self) -> str:
        """`what` with its numbers."""
        return self.what.format(**self.numbers)


def skipped(check: Check, needed: Sequence[Check]) -> Finding:
    """A check that could not be made because others failed."""
    return Finding(check, "skipped", f"Not checked: it depends on {', '.join(needed)}.")
