"""The audit log of a run: what the server decided about a site's reply, and why. Lines are only ever added."""

from dataclasses import dataclass
from pathlib import Path

from stsmm_core.audit.chain import append
from stsmm_core.printable import printable


@dataclass(frozen=True)
class AuditLog:
    """A chained log, a line a decision: time, fold, round, site, stage, decision, reason.

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
        append(
            self.path,
            {
                "fold": self.fold,
                "round": round_number,
                "site": site,
                "stage": stage,
                "decision": decision,
                "reason": printable(reason),  # it may quote the site, and goes into tables and the report
            },
        )
