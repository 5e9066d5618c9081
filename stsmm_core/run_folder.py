"""The run folder: all that a command made, and enough to repeat it."""

import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stsmm_core.cohort.cohort import CLINICAL_FILE, IMAGES_FOLDER, MANIFEST_FILE, Cohort
from stsmm_core.config import Experiment, to_toml
from stsmm_core.errors import RunError
from stsmm_core.files import write_text_atomically

CONFIG_FILE = "config.toml"
VERSIONS_FILE = "versions.json"
INPUTS_FILE = "inputs.json"
HISTORY_FILE = "history.csv"
HISTORY_COLUMNS = ("fold", "round", "head", "train_loss", "validation_loss", "weight")
METRICS_FILE = "metrics.json"
COX_FILE = "cox.json"
PROGRESS_FILE = "progress.json"
FAILURE_FILE = "failure.txt"
SERVER_FILE = "server.pid"
AUDIT_FILE = "audit.jsonl"
SITE_BLENDING_FILE = "blending_sites.csv"
SITE_BLENDING_COLUMNS = ("fold", "round", "site", "head", "weight")
CHECKPOINTS_FOLDER = "checkpoints"
SITES_FOLDER = "sites"
COMPARISON_FILE = "comparison.json"
PRIVATE_FOLDER = "private"
"""In a comparison: what names or shows patients one by one, and must stay at the centre."""
NETWORKS_FOLDER = f"{PRIVATE_FOLDER}/networks"
"""In a comparison: a run folder a network, with its predictions by patient."""
BLENDED = "mmnn_blending"
"""In a comparison: key of the network with gradient blending, which the others are compared with."""
REFERENCE = "clinical_ridge"
"""Key of the bar that every other model has to pass: regularised Cox regression on the clinical variables."""
LOCK_FILE = ".lock"

PACKAGES = ("stsmm", "torch", "monai", "flwr", "numpy", "scipy", "pandas", "simpleitk")
COMPARISON_PACKAGES = ("scikit-survival", "pyradiomics-bhklab", "captum")


def software_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of what computes the numbers."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


@contextmanager
def open_run(
    run: Path, experiment: Experiment, inputs: dict[str, Any], *, packages: Sequence[str] = PACKAGES
) -> Iterator[None]:
    """Create a run folder, or go on in one that holds the same experiment on the same data.

    The folder is locked while it is open, so that two commands never write into one run.

    Raises:
        RunError: when the folder holds something else or is in use, or the pretrained weights cannot be read.
    """
    wanted = {
        INPUTS_FILE: json.dumps(inputs | _pretrained_fingerprint(experiment), indent=2, sort_keys=True),
        VERSIONS_FILE: json.dumps(software_versions(packages), indent=2),
        CONFIG_FILE: to_toml(experiment),
    }
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{run}: cannot be made a run folder ({error.strerror}); choose another --out") from None
    lock = FileLock(run / LOCK_FILE, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{run} is in use by another stsmm command; wait for it or choose another --out") from None
    try:
        _claim(run, wanted)
        yield
    finally:
        lock.release()


def _claim(run: Path, wanted: dict[str, str]) -> None:
    """Write what the run is made from, or make sure that the folder was made from the same."""
    if not (run / CONFIG_FILE).exists():
        strangers = [entry for entry in run.iterdir() if entry.name not in wanted and not entry.name.startswith(".")]
        if strangers:
            raise RunError(f"{run} is not empty and is not a run of stsmm; choose another --out")
        for name, text in wanted.items():  # the configuration last: it makes the folder a run
            write_text_atomically(run / name, text)
        return
    held = {name: (run / name).read_text(encoding="utf-8") for name in wanted}
    reasons = {
        CONFIG_FILE: "with another configuration",
        INPUTS_FILE: "on other data or patients, or by another command",
    }
    other = [reason for name, reason in reasons.items() if held[name] != wanted[name]]
    if other:
        raise RunError(
            f"{run} holds a run {' and '.join(other)}; choose another --out, or remove the folder to start again"
        )
    if held[VERSIONS_FILE] != wanted[VERSIONS_FILE] and not (run / METRICS_FILE).exists():
        raise RunError(
            f"{run} was begun with other software versions ({VERSIONS_FILE} there names them), so its numbers would "
            "mix; install those again, choose another --out, or remove the folder to start again"
        )


def cohort_fingerprint(cohort: Cohort) -> str:
    """A digest that changes when the table, the manifest or any image file of the cohort's patients changes.

    Images count by name, size and time of change: reading gigabytes at every start would be no safer against
    accidents.
    """
    digest = hashlib.sha256()
    for name in (MANIFEST_FILE, CLINICAL_FILE):
        digest.update((cohort.root / name).read_bytes())
    for patient in cohort.patients:
        digest.update(patient.encode())
        folder = cohort.root / IMAGES_FOLDER / patient
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            status = file.stat()
            digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _pretrained_fingerprint(experiment: Experiment) -> dict[str, str]:
    """A digest of the pretrained weights, where the experiment has any."""
    if not experiment.model.pretrained:
        return {}
    try:
        with Path(experiment.model.pretrained).open("rb") as file:
            return {"pretrained": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise RunError(
            f"{experiment.model.pretrained}: cannot be read ({error.strerror}); correct model.pretrained"
        ) from None


def describe_inputs(mode: str, cohorts: Sequence[Cohort]) -> dict[str, Any]:
    """What a run was made from, without a path: mode, sites and their fingerprints."""
    return {
        "mode": mode,
        "cohorts": [{"site": cohort.manifest.site, "fingerprint": cohort_fingerprint(cohort)} for cohort in cohorts],
    }
