"""What the server left out of a run, for the reader of its results: from the audit log."""

import json
from collections import Counter, defaultdict
from pathlib import Path

from pydantic import ValidationError

from stsmm_core.audit.chain import CHAIN
from stsmm_core.report.run_files import Record, broken, read_text
from stsmm_core.run_folder import AUDIT_FILE


class AuditEntry(Record):
    """One line of the audit log."""

    fold: int
    round: int | None
    site: str
    stage: str
    decision: str
    reason: str


def read_audit(run: Path) -> tuple[AuditEntry, ...]:
    """The decisions in a run's audit log; none where nothing was left out.

    Lines that the chain itself added are none.

    Raises:
        RunError: naming the line that is broken.
    """
    path = run / AUDIT_FILE
    if not path.exists():
        return ()
    entries = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            entry = json.loads(line)
            if CHAIN not in entry:
                entries.append(AuditEntry.model_validate(entry))
        except (json.JSONDecodeError, ValidationError):
            raise broken(path, f"line {number} is no entry of an audit log") from None
    return tuple(entries)


def left_out_sentences(entries: tuple[AuditEntry, ...]) -> tuple[str, ...]:
    """A sentence a site and stage whose replies were left out: how often, and the reason that came most often.

    A round that a resumed run did again counts once.
    """
    moments: dict[tuple[str, str], set[tuple[int, int | None]]] = defaultdict(set)
    reasons: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for entry in entries:
        if entry.decision == "left out":
            moments[entry.site, entry.stage].add((entry.fold, entry.round))
            reasons[entry.site, entry.stage][entry.reason] += 1
    return tuple(
        f"Left out: {len(moments[key])} {'reply' if len(moments[key]) == 1 else 'replies'} of {key[0]} to {key[1]} "
        f"({reasons[key].most_common(1)[0][0]}). {AUDIT_FILE} has each."
        for key in sorted(moments)
    )
