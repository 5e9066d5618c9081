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
        """Take an approval back."""
        with self._open() as connection:
            connection.execute("update approvals set revoked_at = ? where sha256 = ?", (_now(), sha256))

    def approvals(self) -> list[Approval]:
        """All approvals, the oldest first."""
        with self._open() as connection:
            rows = connection.execute("select * from approvals order by approved_at, rowid").fetchall()
        return [Approval(*row) for row in rows]

    def is_approved(self, sha256: str) -> bool:
        """Whether an app's approval holds."""
        return any(approval.sha256 == sha256 and approval.holds for approval in self.approvals())

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
        """Count a round once, however often it is asked for; false where a new one would be above the day's limit."""
        day = _today()
        with self._open() as connection:
            connection.execute("begin immediate")
            known = connection.execute(
                "update rounds set served = served + 1 where run = ? and fold = ? and round = ?", (run, fold, number)
            ).rowcount
            if known:
                return True
            (today,) = connection.execute("select count(*) from rounds where day = ?", (day,)).fetchone()
            if today >= limit:
                return False
            connection.execute("insert into rounds values (?, ?, ?, ?, 1)", (run, fold, number, day))
            return True

    def rounds_today(self) -> int:
        """Distinct rounds that were first served today (UTC)."""
        with self._open() as connection:
            (count,) = connection.execute("select count(*) from rounds where day = ?", (_today(),)).fetchone()
        return int(count)

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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
