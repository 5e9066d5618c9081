"""site.toml of a kit: what the hospital decides, and the complete site file that the app reads."""

import os
import secrets
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stsmm_core.config import Endpoint, ModelKind
from stsmm_core.errors import ConfigError, KitError
from stsmm_core.files import write_text_atomically
from stsmm_core.kit import RUNS_FOLDER, SITE_FILE, STATE_FOLDER, SiteKit, read_kit

SALT_FILE = "salt"
"""Within state: the site's secret number that seeds its bootstrap. Never in a kit."""
CACHE_FOLDER = "cache"
STOP_FILE = "stop"
"""Within state: asks the node to end before its next message."""
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
"""The environment's variables that the node's connection needs; they may hold passwords."""
_SALT_BITS = 128


class Policy(BaseModel):
    """Which runs the site takes part in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds_a_day: Annotated[int, Field(ge=1)] = 500
    required_signatures: Annotated[int, Field(ge=0)] = 0
    """0: only apps approved by `stsmm site approve`. n: so many signatures of reviewers of different sites instead."""
    models: tuple[ModelKind, ...] = ("mmnn", "cox")
    endpoints: tuple[Endpoint, ...] = ("os", "dm")
    require_secure_aggregation: bool = False
    """This version cannot do it: true refuses every run."""
    share_predictions: bool = False
    """Without effect: nothing in this version sends predictions, whatever this says."""


class SiteSettings(BaseModel):
    """site.toml of a kit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cohort: str = ""
    data_folder: str = ""
    device: str = "cpu"
    threads: Annotated[int, Field(ge=1)] = 1
    min_cell_size: Annotated[int, Field(ge=1)] = 5
    share_risk_sets: bool = False
    policy: Policy = Policy()


def read_settings(kit: Path) -> SiteSettings:
    """Read site.toml of a kit.

    Raises:
        ConfigError: naming the file, each wrong key and what would be right.
    """
    path = kit / SITE_FILE
    try:
        return SiteSettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; take it from the kit as it was sent, then fill it in") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; text needs quotes, true and false none") from None
    except ValidationError as error:
        faults = "\n".join(f"  {_explain(fault)}" for fault in error.errors())
        raise ConfigError(f"{path}: these settings are not valid\n{faults}") from None


def cohort_folder(kit: Path, settings: SiteSettings) -> Path:
    """The cohort folder, made sure to lie in the data folder with every file in it.

    Symbolic links are followed: where they lead to counts.

    Raises:
        ConfigError: naming the setting and what to do.
    """
    path = kit / SITE_FILE
    for name in ("data_folder", "cohort"):
        text = getattr(settings, name)
        if not text:
            raise ConfigError(f"{path}: {name} is empty; write the full path of the folder between the quotes")
        if not Path(text).is_absolute():
            raise ConfigError(f"{path}: {name} = '{text}' must be a full path, beginning with /")
        if not Path(text).is_dir():
            raise ConfigError(f"{path}: {name} = '{text}' is no folder that this user can see")
    cohort, data = Path(settings.cohort), Path(settings.data_folder).resolve()
    for entry in _entries(cohort, set()):
        if not entry.resolve().is_relative_to(data):
            raise ConfigError(
                f"{path}: '{entry}' leads outside data_folder = '{settings.data_folder}'; nothing outside it is read. "
                "Move it into the data folder, or widen data_folder"
            )
    return cohort.resolve()


def write_site_file(kit: Path, settings: SiteSettings) -> Path:
    """Write the complete settings that the app reads, absolute paths and the site's salt included.

    Returns:
        The path of the file.
    """
    state = state_folder(kit)
    content = {
        "name": read_kit(kit, SiteKit).site,
        "cohort": str(cohort_folder(kit, settings)),
        "folder": str(state / RUNS_FOLDER),
        "cache": str(state / CACHE_FOLDER),
        "device": settings.device,
        "threads": settings.threads,
        "min_cell_size": settings.min_cell_size,
        "share_risk_sets": settings.share_risk_sets,
    }
    # The salt is above what TOML's integers hold in some readers; Python's holds any.
    text = f"{tomli_w.dumps(content)}salt = {_salt(state)}\n"
    path = state / SITE_FILE
    write_text_atomically(path, text)  # a temporary file is made with 0600
    return path


def state_folder(kit: Path) -> Path:
    """KIT/state, made if missing, for its owner alone.

    Raises:
        KitError: when the folder is no site's kit, or somebody else's.
    """
    read_kit(kit, SiteKit)
    state = kit.resolve() / STATE_FOLDER
    try:
        state.mkdir(mode=0o700, exist_ok=True)
        state.chmod(0o700)
    except OSError as error:
        raise KitError(f"{state}: cannot be used ({error.strerror}); run this as the owner of the kit") from None
    return state


def _salt(state: Path) -> int:
    path = state / SALT_FILE
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return int(path.read_text(encoding="ascii"))
    salt = (1 << _SALT_BITS) | secrets.randbits(_SALT_BITS)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(str(salt))
    return salt


def _entries(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """A folder and all that is reached from it, links included; each real folder once."""
    yield folder
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            yield from _entries(entry, seen)
        else:
            yield entry


def _explain(fault: object) -> str:
    assert isinstance(fault, dict)
    key = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        known = Policy.model_fields if key.startswith("policy.") else SiteSettings.model_fields
        return f"{key}: unknown setting; choose from {', '.join(known)}"
    return f"{key} = {fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
