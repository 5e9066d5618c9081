"""An append-only log of JSON lines, each of which holds the hash of the line before it.

A line that was changed, removed, inserted or moved breaks the chain. The chain alone cannot show that lines at its end
were removed: a small file beside the log, NAME.head, counts the lines and holds the hash of the last one. Whoever can
write both files can still make up a new log; only a hash that was noted elsewhere shows that.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from stsmm_core.errors import StsmmError

START = "0" * 64
"""`previous` of the first line."""
CHAIN = "chain"
"""Key of the lines that `append` adds by itself, where the log is not as it left it."""
INTERRUPTED = "interrupted"
"""A value of `chain`: writing was cut off by a power cut or a full disk. Every line that was complete is there."""
BROKEN = "broken"
"""A value of `chain`: somebody changed or removed lines, or the file that counts them."""


class AuditError(StsmmError):
    """An audit log was changed, or cannot be written or read."""


@dataclass(frozen=True)
class Head:
    """Where a chain ends: its number of lines, and the sha256 of the last one with its line end."""

    lines: int = 0
    sha256: str = START


def append(path: Path, event: Mapping[str, Any]) -> None:
    """Add a line: the time (UTC), the event, the hash of the line before. It is on the disk when this returns.

    Safe between processes and threads. Where the log is not as the last call left it, a line that says so comes first.

    Args:
        event: keys with values that JSON can hold; `time`, `previous` and `chain` are the chain's own.

    Raises:
        AuditError: when the line cannot be written.
    """
    if own := {"time", "previous", CHAIN} & set(event):
        raise ValueError(f"{', '.join(sorted(own))}: the chain's own keys")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            path.touch()
            head, end, note = _resume(path)
            lines = b""
            for addition in ([note] if note else []) + [dict(event)]:
                line = _line(addition, head)
                head = Head(head.lines + 1, _sha256(line))
                lines += line
            with path.open("r+b") as file:
                file.seek(end)
                file.write(lines)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            _write_head(path, head)
    except OSError as error:
        raise AuditError(
            f"{path}: the audit log cannot be written ({error.strerror}), and nothing is done without it; make space "
            "on the disk, or correct the owner of the folder"
        ) from None


def read(path: Path) -> tuple[dict[str, Any], ...]:
    """The lines of a log, without judging whether they fit each other.

    A last line without its end is left out: it may be being written. `verify` names it.

    Raises:
        AuditError: naming the line that is no JSON object.
    """
    whole, _ = _lines(_content(path))
    return tuple(_entry(path, number, line) for number, line in enumerate(whole, start=1))


def verify(path: Path, noted: str | None = None) -> int:
    """Make sure that nobody changed a log: its number of lines.

    Args:
        noted: a head hash of this log that was noted elsewhere, now or earlier. It must be the hash of one of the
            lines; then everything up to that line is as it was when it was noted.

    Raises:
        AuditError: naming the first line that does not fit.
    """
    with _lock_if_possible(path):
        content, counted = _content(path), _read_head(path)
    whole, torn = _lines(content)
    before, hashes = START, []
    for number, line in enumerate(whole, start=1):
        entry = _entry(path, number, line)
        if entry.get("previous") != before:
            raise AuditError(
                f"{path}: line {number} does not fit the one before it; one of the two was changed, or a line was "
                "removed, inserted or moved there"
            )
        if entry.get(CHAIN) == BROKEN:
            raise AuditError(f"{path}: line {number} notes that the lines before it were changed: {entry.get('found')}")
        before = _sha256(line)
        hashes.append(before)
    _verify_end(path, Head(len(whole), before), counted, hashes, torn)
    if noted is not None and noted not in hashes:
        raise AuditError(
            f"{path}: none of its {len(whole)} lines has the hash {noted}; lines were changed or removed after that "
            "hash was noted, or it belongs to another log"
        )
    return len(whole)


def head(path: Path) -> Head:
    """The number of whole lines and the hash of the last one, to note where nobody who can write the log can write."""
    whole, _ = _lines(_content(path))
    return Head(len(whole), _sha256(whole[-1])) if whole else Head()


def head_file(path: Path) -> Path:
    """The file that counts the lines of a log."""
    return path.with_name(f"{path.name}.head")


def _verify_end(path: Path, found: Head, counted: Head | None, hashes: list[str], torn: bytes) -> None:
    """Compare the end of a log with the file that counts its lines."""
    if counted is None:
        if found.lines or torn:
            raise AuditError(
                f"{path}: {head_file(path).name} beside it is missing or damaged, so lines may be missing at its end"
            )
        return
    if found.lines < counted.lines:
        raise AuditError(
            f"{path}: line {found.lines + 1} is missing; there were {counted.lines} lines, {found.lines} are left"
        )
    if counted.lines and hashes[counted.lines - 1] != counted.sha256:
        raise AuditError(f"{path}: line {counted.lines} was changed, or lines before it were inserted")
    if found.lines > counted.lines or torn:
        raise AuditError(
            f"{path}: line {counted.lines + 1} was not finished: writing was cut off there, or somebody added it; "
            "the next line that the program adds says so, and the log is then in order again"
        )


def _resume(path: Path) -> tuple[Head, int, dict[str, Any] | None]:
    """Where the next line goes: the head so far, the length of the whole lines in bytes, and what must be noted."""
    counted = _read_head(path)
    size = path.stat().st_size
    if counted is not None and _sha256(_last_line(path, size)) == counted.sha256:
        return counted, size, None
    whole, torn = _lines(path.read_bytes())
    found = Head(len(whole), _sha256(whole[-1])) if whole else Head()
    end = size - len(torn)
    if counted is None and not whole and not torn:
        return found, end, None
    start = counted or Head()
    fits = start.lines <= found.lines and (start.lines == 0 or _sha256(whole[start.lines - 1]) == start.sha256)
    if fits and (counted is not None or found.lines <= 1):
        interrupted = {
            CHAIN: INTERRUPTED,
            "not_counted": found.lines - start.lines,
            "torn": torn.decode(errors="replace"),
        }
        return found, end, interrupted
    return (
        found,
        end,
        {
            CHAIN: BROKEN,
            "found": f"{found.lines} lines, the last with hash {found.sha256}",
            "expected": "unknown" if counted is None else f"{counted.lines} lines, the last with hash {counted.sha256}",
            "torn": torn.decode(errors="replace"),
        },
    )


def _line(event: Mapping[str, Any], before: Head) -> bytes:
    time = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"time": time} | dict(event) | {"previous": before.sha256}, allow_nan=False).encode() + b"\n"


def _entry(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise AuditError(f"{path}: line {number} was changed: it is no entry of an audit log")
    return entry


def _lines(content: bytes) -> tuple[list[bytes], bytes]:
    """Whole lines with their ends, and what comes after the last."""
    *whole, torn = content.split(b"\n")
    return [line + b"\n" for line in whole], torn


def _last_line(path: Path, size: int) -> bytes:
    """What comes after the last line end but one, without reading the whole file."""
    block = 4096
    with path.open("rb") as file:
        while True:
            file.seek(max(0, size - block))
            content = file.read()
            start = content.rfind(b"\n", 0, max(0, len(content) - 1))
            if start >= 0 or block >= size:
                return content[start + 1 :]
            block *= 4


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})") from None


def _read_head(path: Path) -> Head | None:
    """None where the file is missing or is not what was written."""
    try:
        text = head_file(path).read_text(encoding="utf-8")
        head = Head(**json.loads(text))
    except (OSError, ValueError, TypeError):
        return None
    return head if text == _head_text(head) else None


def _write_head(path: Path, head: Head) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".head")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_head_text(head))
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, head_file(path))
    except OSError:
        os.unlink(name)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def _head_text(head: Head) -> str:
    return json.dumps(asdict(head)) + "\n"


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _lock(path: Path) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"))


def _lock_if_possible(path: Path) -> AbstractContextManager[object]:
    """Nobody writes a copy in a folder that cannot be written."""
    return _lock(path) if path.is_file() and os.access(path.parent, os.W_OK) else nullcontext()
