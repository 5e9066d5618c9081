"""The run folder: all that a command made, and enough to repeat it."""

import fcntl
import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stsmm_core.cohort.cohort import CLINICAL_FILE, IMAGES_FOLDER, MANIFEST_FILE, Cohort
from stsmm_core.config import Experiment, to_toml
from stsmm_core.errors import RunError
from stsmm_core.files import write_text_atomically

CONFIG_FILE = "config.toml"
VERSIONS_FILE = "versions.json"
INPUTS_FILE = "inputs.json"
HISTORY_FILE = "history.csv"
METRICS_FILE = "metrics.json"
PROGRESS_FILE = "progress.json"
FAILURE_FILE = "failure.txt"
SERVER_FILE = "server.pid"

_PACKAGES = ("stsmm", "torch", "monai", "flwr", "numpy", "scipy", "pandas", "simpleitk")


def software_versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


@contextmanager
def open_run(run: Path, experiment: Experiment, inputs: dict[str, Any]) -> Iterator[None]:
    """Create a run folder, or go on in one that holds the same experiment on the same data.

    The folder is locked while it is open, so that two commands never write into one run.

    Raises:
        RunError: when the folder holds something else or is in use.
    """
    config = run / CONFIG_FILE
    text, wanted = to_toml(experiment), json.dumps(inputs, indent=2, sort_keys=True)
    if not config.exists() and run.exists() and any(entry.name != ".lock" for entry in run.iterdir()):
        raise RunError(f"{run} is not empty and is not a run of stsmm; choose another --out")
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{run} is in use by another stsmm command; wait for it or choose another --out") from None
        if config.exists():
            same = (run / INPUTS_FILE).exists() and (run / INPUTS_FILE).read_text(encoding="utf-8") == wanted
            if config.read_text(encoding="utf-8") != text or not same:
                raise RunError(
                    f"{run} holds a run of another experiment or on other data; choose another --out, "
                    "or remove the folder to start again"
                )
        else:
            write_text_atomically(run / INPUTS_FILE, wanted)
            write_text_atomically(run / VERSIONS_FILE, json.dumps(software_versions(), indent=2))
            write_text_atomically(config, text)
        yield


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


def describe_inputs(mode: str, cohorts: Sequence[Cohort]) -> dict[str, Any]:
    """What a run was made from, without a path: mode, sites and their fingerprints."""
    return {
        "mode": mode,
        "cohorts": [{"site": cohort.manifest.site, "fingerprint": cohort_fingerprint(cohort)} for cohort in cohorts],
    }
