"""The audit log of a run: what the server decided about a site's reply, and why. Lines are only ever added."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class AuditLog:
    """A file of one JSON object a line: time, fold, round, site, stage, decision, reason.

    Attributes:
        fold: which model of a cross-validation is being trained.
    """

    path: Path
    fold: int = 0

    def left_out(self, site: str, stage: str, reason: str, round_number: int | None = None) -> None:
        """A reply did not take part."""
        self._add(site, stage, "left out", reason, round_number)

    def warned(self, site: str, stage: str, reason: str, round_number: int | None = None) -> None:
        """A reply took part, but somebody should look at it."""
        self._add(site, stage, "warning", reason, round_number)

    def _add(self, site: str, stage: str, decision: str, reason: str, round_number: int | None) -> None:
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "fold": self.fold,
            "round": round_number,
            "site": site,
            "stage": stage,
            "decision": decision,
            "reason": reason,
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
