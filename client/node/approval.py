"""Approving an app: what it is, what changed since the last one that was approved, who said yes."""

import difflib
import getpass
import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from flwr.common.config import get_fab_config, get_metadata_from_config

from client.node.ledger import Ledger
from client.node.settings import state_folder
from stsmm_core.errors import ConfigError
from stsmm_core.files import write_atomically
from stsmm_core.printable import printable

APPROVED_FOLDER = "approved"
"""Within state: SHA256.fab, the apps that were approved, to compare with the next."""
_CONTENT = ".info/CONTENT"


@dataclass(frozen=True, eq=False)
class App:
    """A Flower app bundle.

    Attributes:
        content: the whole file, as it was read.
        files: what is in it, by name.
    """

    sha256: str
    name: str
    content: bytes
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
    return App(hashlib.sha256(content).hexdigest(), printable(f"{name} {version}"), content, files)


def last_approved(kit: Path) -> tuple[App | None, list[str]]:
    """The app whose approval holds and is the latest, and the sha256 of later ones whose copy cannot be used."""
    broken: list[str] = []
    for approval in reversed(Ledger(kit).approvals()):
        if not approval.holds:
            continue
        try:
            app = read_app(_copy(kit, approval.sha256))
        except ConfigError:
            app = None
        if app is not None and app.sha256 == approval.sha256:
            return app, broken
        broken.append(approval.sha256)
    return None, broken


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
    """All changes of text, line by line, for a terminal: what is not to be seen in a line stands there as ?."""
    before = {} if old is None else old.files
    lines: list[str] = []
    for name in sorted(set(before) | set(new.files)):
        was, is_now = (files.get(name, b"").decode("utf-8", "replace").splitlines() for files in (before, new.files))
        lines += difflib.unified_diff(was, is_now, f"approved/{name}", f"new/{name}", lineterm="")
    return "\n".join(printable(line.expandtabs()) for line in lines)


def approve(kit: Path, app: App) -> None:
    """Record that the site approved an app as it was read, and keep a copy to compare the next one with.

    Raises:
        ConfigError: when the copy cannot be written; the app is not approved then.
    """
    copy = _copy(kit, app.sha256)
    try:
        copy.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(copy, lambda temporary: temporary.write_bytes(app.content))
    except OSError as error:
        raise ConfigError(
            f"{copy}: cannot be written ({error.strerror}), so the app is not approved; mend that and approve it again"
        ) from None
    Ledger(kit).approve(app.sha256, app.name, getpass.getuser())


def revoke(kit: Path, sha256: str) -> str:
    """Take an approval back; the beginning of its sha256 is enough. Works at the next message, signatures or not.

    A second time changes nothing.
    An app that was never approved here, but may be signed, is forbidden by its whole sha256.

    Raises:
        ConfigError: when there is no such approval, or several.
    """
    ledger = Ledger(kit)
    known = [each for each in ledger.approvals() if each.sha256.startswith(sha256)]
    found = [each.sha256 for each in known if each.holds] or [each.sha256 for each in known]
    if not found and re.fullmatch("[0-9a-f]{64}", sha256):
        ledger.forbid(sha256)
        return sha256
    if len(found) != 1:
        raise ConfigError(f"{len(found)} apps known here begin with '{sha256}'; `stsmm site approve KIT` lists them")
    ledger.revoke(found[0])
    return found[0]


def _copy(kit: Path, sha256: str) -> Path:
    return state_folder(kit) / APPROVED_FOLDER / f"{sha256}.fab"
