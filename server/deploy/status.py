"""`stsmm server status`: the server, its sites and its runs at a glance."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from server.deploy.control import ServerUnreachableError, list_nodes, list_runs, registered
from server.deploy.folder import ServerFolder
from server.deploy.run_state import last_refusals, read_progress, run_state
from stsmm_core.kit import NODES_FOLDER, REVOKED_FOLDER, expiry_warnings
from stsmm_core.run_folder import CONFIG_FILE

WATCH_S = 2.0


def read_status(kit: Path) -> dict[str, Any]:
    """All that is known, as plain values for scripts.

    Raises:
        KitError: when the folder is no server kit.
    """
    folder = ServerFolder(kit)
    settings = folder.settings()
    try:
        nodes, runs = {node.id: node for node in list_nodes(kit)}, list_runs(kit)
        up = True
    except ServerUnreachableError:
        nodes, runs, up = {}, None, False
    sites = {}
    for name, number in sorted(registered(folder).items()):
        node = nodes.get(number)
        sites[name] = (
            {"state": "unknown", "since": ""} if node is None else {"state": _state(node.status), "since": node.since}
        )
    for path in sorted((kit / REVOKED_FOLDER).glob("*.pub")):
        sites.setdefault(path.stem.rsplit(".", 1)[0], {"state": "revoked", "since": ""})
    for path in sorted((kit / NODES_FOLDER).glob("*.pub")):
        sites.setdefault(path.stem, {"state": "not connected yet", "since": ""})
    return {
        "consortium": settings.consortium,
        "up": up,
        "port": settings.server.port,
        "certificates": expiry_warnings(kit, datetime.now(UTC)),
        "sites": sites,
        "runs": {
            run.name: _describe_run(run, runs)
            for run in sorted(path.parent for path in folder.runs.glob(f"*/{CONFIG_FILE}"))
        },
    }


def show_status(status: dict[str, Any]) -> Group:
    """The same as tables."""
    head = f"{status['consortium']}: server {'up on port ' + str(status['port']) if status['up'] else 'not running'}"
    sites = Table("site", "state", "since", title="Sites", title_justify="left")
    for name, site in status["sites"].items():
        sites.add_row(Text(name), site["state"], site["since"][:19])
    runs = Table("run", "state", "model", "round", "last refusal of a site", title="Runs", title_justify="left")
    for name, run in status["runs"].items():
        refusals = [f"{site}: {reason}" for site, reason in run["refusals"].items()]
        told = "\n".join([*([run["reason"]] if run["reason"] else []), *refusals])
        model = "" if run["fold"] is None else str(run["fold"] + 1)
        runs.add_row(Text(name), run["state"], model, "" if run["round"] is None else str(run["round"]), Text(told))
    return Group(Text(head), *(Text(warning, style="bold yellow") for warning in status["certificates"]), sites, runs)


def _state(status: str) -> str:
    return {"registered": "not connected yet", "unregistered": "revoked"}.get(status, status)


def _describe_run(run: Path, known: Any) -> dict[str, Any]:
    state, reason = run_state(run, known)
    progress = read_progress(run) or {"fold": None, "round": None}
    return {
        "state": state,
        "reason": reason,
        "fold": progress["fold"],
        "round": progress["round"],
        "refusals": last_refusals(run),
    }
