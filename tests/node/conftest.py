"""A kit without its signed parts, and a cohort for it."""

from pathlib import Path

import pytest
from flwr.supercore.task_identity import TaskIdentity
from gate_server import write_site

from stsmm_core.cohort.synthetic import write_synthetic_cohorts


@pytest.fixture(autouse=True)
def _identity(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A data folder with a cohort of 60 patients."""
    out = tmp_path_factory.mktemp("data")
    write_synthetic_cohorts(out, sites=1, patients=60, seed=3)
    return out


@pytest.fixture
def kit(tmp_path, data) -> Path:
    folder = tmp_path / "kit"
    folder.mkdir()
    (folder / "kit.toml").write_text(
        'consortium = "c"\nsite = "leiden"\nstsmm = "0.1.0"\nca_sha256 = "00"\n'
        '[server]\nhost = "localhost"\nport = 9092\nhealth_port = 9093\n'
    )
    (cohort,) = [each.parent for each in data.rglob("cohort.toml")]
    write_site(folder, f'cohort = "{cohort}"\ndata_folder = "{data}"\n')
    return folder
