"""Where a server kit keeps what a running server writes, and its log of events."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stsmm_core.audit.chain import append
from stsmm_core.kit import APPS_FOLDER, AUDIT_LOG_FILE, RUNS_FOLDER, STATE_FOLDER, ServerKit, read_kit


@dataclass(frozen=True)
class ServerFolder:
    """A server kit and its files."""

    kit: Path

    @property
    def state(self) -> Path:
        """All that a server writes, except runs and apps."""
        return self.kit / STATE_FOLDER

    @property
    def runs(self) -> Path:
        """A run folder a run."""
        return self.kit / RUNS_FOLDER

    @property
    def apps(self) -> Path:
        """The apps and their signatures."""
        return self.kit / APPS_FOLDER

    @property
    def nodes(self) -> Path:
        """Node id of each site that may connect."""
        return self.state / "nodes.json"

    @property
    def database(self) -> Path:
        """Flower's."""
        return self.state / "superlink.db"

    @property
    def superlink_log(self) -> Path:
        """Flower's own log, rotated every day."""
        return self.state / "superlink.log"

    @property
    def output(self) -> Path:
        """What the server's processes print, of the last start."""
        return self.state / "superlink.out"

    @property
    def lock(self) -> Path:
        """Held while the server runs."""
        return self.state / "server.lock"

    def settings(self) -> ServerKit:
        """kit.toml.

        Raises:
            KitError: when the folder is no server kit.
        """
        return read_kit(self.kit, ServerKit)

    def note(self, event: str, **fields: Any) -> None:
        """Add an event, which says nothing of patients, to the audit log."""
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        append(self.state / AUDIT_LOG_FILE, {"event": event} | fields)
