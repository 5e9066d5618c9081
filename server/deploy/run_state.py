"""What became of a run, from its folder and from what Flower knows."""

import json
from pathlib import Path
from typing import Any

from server.deploy.control import FlowerRun
from server.deploy.folder import ServerFolder
from stsmm_core.errors import RunError
from stsmm_core.report.audit import read_audit
from stsmm_core.run_folder import AUDIT_FILE, FAILURE_FILE, INPUTS_FILE, METRICS_FILE, PROGRESS_FILE

SUBMISSION_FILE = "submission.json"
"""In a run folder: Flower's number of the run, how many sites it waits for, and whether somebody stopped it."""
FINISHED, FAILED, STOPPED, INTERRUPTED, RUNNING = "finished", "failed", "stopped", "interrupted", "running"


def run_state(run: Path, known: list[FlowerRun] | None) -> tuple[str, str]:
    """What became of a run, and why.

    Args:
        known: Flower's runs; None where the server does not run.
    """
    if (run / METRICS_FILE).exists():
        return FINISHED, ""
    submitted = read_submission(run)
    flower = next((each for each in known or [] if each.id == submitted["flower_run"]), None)
    if submitted.get("stopped"):
        return STOPPED, "somebody stopped it"
    if (run / FAILURE_FILE).exists():
        return FAILED, (run / FAILURE_FILE).read_text(encoding="utf-8")
    if flower is not None and flower.status != "finished":
        return RUNNING, ""
    return INTERRUPTED, "the server does not run" if known is None else "the server or the run's process was ended"


def read_progress(run: Path) -> dict[str, Any] | None:
    """Fold, round and best loss so far."""
    path = run / PROGRESS_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def last_refusals(run: Path) -> dict[str, str]:
    """The newest reason a site for which its reply was left out."""
    entries = read_audit(run) if (run / AUDIT_FILE).exists() else ()
    return {entry.site: entry.reason for entry in entries if entry.decision == "left out"}


def read_submission(run: Path) -> dict[str, int]:
    """What the server was asked for a run; one that ended before it was asked waits for all its sites.

    Raises:
        RunError: when the folder is no run of a server.
    """
    try:
        if not (run / SUBMISSION_FILE).exists():
            return {"flower_run": 0, "sites": len(json.loads((run / INPUTS_FILE).read_text(encoding="utf-8"))["sites"])}
        content: dict[str, int] = json.loads((run / SUBMISSION_FILE).read_text(encoding="utf-8"))
        return content
    except (OSError, ValueError, KeyError):
        raise RunError(f"{run} is not a run of this server") from None


def submitted_runs(folder: ServerFolder) -> set[int]:
    """Flower's numbers of all runs of a server."""
    return {read_submission(path.parent)["flower_run"] for path in folder.runs.glob(f"*/{SUBMISSION_FILE}")}
