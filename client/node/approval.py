"""Approving an app: what it is, what changed since the last one that was approved, who said yes."""

import difflib
import getpass
import hashlib
import io
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from flwr.common.config import get_fab_config, get_metadata_from_config

from client.node.ledger import Ledger
from client.node.settings import state_folder
from stsmm_core.errors import ConfigError

APPROVED_FOLDER = "approved"
"""Within state: SHA256.fab, the apps that were approved, to compare with the next."""
_CONTENT = ".info/CONTENT"


@dataclass(frozen=True, eq=False)
class App:
    """A Flower app bundle."""

    sha256: str
    name: str
    files: dict[str, bytes]


@dataclass(frozen=True)
class Changes:
    """Files of an app against another's."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


def read_app(path: Path) -> App:
    """Read an app bundle.

    Raises:
        ConfigError: when the file is none, or its list of files does not fit it.
    """
    try:
        content = path.read_bytes()
        name, version = get_metadata_from_config(get_fab_config(content))
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
            files = {entry: archive.read(entry) for entry in names}
        listed = dict(line.split(",")[:2] for line in files.pop(_CONTENT).decode().splitlines() if line)
    except Exception:  # zip, TOML, encoding, a missing entry: all the same to the reader
        raise ConfigError(f"{path}: no app of Flower (.fab); take the file that the server's operator sent") from None
    found = {entry: hashlib.sha256(data).hexdigest() for entry, data in files.items()}
    if len(names) != len(set(names)) or found != listed:
        raise ConfigError(f"{path}: its list of files does not fit its files; it was changed after it was made")
    return App(hashlib.sha256(content).hexdigest(), f"{name} {version}", files)


def last_approved(kit: Path) -> App | None:
    """The app whose approval holds and is the latest."""
    for approval in reversed(Ledger(kit).approvals()):
        path = state_folder(kit) / APPROVED_FOLDER / f"{approval.sha256}.fab"
        if approval.holds and path.exists():
            return read_app(path)
    return None


def compare(old: App | None, new: App) -> Changes:
    """What a new app has that an old one had not, and so on; all is added where there was none."""
    before = {} if old is None else old.files
    both = set(before) & set(new.files)
    return Changes(
        tuple(sorted(set(new.files) - set(before))),
        tuple(sorted(set(before) - set(new.files))),
        tuple(sorted(name for name in both if before[name] != new.files[name])),
    )


def unified_diff(old: App | None, new: App) -> str:
    """All changes of text, line by line."""
    before = {} if old is None else old.files
    lines: list[str] = []
    for name in sorted(set(before) | set(new.files)):
        was, is_now = (files.get(name, b"").decode("utf-8", "replace").splitlines() for files in (before, new.files))
        lines += difflib.unified_diff(was, is_now, f"approved/{name}", f"new/{name}", lineterm="")
    return "\n".join(lines)


def approve(kit: Path, path: Path) -> App:
    """Record that the site approved an app, and keep a copy to compare the next one with."""
    app = read_app(path)
    folder = state_folder(kit) / APPROVED_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    copy = folder / f"{app.sha256}.fab"
    copy.write_bytes(path.read_bytes())
    if read_app(copy).sha256 != app.sha256:
        raise ConfigError(f"{path}: changed while it was read; approve it again")
    Ledger(kit).approve(app.sha256, app.name, getpass.getuser())
    os.chmod(copy, 0o600)
    return app


def revoke(kit: Path, sha256: str) -> str:
    """Take an approval back; the beginning of its sha256 is enough. Works at the next message, signatures or not.

    An app that was never approved here, but may be signed, is forbidden by its whole sha256.

    Raises:
        ConfigError: when there is no such approval, or several.
    """
    ledger = Ledger(kit)
    found = [each.sha256 for each in ledger.approvals() if each.holds and each.sha256.startswith(sha256)]
    if not found and re.fullmatch("[0-9a-f]{64}", sha256):
        ledger.forbid(sha256)
        return sha256
    if len(found) != 1:
        raise ConfigError(f"{len(found)} approved apps begin with '{sha256}'; `stsmm site approve KIT` lists them")
    ledger.revoke(found[0])
    return found[0]
