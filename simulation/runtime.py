"""Flower's own simulation runtime, started for one run and ended with it."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import tomli_w

from simulation.guard import TOKEN_VARIABLE
from stsmm_core import protocol
from stsmm_core.checkout import app_folder
from stsmm_core.errors import RunError

START_S = 60.0
CONNECTION = "simulation"
LOG_FILE = "flower.log"


@dataclass(frozen=True)
class Runtime:
    """A running SuperLink."""

    home: Path
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]
    log: Path

    def is_running(self) -> bool:
        """Whether the SuperLink is alive."""
        return self.process.poll() is None

    def submit(self, run_config: Mapping[str, str | int]) -> None:
        """Start the app of this checkout with a run configuration.

        Raises:
            RunError: when Flower does not accept it.
        """
        config = self.home / "run.toml"
        config.write_text(tomli_w.dumps(run_config), encoding="utf-8")
        command = ["flwr", "run", str(app_folder("a simulation")), CONNECTION, "--run-config", str(config)]
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if result.returncode != 0:
            raise RunError(f"Flower did not accept the run: {(result.stdout + result.stderr).strip()}")


@contextmanager
def flower_runtime(run: Path, *, sites: Path, nodes: int, parallel: int, gpu: bool) -> Iterator[Runtime]:
    """Start a SuperLink with a simulation of `nodes` sites; when the block ends, so does every process of it.

    `parallel` sites work at a time, and share one GPU where the experiment trains on one.

    Everything Flower writes goes below the run folder. Runtime installation of dependencies is off: the app runs in
    the environment it was started from.

    Raises:
        RunError: when the SuperLink does not come up.
    """
    home = (run / "flower").resolve()
    home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    share = {"num-cpus": 1, "num-gpus": 1 / parallel} if gpu else {"num-cpus": 1}
    backend = {"init-args": {"num-cpus": parallel}, "client-resources": share}
    connection = {
        "address": f"127.0.0.1:{port}",
        "insecure": True,
        "options": {"num-supernodes": nodes, "backend": backend},
    }
    superlinks = {"superlink": {"default": CONNECTION, CONNECTION: connection}}
    (home / "config.toml").write_text(tomli_w.dumps(superlinks), encoding="utf-8")
    programs = str(Path(sys.executable).parent)  # Flower starts its own programs by name
    environment = os.environ | {
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
        TOKEN_VARIABLE: secrets.token_hex(16),
        protocol.SITES_VARIABLE: str(sites.resolve()),
        protocol.RUN_VARIABLE: str(run.resolve()),
    }
    command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--disable-runtime-dependency-installation"]
    log_file = run / LOG_FILE
    with log_file.open("ab") as log, _guarded(command, environment, log) as process:
        _wait_until_listening(port, process, log_file)
        yield Runtime(home, process, environment, log_file)


@contextmanager
def _guarded(command: list[str], environment: Mapping[str, str], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    guard = [sys.executable, "-m", "simulation.guard", *command]
    process = subprocess.Popen(
        guard, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def _wait_until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise RunError(f"Flower's SuperLink did not start within {START_S:.0f} s; see {log}")
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise RunError(f"Flower's SuperLink ended at its start; see {log}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
