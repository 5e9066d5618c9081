"""What the site decides: site.toml, and which code it has approved."""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError

from client.node.preflight.finding import Finding
from stsmm_core.errors import ConfigError
from stsmm_core.kit import REVIEWERS_FILE, SITE_FILE, STATE_FOLDER

if TYPE_CHECKING:
    from client.node.settings import SiteSettings

LEDGER_FILE = "ledger.sqlite"
"""Within state: approved code and rounds."""


def read_settings(folder: Path) -> "SiteSettings":
    """The site's settings.

    Raises:
        ConfigError: naming what is wrong with site.toml.
    """
    from client.node.settings import SiteSettings

    path = folder / SITE_FILE
    try:
        settings = SiteSettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ConfigError(f"{path}: {faults}") from None
    if not str(settings.cohort) or str(settings.cohort) == ".":
        raise ConfigError(f"{path}: cohort is empty")
    return settings


def check_settings(folder: Path) -> Finding:
    """Whether site.toml is filled in, and its rules are such that a run can pass them."""
    try:
        settings = read_settings(folder)
    except ConfigError as error:
        return Finding(
            "settings",
            "fault",
            "site.toml is not filled in, or has a mistake.",
            "Mend the line that is named here; the file's comments say what each line means.",
            detail=str(error),
        )
    cohort, data = Path(settings.cohort).resolve(), Path(settings.data_folder).resolve()
    if not str(settings.data_folder) or str(settings.data_folder) == "." or not cohort.is_relative_to(data):
        return Finding(
            "settings",
            "fault",
            "The cohort does not lie below data_folder: nothing outside it is read.",
            "Set data_folder in site.toml to the folder that holds the cohort.",
        )
    if not cohort.is_dir():
        return Finding(
            "settings",
            "fault",
            "The cohort folder in site.toml is not there, or this user may not see it.",
            "Correct cohort in site.toml, or give this user the right to read it.",
            detail=str(cohort),
        )
    if settings.policy.require_secure_aggregation:
        return Finding(
            "settings",
            "fault",
            "site.toml requires secure aggregation, which this version cannot do yet: every run will be refused.",
            "Set require_secure_aggregation = false, or wait for a version that can.",
        )
    if settings.min_cell_size < 5:
        return Finding(
            "settings",
            "warning",
            "site.toml sets min_cell_size to {least}: counts of so few patients may leave the site.",
            "Ask your data steward; 5 or more is usual.",
            {"least": settings.min_cell_size},
        )
    if settings.share_risk_sets:
        return Finding(
            "settings",
            "warning",
            "site.toml shares risk-set sums, whose differences are rows of single patients.",
            "Ask your data steward; false is usual (docs/wire.md).",
        )
    return Finding("settings", "ok", "site.toml is filled in.")


def check_approved(folder: Path) -> Finding:
    """Whether any code could run here: an approved app, or enough trusted reviewers where signatures decide."""
    required = read_settings(folder).policy.required_signatures
    if required > 0:
        return _check_reviewers(folder / REVIEWERS_FILE, required)
    if not (folder / STATE_FOLDER / LEDGER_FILE).exists():
        approved = 0
    else:
        from client.node.ledger import approved_apps

        approved = len(approved_apps(folder))
    if approved == 0:
        return Finding(
            "approved code",
            "warning",
            "No code is approved here yet: every run will be refused.",
            "Let your data steward look at the app that the operator sends, then: stsmm site approve KIT APP.fab",
        )
    return Finding("approved code", "ok", "{apps} apps are approved here.", numbers={"apps": approved})


def _check_reviewers(path: Path, required: int) -> Finding:
    try:
        reviewers = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        reviewers = {}
    known = len(reviewers) if isinstance(reviewers, dict) else 0
    numbers = {"known": known, "required": required}
    if known < required:
        return Finding(
            "approved code",
            "fault",
            "site.toml asks for {required} signatures, but reviewers.yaml names {known} reviewers: no code can run.",
            "Add the reviewers' keys to reviewers.yaml, or lower required_signatures.",
            numbers,
        )
    return Finding(
        "approved code", "ok", "Code runs with {required} signatures of {known} trusted reviewers.", numbers=numbers
    )
