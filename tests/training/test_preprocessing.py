"""stsmm preprocess: the cache is full afterwards, and what cannot be done is said."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from rich.console import Console
from typer.testing import CliRunner

from stsmm_core.cli import build_app
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.config import read_experiment
from stsmm_core.errors import CohortError, ConfigError, RunError
from stsmm_core.imaging.batch import for_each
from stsmm_core.report.image_check import check_images
from stsmm_core.training.inputs import notes_on_channels
from stsmm_core.training.preprocessing import preprocess_cohorts
from stsmm_core.training.site_data import load_site_data

CONFIG = """
[model]
image_encoder = "small_densenet"

[imaging]
shape = [16, 16, 16]
steps = ["resampling", "zscore", "masking"]
"""


@pytest.fixture
def cohorts(tmp_path):
    write_synthetic_cohorts(tmp_path / "cohorts", sites=2, patients=8, seed=0)
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path / "cohorts"


def run(cohorts, *options):
    root = cohorts.parent
    arguments = ["preprocess", str(cohorts), "--config", str(root / "config.toml"), "--cache", str(root / "cache")]
    result = CliRunner().invoke(build_app(), [*arguments, "--workers", "1", *options])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def with_images(cohorts):
    loaded = [load_cohort(cohorts / site) for site in ("site_1", "site_2")]
    return [(cohort, patient) for cohort in loaded for patient in cohort.patients if cohort.has_image(patient)]


def test_training_finds_every_tensor(cohorts, monkeypatch):
    number = len(with_images(cohorts))
    output = run(cohorts, "--workers", "2")
    assert f"{number} to do" in output
    assert len(list((cohorts.parent / "cache").iterdir())) == number

    def recompute(*arguments):
        raise AssertionError("this tensor should have come from the cache")

    monkeypatch.setattr("stsmm_core.imaging.cache.run_steps", recompute)
    experiment = read_experiment(cohorts.parent / "config.toml")
    data = load_site_data(load_cohort(cohorts / "site_1"), experiment, cache=cohorts.parent / "cache")
    assert np.abs(data.images.numpy()).sum() > 0
    assert "to do" not in run(cohorts)


def test_dry_run_writes_nothing(cohorts):
    assert "MiB of disk" in run(cohorts, "--dry-run")
    assert not (cohorts.parent / "cache").exists()


def test_force_makes_them_anew(cohorts):
    run(cohorts)
    before = {path.name: path.stat().st_mtime_ns for path in (cohorts.parent / "cache").iterdir()}
    run(cohorts, "--force")
    after = {path.name: path.stat().st_mtime_ns for path in (cohorts.parent / "cache").iterdir()}
    assert before.keys() == after.keys()
    assert all(after[name] > before[name] for name in before)


def test_a_damaged_tensor_is_not_there(cohorts):
    run(cohorts)
    path = next((cohorts.parent / "cache").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert "1 to do" in run(cohorts)
    assert path.read_bytes() == whole


def test_dry_run_predicts_from_a_patient_who_can_be_done(cohorts):
    """And says who could not."""
    patients = with_images(cohorts)
    patients.sort(key=lambda pair: sum(pair[0].channel_path(pair[1], name).stat().st_size for name in ("t1", "t2")))
    cohort, median = patients[len(patients) // 2]
    cohort.mask_path(median).write_bytes(b"")
    console = Console(file=io.StringIO())
    with pytest.raises(CohortError, match=rf"^1 of {len(patients)} patients could not .*\n.*patient {median}: "):
        preprocess_cohorts(
            console,
            [cohorts],
            cohorts.parent / "config.toml",
            cohorts.parent / "cache",
            workers=1,
            force=False,
            dry_run=True,
        )
    assert f"{len(patients) - 1} to do: at most 1 MiB of disk" in console.file.getvalue()
    assert not (cohorts.parent / "cache").exists()


def test_dry_run_of_patients_none_of_whom_can_be_done(cohorts):
    number = len(with_images(cohorts))
    for cohort, patient in with_images(cohorts):
        cohort.mask_path(patient).write_bytes(b"")
    with pytest.raises(CohortError, match=rf"^{number} of {number} patients could not be preprocessed"):
        run(cohorts, "--dry-run")


def test_one_bad_patient_does_not_stop_the_others(cohorts):
    cohort, patient = with_images(cohorts)[-1]
    path = cohort.channel_path(patient, "t1")
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(image * 0, str(path))
    with pytest.raises(
        CohortError, match=rf"1 of \d+ patients could not .*\n  site_2, patient {patient}: .*same value"
    ):
        run(cohorts)
    assert len(list((cohorts.parent / "cache").iterdir())) == len(with_images(cohorts)) - 1


def test_channels_that_the_settings_do_not_name(cohorts):
    config = cohorts.parent / "config.toml"
    config.write_text(CONFIG.replace('steps = ["', 'steps = ["bias_correction", "'))
    assert "Note:" not in run(cohorts, "--dry-run")
    config.write_text(config.read_text() + "[imaging.bias_correction]\nchannels = ['t1', 'T2']\n")
    assert "Note: channel t2 looks like MRI" in run(cohorts, "--dry-run")
    experiment = read_experiment(config)
    loaded = [load_cohort(cohorts / site) for site in ("site_1", "site_2")]
    assert [note.split(",")[0] for note in notes_on_channels(loaded, experiment)] == ["channel t2 looks like MRI"]
    found = check_images(loaded[0].subset([]), experiment.imaging, pages=None, advance=lambda: None).findings
    assert [str(finding) for finding in found] == [f"cohort.toml: {notes_on_channels(loaded, experiment)[0]}"]
    config.write_text(
        CONFIG.replace('steps = ["', 'steps = ["registration", "') + "[imaging.registration]\nchannels = ['T2']\n"
    )
    with pytest.raises(ConfigError, match="channels names T2, but the cohort's channels are t1, t2"):
        run(cohorts)
    with pytest.raises(ConfigError, match="names T2"):
        load_site_data(loaded[0], read_experiment(config), cache=cohorts.parent / "cache")


def test_a_dry_run_never_predicts_nothing(cohorts):
    output = run(cohorts, "--dry-run")
    assert "at most 1 MiB of disk and 1 min on 1 process (" in output


def test_nobody_with_images(cohorts):
    for cohort, patient in with_images(cohorts):
        shutil.rmtree(cohort.root / "images" / patient)
    with pytest.raises(CohortError, match="no patient has images; name a cohort"):
        run(cohorts)


@pytest.mark.parametrize("place", ["site_1", "site_1/images/cache"])
def test_a_cache_inside_a_cohort_is_refused(cohorts, place):
    with pytest.raises(CohortError, match=r"--cache .*: lies inside the cohort folder .*site_1; name a folder outside"):
        run(cohorts, "--cache", str(cohorts / place))
    arguments = [str(cohorts.parent / "config.toml"), "--cohort", str(cohorts), "--out", str(cohorts.parent / "out")]
    for command in ("train", "simulate"):
        result = CliRunner().invoke(build_app(), [command, *arguments, "--cache", str(cohorts / place)])
        assert "lies inside the cohort folder" in str(result.exception)
    assert not (cohorts.parent / "out").exists()


def is_importing(command):
    """Whether a worker of the command has started, and is busy with imports."""
    workers = [child for child in command.children() if "spawn_main" in " ".join(child.cmdline())]
    return any(worker.cpu_times().user > 0.2 for worker in workers)


def test_an_interrupt_ends_the_workers_without_a_word(cohorts):
    """Ctrl-C reaches every process of the terminal, workers that have just started too."""
    arguments = ["preprocess", str(cohorts), "--cache", str(cohorts.parent / "cache"), "--workers", "2"]
    # Tests that run in the background ignore Ctrl-C, and so would what they start.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [sys.executable, "-c", heeding + "from stsmm_core.cli import main; main()", *arguments]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    while started.poll() is None and not is_importing(psutil.Process(started.pid)):
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130, said
    assert "Interrupted." in said
    assert "Traceback" not in said
    assert "goes on" not in said


def test_a_worker_that_is_ended_from_outside_is_no_traceback():
    end = partial(exec, "import os; os._exit(9)")
    with pytest.raises(RunError, match="out of memory"):
        list(for_each([{}], end, workers=1))


def test_workers_ignore_an_interrupt_where_the_command_does():
    """As in the background of a script: Ctrl-C there is meant for something else."""
    interrupted = partial(exec, "import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert list(for_each([{}], interrupted, workers=1)) == [None]
    finally:
        signal.signal(signal.SIGINT, before)
