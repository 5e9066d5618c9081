"""All checks in order: what depends on a failed one is skipped, and none takes longer than its time."""

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from client.node.node import is_running
from client.node.preflight.answers import check_control, check_health, check_registration, check_version
from client.node.preflight.encryption import check_certificate, check_clock, kit_context
from client.node.preflight.finding import Check, Finding, skipped
from client.node.preflight.folder import (
    check_kit_file,
    check_node_key,
    check_permissions,
    check_running,
    check_unchanged,
    load_node_key,
)
from client.node.preflight.machine import check_cohort, check_device, check_disk, check_memory
from client.node.preflight.policy import check_approved, check_settings
from client.node.preflight.route import check_name, check_port, check_proxy, find_proxy
from client.node.settings import cohort_folder, read_settings
from stsmm_core.config import Experiment
from stsmm_core.errors import ConfigError
from stsmm_core.kit import CA_FILE, SiteKit, read_kit

LIMIT_SECONDS = 10.0
"""What a check may take."""

NEEDS: Mapping[Check, Sequence[Check]] = {
    "kit unchanged": ("kit",),
    "permissions": ("kit",),
    "node key": ("kit", "permissions"),
    "settings": ("kit",),
    "disk": ("kit",),
    "approved code": ("permissions", "settings"),
    "this node": ("permissions",),
    "proxy": ("kit",),
    "name": ("proxy",),
    "port": ("name",),
    "certificate": ("port",),
    "clock": ("port",),
    "registration": ("node key", "this node", "certificate", "clock"),
    "version": ("certificate",),
    "control": ("certificate",),
    "health": ("kit",),
    "device": ("settings",),
    "cohort": ("settings",),
    "memory": ("device", "cohort"),
}
"""What a check says nothing without; one that is not named here needs no other."""


def run_checks(
    folder: Path, experiment: Experiment | None = None, begin: Callable[[Check], object] = str
) -> list[Finding]:
    """Check a site's kit, machine and way to the server.

    Args:
        experiment: whose needs are estimated; without it memory is not checked, and disk only for the least.
        begin: called with the name of each check before it is made.
    """
    found: dict[Check, Finding] = {}
    for check, make in _checks(folder, experiment).items():
        begin(check)
        failed = [need for need in NEEDS.get(check, ()) if found[need].state in ("fault", "skipped")]
        found[check] = skipped(check, failed) if failed else _limited(check, make)
    return list(found.values())


def _checks(folder: Path, experiment: Experiment | None) -> dict[Check, Callable[[], Finding]]:
    """The checks in their order, each a call that is made once what it needs is in order."""

    def kit() -> SiteKit:
        return read_kit(folder, SiteKit)

    def cohort() -> Path:
        return cohort_folder(folder, read_settings(folder))

    def planned_cohort() -> Path | None:
        try:
            return cohort() if experiment is not None else None
        except ConfigError:  # has its own finding
            return None

    ca = folder / CA_FILE
    checks: dict[Check, Callable[[], Finding]] = {
        "kit": lambda: check_kit_file(folder),
        "kit unchanged": lambda: check_unchanged(folder),
        "permissions": lambda: check_permissions(folder),
        "node key": lambda: check_node_key(folder),
        "settings": lambda: check_settings(folder),
        "approved code": lambda: check_approved(folder),
        "this node": lambda: check_running(running=is_running(folder)),
        "proxy": lambda: check_proxy(kit().server),
        "name": lambda: check_name(kit().server, find_proxy(kit().server)),
        "port": lambda: check_port(kit().server, find_proxy(kit().server)),
        "certificate": lambda: check_certificate(kit().server, find_proxy(kit().server), ca),
        "clock": lambda: check_clock(kit().server),
        "registration": lambda: check_registration(
            kit().server, kit_context(ca), load_node_key(folder), running=is_running(folder)
        ),
        "version": lambda: check_version(kit().server, kit_context(ca)),
        "control": lambda: check_control(kit().server, kit_context(ca)),
        "health": lambda: check_health(kit().server),
        "device": lambda: check_device(read_settings(folder).device),
        "cohort": lambda: check_cohort(cohort()),
        "disk": lambda: check_disk(folder, experiment, planned_cohort()),
    }
    if experiment is not None:
        checks["memory"] = lambda: check_memory(experiment, cohort(), read_settings(folder).device)
    return checks


def _limited(check: Check, make: Callable[[], Finding]) -> Finding:
    """The check's finding, or that it took too long or failed itself.

    It runs in a thread of its own: a name server that does not answer cannot be interrupted.
    """
    found: list[Finding] = []

    def run() -> None:
        try:
            found.append(make())
        except Exception as error:  # one check must not keep the others from being made
            found.append(
                Finding(
                    check,
                    "fault",
                    "The check itself failed.",
                    "Send a support bundle to the server's operator (--bundle).",
                    detail=f"{type(error).__name__}: {error}",
                )
            )

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT_SECONDS)
    if found:
        return found[0]
    if check == "cohort":
        return Finding(
            check,
            "warning",
            "Not all images were read within {limit} s; no fault is known so far.",
            "Run stsmm cohort check COHORT, which takes its time.",
            {"limit": LIMIT_SECONDS},
        )
    return Finding(
        check,
        "fault",
        "No result within {limit} s.",
        "Try again; if it stays so, look at the checks above first.",
        {"limit": LIMIT_SECONDS},
    )
