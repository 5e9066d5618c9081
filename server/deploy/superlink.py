"""`stsmm server start`: the server of a consortium, in the foreground as systemd wants it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from server.deploy.control import end_runs, is_up, node_keys, register_nodes
from server.deploy.folder import ServerFolder
from server.deploy.processes import end_processes
from server.deploy.run_state import submitted_runs
from server.registered import NODES_VARIABLE
from stsmm_core import protocol
from stsmm_core.certificates import is_valid
from stsmm_core.errors import RunError
from stsmm_core.kit import CA_FILE, FLOWER_FOLDER, SERVER_CERTIFICATE_FILE, expiry_warnings, verify_kit

START_S = 60.0
GRACE_S = 10.0
_INHERITED = (
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)


def start_server(console: Console, kit: Path) -> None:
    """Run the server until SIGTERM or SIGINT; when this returns, every process of it has ended.

    Raises:
        StsmmError: when the kit is not as it was made, a server of it runs already, or Flower does not come up.
    """
    folder = ServerFolder(kit.resolve())
    folder.settings()
    verify_kit(folder.kit)
    node_keys(folder.kit)
    warnings = expiry_warnings(folder.kit, datetime.now(UTC))
    if not all(is_valid(folder.kit / name, datetime.now(UTC)) for name in (CA_FILE, SERVER_CERTIFICATE_FILE)):
        raise RunError("; ".join(warnings))
    for warning in warnings:
        console.print(f"Warning: {warning}", style="bold yellow", soft_wrap=True, highlight=False, markup=False)
    for path in (folder.state, folder.runs, folder.apps):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(folder.lock, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(
            f"a server of {kit} is running already; stop that one first, `stsmm server status {kit}` tells of it"
        ) from None
    try:
        end_processes(folder, grace_s=GRACE_S)  # what a killed server left
        _serve(console, folder)
    finally:
        lock.release()


def _serve(console: Console, folder: ServerFolder) -> None:
    address = folder.settings().server
    for port in (address.port, address.health_port):
        _refuse_if_taken(port)
    told = threading.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: told.set())
    left = submitted_runs(folder)
    with folder.output.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.deploy.superlink_process", str(folder.kit), str(os.getpid())],
            env=server_environment(folder, os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_up(folder, process, told)
        if not told.is_set():
            # Flower takes the runs of a killed server for going on until they have been silent for a while.
            for number in end_runs(folder.kit, left):
                folder.note("run of an ended server ended", flower_run=number)
            nodes = register_nodes(folder.kit)
            folder.note("server started", port=address.port, sites=sorted(nodes))
            console.print(f"Server of {folder.settings().consortium} is up on port {address.port}.", highlight=False)
            may_connect = ", ".join(sorted(nodes)) or "none yet; add-key lets one in"
            console.print(f"Sites that may connect: {may_connect}", soft_wrap=True, markup=False)
        while not told.wait(0.5):
            if process.poll() is not None:
                folder.note("server ended by itself", code=process.returncode)
                raise RunError(f"Flower's SuperLink ended; {folder.output} and {folder.superlink_log} say why")
    finally:
        end_processes(folder, grace_s=GRACE_S)
        process.wait()
    folder.note("server stopped")
    console.print("Server stopped; runs go on with `stsmm server resume` when it is up again.")


def server_environment(folder: ServerFolder, outer: Mapping[str, str]) -> dict[str, str]:
    """What the server's processes are given of the environment, and what tells them where the kit is.

    No proxy: they talk to nobody but themselves on this machine.
    """
    programs = str(Path(sys.executable).parent)  # Flower starts its own programs by name
    return {name: outer[name] for name in _INHERITED if name in outer} | {
        "PATH": os.pathsep.join([programs, outer.get("PATH", os.defpath)]),
        "FLWR_HOME": str(folder.state / FLOWER_FOLDER),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FORWARDED_ALLOW_IPS": "",  # nobody may say for whom it asks
        "PYTHONUNBUFFERED": "1",
        protocol.RUN_VARIABLE: str(folder.runs),
        NODES_VARIABLE: str(folder.nodes),
    }


def _refuse_if_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as error:
            raise RunError(f"port {port} cannot be used ({error.strerror}); which program holds it?") from None


def _wait_until_up(folder: ServerFolder, process: subprocess.Popen[bytes], told: threading.Event) -> None:
    deadline = time.monotonic() + START_S
    while not told.is_set() and not is_up(folder.kit):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RunError(f"Flower's SuperLink did not start; {folder.output} says why")
        told.wait(0.3)
