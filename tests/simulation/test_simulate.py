"""stsmm simulate on Flower's own runtime."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from simulation.compare import compare_run
from simulation.guard import TOKEN_VARIABLE, find_family
from simulation.simulate import simulate_run
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.errors import RunError

CONFIG = """
imaging.shape = [16, 16, 16]
model = { image_encoder = "small_densenet", norm = "group" }
training = { epochs = 2, batch_size = 32, risk_window = 32 }
blending.interval = 1
"""


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("simulate")
    write_synthetic_cohorts(folder / "cohorts", sites=2, patients=40, seed=1)
    (folder / "experiment.toml").write_text(CONFIG)
    return folder


def command(setting: Path, out: str, *more: str) -> list[str]:
    entry = "from stsmm_core.cli import main; main()"
    arguments = [str(setting / "experiment.toml"), "--cohort", str(setting / "cohorts"), "--out", str(setting / out)]
    return [sys.executable, "-c", entry, "simulate", *arguments, "--cache", str(setting / "cache"), *more]


def family_of(run: Path) -> list[psutil.Process]:
    """Processes that still work for the run: found by the run folder that they all inherit, or by a parent."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("STSMM_RUN") == str(run.resolve()):
                found |= {process, *process.children(recursive=True)}
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def wait_for(condition, seconds: float):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return result


@pytest.fixture(scope="module")
def whole(setting) -> Path:
    """A run that nothing disturbed."""
    result = subprocess.run(command(setting, "whole"), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "report.html" in result.stdout
    return setting / "whole"


def metrics_of(run: Path) -> dict:
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["wall_s"]
    return metrics


@pytest.mark.slow
def test_two_centres_train_and_report(setting, whole):
    metrics = metrics_of(whole)
    assert metrics["mode"] == "federated"
    assert metrics["tested_sites"] == [cohort["site"] for cohort in metrics["cohorts"]] == ["site_1", "site_2"]
    assert set(metrics["oracle"]) == {"os", "dm"}
    assert family_of(whole) == []
    again = subprocess.run(command(setting, "whole"), capture_output=True, text=True, timeout=60)
    assert again.returncode == 0
    assert metrics_of(whole) == metrics


@pytest.mark.slow
def test_what_may_leave_a_run_names_no_patient_and_no_path(setting, whole):
    tables = [(setting / "cohorts" / site / "clinical.csv").read_text() for site in ("site_1", "site_2")]
    patients = [line.split(",")[0] for table in tables for line in table.splitlines()[1:]]
    assert len(patients) == 40
    for name in ("report.html", "metrics.json", "history.csv", "config.toml", "inputs.json", "flower.log"):
        text = (whole / name).read_text()
        assert str(setting / "cohorts") not in text
        assert not [patient for patient in patients if patient in text]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process_behind_and_goes_on(setting, whole, how):
    run = setting / f"run-{how.name}"
    process = subprocess.Popen(command(setting, run.name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: (run / "checkpoints" / "fold-0.pt").exists() or process.poll() is not None, 120)
    family = family_of(run)
    assert len(family) > 3
    process.send_signal(how)
    process.wait(timeout=60)
    wait_for(lambda: not [each for each in family if each.is_running() and each.status() != "zombie"], 60)
    assert family_of(run) == []
    again = subprocess.run(command(setting, run.name), capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert metrics_of(run) == metrics_of(whole)
    assert (run / "history.csv").read_text() == (whole / "history.csv").read_text()


@pytest.mark.slow
def test_a_failure_at_the_sites_ends_the_run_with_its_reason(setting):
    """Virtual sites are on this machine, so what they wrote in their own logs is shown."""
    diverging = CONFIG.replace("epochs = 2", "epochs = 2, learning_rate = 1e30")
    (setting / "diverging.toml").write_text(diverging)
    arguments = command(setting, "diverging")
    arguments[arguments.index(str(setting / "experiment.toml"))] = str(setting / "diverging.toml")
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "0 of 2 sites gave a usable reply" in result.stderr
    assert "site_1: " in result.stderr
    assert "lower training.learning_rate" in result.stderr
    assert family_of(setting / "diverging") == []


def test_the_family_is_found_by_its_token():
    environment = os.environ | {TOKEN_VARIABLE: "test-token"}
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
    try:
        assert [each.pid for each in find_family("test-token", spare=0)] == [child.pid]
        assert find_family("another", spare=0) == []
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("federation", "said"),
    [
        ('{ strategy = "krum", malicious_sites = 1 }', "needs 5 sites.*2 take part.*lower federation.malicious_sites"),
        ('{ strategy = "fedtrimmedavg", trim_fraction = 0.2 }', "needs 5 sites.*raise federation.trim_fraction"),
        ("{ min_sites = 3 }", "min_sites asks for 3 sites, 2 take part"),
    ],
)
@pytest.mark.parametrize("start", [simulate_run, partial(compare_run, leave_one_out=False)])
def test_a_federation_of_too_few_sites_is_refused_before_an_image_is_read(setting, tmp_path, start, federation, said):
    config, out = tmp_path / "experiment.toml", tmp_path / "run"
    config.write_text(f"{CONFIG}federation = {federation}\n")
    with pytest.raises(RunError, match=said):
        start(Console(quiet=True), config, [setting / "cohorts"], out, partition=None, cache=None)
    assert not out.exists()
