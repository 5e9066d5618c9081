"""What the site decides: site.toml, and which code it has approved."""

from pathlib import Path

from client.node.ledger import approved_apps
from client.node.preflight.finding import Finding
from client.node.reviewers import read_reviewers
from client.node.settings import cohort_folder, read_settings
from stsmm_core.errors import ConfigError


def check_settings(folder: Path) -> Finding:
    """Whether site.toml is filled in, and its rules are such that a run can pass them."""
    try:
        settings = read_settings(folder)
        cohort_folder(folder, settings)
    except (ConfigError, OSError) as error:
        return Finding(
            "settings",
            "fault",
            "site.toml is not filled in, has a mistake, or names a cohort that is not below data_folder.",
            "Mend the line that is named here; the file's comments say what each line means.",
            detail=str(error),
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
        return _check_reviewers(folder, required)
    approved = len(approved_apps(folder))
    if approved == 0:
        return Finding(
            "approved code",
            "warning",
            "No code is approved here yet: every run will be refused.",
            "Let your data steward look at the app that the operator sends, then: stsmm site approve KIT APP.fab",
        )
    return Finding("approved code", "ok", "Apps that are approved here: {apps}.", numbers={"apps": approved})


def _check_reviewers(folder: Path, required: int) -> Finding:
    try:
        known = len({reviewer.site for reviewer in read_reviewers(folder).values()})
    except ConfigError as error:
        return Finding(
            "approved code",
            "fault",
            "reviewers.yaml cannot be read, or has a key that is none.",
            "Add keys with: stsmm site approve KIT --key ID --of SITE FILE",
            detail=str(error),
        )
    numbers = {"known": known, "required": required}
    if known < required:
        return Finding(
            "approved code",
            "fault",
            "site.toml asks for signatures of {required} sites; reviewers.yaml has keys of {known}: no code can run.",
            "Add keys with stsmm site approve KIT --key ID --of SITE FILE, or lower required_signatures.",
            numbers,
        )
    return Finding(
        "approved code", "ok", "Code runs with signatures of {required} of {known} trusted sites.", numbers=numbers
    )
