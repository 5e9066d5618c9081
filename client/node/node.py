"""Starting and stopping a hospital's node: keeps its process running, and ends it when asked."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from filelock import FileLock, Timeout

import client
from client.node.ledger import IN_HAND, LOST, Ledger, LedgerError
from client.node.reviewers import read_reviewers
from client.node.settings import PROXIES, STOP_FILE, read_settings, state_folder, write_site_file
from stsmm_core.errors import ConfigError, RunError
from stsmm_core.kit import FLOWER_FOLDER, SiteKit, read_kit, verify_kit

LOCK_FILE = "node.lock"
SHORTEST_WAIT_S, LONGEST_WAIT_S = 5.0, 300.0
LONGEST_START_S = 300.0
"""A node without any contact after so long may hang, and not only wait for the network."""
PORTS = range(20_000, 32_000)
SETTLED_S = 600.0
"""After so long the next try comes at once again."""
SILENT_S = 60.0
"""Without contact for so long a node without a message in hand is not connected."""
_START = "import sys; sys.path.append(sys.argv.pop(1)); from client.node.node import run_process; run_process()"


def environment(kit: Path) -> dict[str, str]:
    """All that the node, and with it the app, gets of the environment."""
    kept = {"PATH", "HOME", "LANG", "CUDA_VISIBLE_DEVICES"}
    own = {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.startswith("LC_") or name.lower() in PROXIES
    }
    own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", os.defpath)])
    settings = read_settings(kit)
    return own | {
        "FLWR_HOME": str(state_folder(kit) / FLOWER_FOLDER),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "OMP_NUM_THREADS": str(settings.threads),
    }


def start(kit: Path) -> None:
    """Run the node until it is asked to end; a node that ends by itself is started again, later each time.

    Raises:
        StsmmError: when the kit or its settings are not in order, or a node of this kit runs already.
    """
    check_ready(kit)
    state = state_folder(kit)
    try:
        with FileLock(state / LOCK_FILE, timeout=0):
            (state / STOP_FILE).unlink(missing_ok=True)
            _keep_running(kit)
    except Timeout:
        raise _runs_already(kit) from None


def check_ready(kit: Path) -> None:
    """What can be known before the node starts.

    Raises:
        StsmmError: with what to do.
    """
    read_kit(kit, SiteKit)
    verify_kit(kit)
    if is_running(kit):
        raise _runs_already(kit)
    settings = read_settings(kit)
    write_site_file(kit, settings)
    required = settings.policy.required_signatures
    sites = {reviewer.site for reviewer in read_reviewers(kit).values()}
    if required > len(sites):
        raise ConfigError(
            f"required_signatures = {required}, but reviewers.yaml has keys of {len(sites)} sites, so that "
            f"no app could run; add keys with `stsmm site approve {kit} --key ID --of SITE FILE`"
        )


def stop(kit: Path, *, now: bool) -> bool:
    """Ask the node to end, after the message in hand or at once; false where none runs."""
    running = Ledger(kit).noted("node")
    if running is None or not is_running(kit):
        return False
    (state_folder(kit) / STOP_FILE).touch()
    if now:
        os.kill(int(running["pid"]), signal.SIGTERM)
    return True


def is_running(kit: Path) -> bool:
    """Whether a node of this kit runs."""
    try:
        with FileLock(state_folder(kit) / LOCK_FILE, timeout=0):
            return False
    except Timeout:
        return True


def run_process() -> None:
    """Entry of the node's process; its own software is that of the command that started it."""
    from client.node.process import main
    from stsmm_core.errors import StsmmError

    try:
        main(sys.argv[1:])
    except StsmmError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


def _runs_already(kit: Path) -> RunError:
    return RunError(f"{kit}: a node of this kit runs already; `stsmm site status {kit}` says since when")


def _keep_running(kit: Path) -> None:
    ended = False

    def end(_signal: int, _frame: FrameType | None) -> None:
        nonlocal ended
        ended = True

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, end)
    ledger, state, wait = Ledger(kit), state_folder(kit), SHORTEST_WAIT_S
    while not ended and not (state / STOP_FILE).exists():
        began = time.time()
        _give_up(ledger)
        _note(ledger, "contact", None)
        command = [sys.executable, "-P", "-c", _START, str(Path(client.__file__).parents[1]), str(kit.resolve())]
        process = subprocess.Popen(
            [*command, str(_free_port())], env=environment(kit), cwd=state, start_new_session=True
        )
        _note(ledger, "node", {"pid": os.getpid(), "process": process.pid})
        while process.poll() is None:
            if ended or ((state / STOP_FILE).exists() and _is_idle(ledger)):
                process.terminate()
                process.wait()
                break
            contact = ledger.noted("contact")
            if contact is None and time.time() - began > LONGEST_START_S:
                print("The node does not come up; it is started again.", file=sys.stderr, flush=True)
                process.kill()
            if contact is not None and not _can_work(process.pid):
                print("The part of the node that starts apps has ended (out of memory?).", file=sys.stderr, flush=True)
                process.kill()
            time.sleep(0.5)
        if ended or (state / STOP_FILE).exists():
            break
        wait = SHORTEST_WAIT_S if time.time() - began > SETTLED_S else wait
        print(
            f"The node ended by itself. What is wrong: stsmm site check {kit} (is the key "
            f"registered, not revoked, and used by this node alone? is the clock right?). Next start in {wait:.0f} s.",
            file=sys.stderr,
            flush=True,
        )
        until = time.time() + wait
        while time.time() < until and not ended and not (state / STOP_FILE).exists():
            time.sleep(0.5)
        wait = min(2 * wait, LONGEST_WAIT_S)
    _note(ledger, "node", None)
    (state / STOP_FILE).unlink(missing_ok=True)


def _note(ledger: Ledger, key: str, value: Mapping[str, Any] | None) -> None:
    """A full disk must not end the one process that keeps the node running."""
    try:
        ledger.note(key, value)
    except LedgerError as error:
        print(f"Warning: {error}", file=sys.stderr, flush=True)


def _give_up(ledger: Ledger) -> None:
    """The message that the last process had in hand is lost: the next one's gate says so to the server."""
    try:
        if (lost := ledger.noted(IN_HAND)) is not None:
            ledger.note(LOST, lost)
            ledger.note(IN_HAND, None)
    except LedgerError as error:
        print(f"Warning: {error}", file=sys.stderr, flush=True)


def _is_idle(ledger: Ledger) -> bool:
    """Whether the node does not come to look at the stop file: it has no connection, or its disk is full."""
    try:
        return ledger.noted(IN_HAND) is None and not is_connected(ledger)
    except LedgerError:
        return True


def is_connected(ledger: Ledger) -> bool:
    """Whether the node heard of the server a short while ago, or works on a message."""
    from datetime import UTC, datetime

    if ledger.noted(IN_HAND) is not None:
        return True
    contact = ledger.noted("contact")
    return contact is not None and (
        (datetime.now(UTC) - datetime.fromisoformat(contact["at"])).total_seconds() < SILENT_S
    )


def _can_work(pid: int) -> bool:
    """Whether the node still has the process that starts apps: without it a message would wait for ever."""
    try:
        return any("flower-superexec" in " ".join(child.cmdline()) for child in psutil.Process(pid).children())
    except psutil.Error:
        return True  # it has just ended; the next look tells


def _free_port() -> int:
    """A port for the node and its app: below those that systems give to outgoing connections, which take them any time.

    Raises:
        RunError: when none is found.
    """
    for port in random.SystemRandom().sample(PORTS, 100):
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise RunError(f"no free port between {PORTS.start} and {PORTS.stop} on this machine; what holds them?")
