"""The support bundle: what an operator elsewhere needs, and nothing that names a patient, a person or a machine.

Nothing is redacted after the fact: only fixed sentences, numbers, versions and the kit's own public settings go in.
"""

import json
import platform
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from client.node.preflight.finding import Finding
from client.node.process import LOG_FILE
from client.node.settings import read_settings
from stsmm_core.config import Endpoint, ModelKind
from stsmm_core.errors import ConfigError, StsmmError
from stsmm_core.kit import STATE_FOLDER, SiteKit, read_kit
from stsmm_core.run_folder import software_versions

LOG_LINES = 200
"""Of the end of the log are looked at."""

KNOWN_SENTENCES = (
    "Starting Flower SuperNode",
    "SuperNode terminated gracefully",
    "Failed to initialize the connection to the SuperLink",
    "Connection attempt failed, retrying",
    "No connection to",
    "Refused a message",
    "The gate could not judge a message",
    "The gate held an answer",
    "Failed to activate SuperNode",
    "Invalid SuperNode authentication",
    "Heartbeat failed unexpectedly",
    "The SuperLink does not recognize this SuperNode",
    "certificate verify failed",
    "certificate has expired",
    "certificate is not yet valid",
    "Hostname mismatch",
    "Connection refused",
    "timed out",
    "Name or service not known",
    "Temporary failure in name resolution",
    "No space left on device",
    "CUDA out of memory",
    "Address already in use",
    "Permission denied",
    "The FAB could not be verified",
    "Traceback (most recent call last)",
)
"""Of Flower, the system and the gate. Of a line of the log that contains one, only that sentence is shown."""

_TIME = re.compile(r"\b(\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}:\d{2})")


def write_bundle(path: Path, folder: Path, findings: Sequence[Finding]) -> None:
    """Write the bundle of a kit.

    Raises:
        StsmmError: when it cannot be written.
    """
    whole = any(finding.check == "kit unchanged" and finding.state == "ok" for finding in findings)
    files = {
        "findings.json": _json([_shown(finding) for finding in findings]),
        "versions.json": _json(
            software_versions() | {"system": platform.system(), "processor": _known_processor(platform.machine())}
        ),
        "kit.json": _json(read_kit(folder, SiteKit).model_dump() if whole else {}),
        "policy.json": _json(_policy(folder)),
        "log.txt": "\n".join(known_lines(_last_lines(folder / STATE_FOLDER / LOG_FILE))) + "\n",
    }
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(name, text)
    except OSError as error:
        raise StsmmError(f"{path}: the bundle cannot be written ({error.strerror}); choose another file") from None


def _shown(finding: Finding) -> dict[str, Any]:
    """Of a finding, all but its detail."""
    return {
        "check": finding.check,
        "state": finding.state,
        "what": finding.sentence(),
        "remedy": finding.remedy,
    }


def _policy(folder: Path) -> dict[str, Any]:
    """Numbers, yes and no, and the words that this version knows."""
    try:
        settings = read_settings(folder).model_dump()
    except ConfigError:
        return {}
    policy = settings.pop("policy")
    allowed = {"models": get_args(ModelKind), "endpoints": get_args(Endpoint)}
    words = {key: [word for word in known if word in policy.get(key, ())] for key, known in allowed.items()}
    return {key: value for key, value in (settings | policy).items() if isinstance(value, bool | int | float)} | words


def known_lines(lines: Iterable[str]) -> list[str]:
    """The known sentences in a log, each with its time where the line begins with one; how many lines were left out."""
    shown = []
    left_out = 0
    for line in lines:
        sentence = next((known for known in KNOWN_SENTENCES if known.lower() in line.lower()), None)
        if sentence is None:
            left_out += 1
            continue
        time = _TIME.match(line.strip())
        shown.append(f"{time[1]} {time[2]} {sentence}" if time else sentence)
    return [*shown, f"({left_out} other lines left out)"]


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 400 * LOG_LINES))
            return file.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []


def _known_processor(name: str) -> str:
    return name if name in ("x86_64", "AMD64", "aarch64", "arm64", "ppc64le") else "other"


def _json(content: object) -> str:
    return json.dumps(content, indent=2)
