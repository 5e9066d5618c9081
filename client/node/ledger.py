"""What the site decided and did, in SQLite: approvals, runs, rounds, and where the node stands."""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.node.settings import state_folder
from stsmm_core.errors import StsmmError

LEDGER_FILE = "ledger.sqlite"
IN_HAND, LOST = "in hand", "lost"
"""Keys of the message that the app works on, and of one over which the node was ended."""

_TABLES = """
create table if not exists approvals (
    sha256 text primary key, app text, approved_at text, approved_by text, revoked_at text);
create table if not exists runs (
    run_id text primary key, name text, code text, config text, decision text, seen_at text);
create table if not exists rounds (
    run text, fold integer, round integer, day text, served integer, primary key (run, fold, round));
create table if not exists status (key text primary key, value text, at text);
"""


class LedgerError(StsmmError):
    """The ledger cannot be written or read; nothing is done without it."""


@dataclass(frozen=True)
class Approval:
    """An app that the site approved."""

    sha256: str
    app: str
    approved_at: str
    approved_by: str
    revoked_at: str | None

    @property
    def holds(self) -> bool:
        """Whether it was not revoked."""
        return self.revoked_at is None


@dataclass(frozen=True)
class RunSeen:
    """A run that asked the site, and what was decided last."""

    run_id: str
    name: str
    code: str
    config: str
    decision: str
    seen_at: str


FREE_REPEATS = 5
"""How often a round may be asked for again before it counts as a new one."""


class Ledger:
    """KIT/state/ledger.sqlite. Every call opens it anew, so that the node, its threads and commands may share it."""

    def __init__(self, kit: Path) -> None:
        self._path = state_folder(kit) / LEDGER_FILE
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its other files the same mode
        with self._open() as connection:
            connection.execute("pragma journal_mode = wal")
            connection.executescript(_TABLES)

    def approve(self, sha256: str, app: str, who: str) -> None:
        """Record an approval; one that was revoked holds again."""
        with self._open() as connection:
            connection.execute("insert or replace into approvals values (?, ?, ?, ?, null)", (sha256, app, _now(), who))

    def revoke(self, sha256: str) -> None:
        """Take an approval back; one that was taken back before keeps its time."""
        with self._open() as connection:
            connection.execute(
                "update approvals set revoked_at = ? where sha256 = ? and revoked_at is null", (_now(), sha256)
            )

    def approvals(self) -> list[Approval]:
        """All approvals, the oldest first."""
        with self._open() as connection:
            rows = connection.execute("select * from approvals order by approved_at, rowid").fetchall()
        return [Approval(*row) for row in rows]

    def is_approved(self, sha256: str) -> bool:
        """Whether an app's approval holds."""
        return any(approval.sha256 == sha256 and approval.holds for approval in self.approvals())

    def forbid(self, sha256: str) -> None:
        """Say of an app that was never approved by hand that it may not run here, whoever signed it."""
        with self._open() as connection:
            now = _now()
            connection.execute("insert into approvals values (?, 'not looked at', ?, '', ?)", (sha256, now, now))

    def is_revoked(self, sha256: str) -> bool:
        """Whether the site said that an app may not run here."""
        return any(approval.sha256 == sha256 and not approval.holds for approval in self.approvals())

    def other_configuration(self, name: str, config: str) -> bool:
        """Whether a run of that name with another configuration was admitted before."""
        with self._open() as connection:
            (count,) = connection.execute(
                "select count(*) from runs where name = ? and config not in (?, '')", (name, config)
            ).fetchone()
        return bool(count)

    def note_run(self, run_id: int, name: str, code: str, config: str, decision: str) -> None:
        """Record a run and what was decided."""
        with self._open() as connection:
            connection.execute(
                "insert or replace into runs values (?, ?, ?, ?, ?, ?)",
                (str(run_id), name, code, config, decision, _now()),
            )

    def runs(self) -> list[RunSeen]:
        """Runs seen, the latest first."""
        with self._open() as connection:
            rows = connection.execute("select * from runs order by seen_at desc, rowid desc").fetchall()
        return [RunSeen(*row) for row in rows]

    def serve_round(self, run: str, fold: int, number: int, *, limit: int) -> bool:
        """Count a round once though it is asked for again, as a resumed run does, but a few times only.

        Returns:
            False where it would be above the day's limit.
        """
        day = _today()
        with self._open() as connection:
            connection.execute("begin immediate")
            key = (run, fold, number)
            row = connection.execute("select served from rounds where (run, fold, round) = (?, ?, ?)", key).fetchone()
            free = row is not None and row[0] <= FREE_REPEATS
            if not free and _rounds_of(connection, day) >= limit:
                return False
            if row is None:
                connection.execute("insert into rounds values (?, ?, ?, ?, 1)", (*key, day))
            else:
                connection.execute(
                    "update rounds set served = served + 1, day = ? where (run, fold, round) = (?, ?, ?)",
                    (day, *key),
                )
            return True

    def rounds_today(self) -> int:
        """Rounds served today (UTC)."""
        with self._open() as connection:
            return _rounds_of(connection, _today())

    def note(self, key: str, value: Mapping[str, Any] | None) -> None:
        """Keep one thing about where the node stands; None removes it."""
        with self._open() as connection:
            if value is None:
                connection.execute("delete from status where key = ?", (key,))
            else:
                connection.execute("insert or replace into status values (?, ?, ?)", (key, json.dumps(value), _now()))

    def noted(self, key: str) -> dict[str, Any] | None:
        """What was kept, with the time as `at`."""
        with self._open() as connection:
            row = connection.execute("select value, at from status where key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0]) | {"at": row[1]}

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self._path, timeout=30)
            try:
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise LedgerError(
                f"{self._path}: the ledger cannot be used ({error}): is the disk full, or not ours?"
            ) from None


def approved_apps(kit: Path) -> list[str]:
    """sha256 of the apps whose approval holds, the oldest first."""
    return [approval.sha256 for approval in Ledger(kit).approvals() if approval.holds]


def _rounds_of(connection: sqlite3.Connection, day: str) -> int:
    """Rounds of a day: one each, and every repetition above the free ones."""
    (count,) = connection.execute(
        "select coalesce(sum(1 + max(served - 1 - ?, 0)), 0) from rounds where day = ?", (FREE_REPEATS, day)
    ).fetchone()
    return int(count)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
