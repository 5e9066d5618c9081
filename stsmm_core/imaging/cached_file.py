"""Files named after what they were made from, with a checksum at their end."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stsmm_core.errors import CohortError, RunError
from stsmm_core.files import write_atomically

DIGEST_BYTES = hashlib.sha256().digest_size


def content_key(channels: Mapping[str, Path], mask: Path, *, version: int | str, settings: Mapping[str, Any]) -> str:
    """The SHA-256 of the input files' content, the settings and the version: no name that tells of a patient.

    Raises:
        CohortError: when a file cannot be read.
    """
    ingredients = {
        "version": version,
        "settings": settings,
        "channels": [(name, _content(path)) for name, path in channels.items()],
        "mask": _content(mask),
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def read_whole(path: Path) -> bytes | None:
    """What was kept; None where there is no file, or one that is cut short or damaged.

    Raises:
        RunError: when the folder cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(
            f"{path.parent}: the image cache cannot be read ({error.strerror}); choose a folder of your own"
        ) from None
    body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    return body if hashlib.sha256(body).digest() == digest else None


def write_whole(path: Path, body: bytes) -> None:
    """Keep `body`, readable for its maker only; the file appears under its name when it is whole.

    Several processes may share the folder, as what two of them make at once is the same.

    Raises:
        RunError: when the folder cannot be written.
    """
    try:
        write_atomically(path, lambda unfinished: unfinished.write_bytes(body + hashlib.sha256(body).digest()))
    except OSError as error:
        raise RunError(
            f"{path.parent}: the image cache cannot be written ({error.strerror}); make room or choose another folder"
        ) from None


def _content(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CohortError(
            f"{path}: cannot be read ({error.strerror}); put the volume there, readable for you"
        ) from None
