"""What of a run may be shown to others: everything outside the folders that hold patients."""

import pandas as pd
import pytest
from clinical_cohorts import write_clinical_cohorts
from rich.console import Console

from simulation.simulate import simulate_run

PATIENTS_FOLDERS = {"sites", "cache"}
"""Named so in docs/architecture.md."""
CONFIG = """
seed = 5
data.modalities = ["clinical"]
training = { epochs = 2, batch_size = 16, risk_window = 32 }
blending.interval = 1
evaluation = { bootstrap_replicates = 100, scheme = "cv", folds = 2 }
"""
NETWORK = CONFIG + 'blending.scope = "site"\n'
COX = CONFIG + 'model.kind = "cox"\n'


@pytest.mark.parametrize(
    ("config", "files"),
    [
        (NETWORK, {"history.csv", "blending_sites.csv", "checkpoints/fold-1.pt", "checkpoints/fold-1.json"}),
        (COX, {"cox.json"}),
    ],
    ids=["network", "cox"],
)
def test_no_file_outside_the_patients_folders_names_a_patient_or_a_path(config, files, simulated_in_process, tmp_path):
    cohorts = write_clinical_cohorts(tmp_path / "cohorts", (40, 40))
    (tmp_path / "config.toml").write_text(config)
    run = tmp_path / "run"
    simulate_run(Console(quiet=True), tmp_path / "config.toml", [cohorts], run, partition=None, cache=None)
    tables = [pd.read_csv(table, dtype=str) for table in sorted(cohorts.glob("*/clinical.csv"))]
    names = [str(tmp_path), *(patient for table in tables for patient in table["patient_id"])]
    assert len(names) == 81
    shown = {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.relative_to(run).parts[0] not in PATIENTS_FOLDERS
    }
    assert {"config.toml", "inputs.json", "versions.json", "metrics.json", "report.html"} | files <= set(shown)
    for file, content in shown.items():
        assert not [name for name in names if name.encode() in content], file


def test_files_of_a_sites_folder_are_for_its_own_user(simulated_in_process, tmp_path):
    cohorts = write_clinical_cohorts(tmp_path / "cohorts", (40,))
    (tmp_path / "config.toml").write_text(NETWORK)
    run = tmp_path / "run"
    simulate_run(Console(quiet=True), tmp_path / "config.toml", [cohorts], run, partition=None, cache=None)
    files = {path.name: path for path in (run / "sites").rglob("*") if path.is_file()}
    assert {"predictions-0.csv", "outputs-0.npz", "centres.csv", "0.toml"} <= set(files)
    assert not [name for name, path in files.items() if path.stat().st_mode & 0o077]
