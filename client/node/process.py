"""The node's process: Flower's own node with the gate around its connection. Run by `client.node.node`."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import flwr
from flwr.supernode import start_client_internal as flower_node

from client.node.gate import Connection, Gate
from client.node.settings import PROXIES, STOP_FILE, read_settings, state_folder, write_site_file
from stsmm_core.errors import RunError
from stsmm_core.kit import CA_FILE, NODE_KEY_FILE, REVIEWERS_FILE, SiteKit, read_kit

FLOWER = "1.41.0"
"""The gate stands at a place inside Flower that other versions may not have."""
LOG_FILE = "node.log"


def main(arguments: list[str]) -> None:
    """Run the node until it is ended.

    Raises:
        StsmmError: when it cannot start.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("kit", type=Path)
    parser.add_argument("port", type=int)
    given = parser.parse_args(arguments)
    kit = given.kit.resolve()
    check_flower()
    settings = read_settings(kit)
    site_file = write_site_file(kit, settings)
    _log_to(state_folder(kit) / LOG_FILE, kit)
    gate = Gate(kit, settings, stop_asked=lambda: _end_if_asked(kit))
    flower_node._init_connection = _gated(flower_node._init_connection, gate, _taken_proxies())
    from flwr.supernode.cli import flower_supernode  # after the handlers: it logs as it starts

    options = [
        "flower-supernode",
        *("--superlink", str(read_kit(kit, SiteKit).server), "--root-certificates", str(kit / CA_FILE)),
        *("--auth-supernode-private-key", str(kit / NODE_KEY_FILE), "--node-config", f'site-file="{site_file}"'),
        *("--host", "127.0.0.1", "--port", str(given.port)),
    ]
    if settings.policy.required_signatures:
        options += ["--trusted-entities", str(kit / REVIEWERS_FILE)]
    sys.argv = options
    flower_supernode()


def check_flower() -> None:
    """Make sure that Flower is the version that the gate is made for.

    Raises:
        RunError: with the version to install.
    """
    if flwr.__version__ != FLOWER:
        raise RunError(
            f"Flower {flwr.__version__} is installed; this version needs {FLOWER}: pip install flwr=={FLOWER}"
        )


def _gated(connect: Any, gate: Gate, proxies: dict[str, str]) -> Any:
    @contextmanager
    def connection(*positional: Any, **named: Any) -> Iterator[Connection]:
        # The app's process has been started by now, without the proxies and what passwords they may hold.
        os.environ.update(proxies)
        with connect(*positional, **named) as opened:
            gated = gate(opened)
            gate.give_up_lost()
            yield gated

    return connection


def _taken_proxies() -> dict[str, str]:
    return {name: os.environ.pop(name) for name in list(os.environ) if name.lower() in PROXIES}


def _end_if_asked(kit: Path) -> None:
    if (state_folder(kit) / STOP_FILE).exists():
        signal.raise_signal(signal.SIGTERM)


class _ClearWarnings(logging.Filter):
    """Flower says neither what it cannot reach nor what to do."""

    def __init__(self, server: str, kit: Path) -> None:
        super().__init__()
        self._server, self._kit = server, kit

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith("Connection attempt failed, retrying"):
            record.msg = (
                f"No connection to {self._server}; it is tried again in %.0f seconds. "
                f"What is wrong: stsmm site check {self._kit}"
            )
        return True


def _log_to(path: Path, kit: Path) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    handler = RotatingFileHandler(path, maxBytes=5_000_000, backupCount=4, encoding="utf-8")
    handler.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.raiseExceptions = False  # a line that a full disk does not take is on the console, without a traceback
    logger = logging.getLogger("flwr")
    logger.addHandler(handler)
    logger.addFilter(_ClearWarnings(str(read_kit(kit, SiteKit).server), kit))
