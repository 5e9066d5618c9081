"""Apps: the code that runs at the sites, packed by Flower into one file that is known by its sha256."""

import hashlib
import re
from pathlib import Path

from server.deploy.folder import ServerFolder
from stsmm_core.checkout import app_folder
from stsmm_core.errors import RunError
from stsmm_core.files import write_atomically

APP_ID = "@stsmm/stsmm"
"""Publisher and name in pyproject.toml."""
_SPECIFICATION = re.compile(r"0\.0\.(\d{1,78})")


def build_app() -> bytes:
    """The app of the installed checkout, as Flower's own `flwr build` packs it: equal code gives equal bytes.

    Raises:
        RunError: when stsmm is not installed from its checkout, or Flower refuses to pack it.
    """
    from flwr.cli.build import build_fab_from_disk

    folder = app_folder("packing the app")
    try:
        return build_fab_from_disk(folder)
    except Exception as error:  # Flower raises its command line's errors, of several kinds
        raise RunError(f"Flower cannot pack the app of {folder}: {error}") from None


def pack(kit: Path) -> Path:
    """Pack the app of the installed checkout into the server kit: apps/SHA256.fab.

    Raises:
        StsmmError: when the folder is no server kit or the app cannot be packed.
    """
    folder = ServerFolder(kit)
    folder.settings()
    content = build_app()
    path = app_file(folder, digest(content))
    if not path.exists():
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
        path.chmod(0o644)
        folder.note("app packed", app=path.stem)
    return path


def digest(content: bytes) -> str:
    """sha256 of an app, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def app_file(folder: ServerFolder, sha256: str) -> Path:
    """Where an app lies."""
    return folder.apps / f"{sha256}.fab"


def packed_app(folder: ServerFolder, sha256: str) -> bytes:
    """The bytes of a packed app.

    Raises:
        RunError: when it is not there or is not what its name says.
    """
    path = app_file(folder, sha256)
    try:
        content = path.read_bytes()
    except OSError:
        raise RunError(
            f"{path}: this app is not packed; run `stsmm server pack {folder.kit}` and give the file to the sites, "
            "who approve it with `stsmm site approve`"
        ) from None
    if digest(content) != sha256:
        raise RunError(f"{path} was changed; remove it and run `stsmm server pack {folder.kit}` again")
    return content


def specification(sha256: str) -> str:
    """How Flower is told which app to fetch: it takes a version of digits only, so the hash goes as a number."""
    return f"{APP_ID}==0.0.{int(sha256, 16)}"


def sha256_of_version(version: str) -> str | None:
    """The hash in a `specification`'s version, or None."""
    match = _SPECIFICATION.fullmatch(version)
    number = int(match.group(1)) if match else 1 << 256
    return f"{number:064x}" if number < 1 << 256 else None
