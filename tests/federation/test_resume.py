"""A run that was killed and started again ends with the same numbers as one that was not."""

import json
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from stsmm_core import protocol
from stsmm_core.config import to_toml


def results(run):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics.pop("wall_s")
    metrics.pop("oracle")
    weights = torch.load(run / "checkpoints" / "fold-0.pt", weights_only=True)["selected"]
    return metrics, pd.read_csv(run / "history.csv"), weights


def assert_same(run, other):
    metrics, history, weights = results(run)
    other_metrics, other_history, other_weights = results(other)
    assert metrics == other_metrics
    pd.testing.assert_frame_equal(history, other_history, check_exact=True)
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


class Killed(BaseException):
    """Ends the server as a kill would: nothing catches it."""


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_federated_run_resumes(experiment, cohorts, federate, tmp_path, stage):
    """The crash comes when two of three sites have already done the round: they must do it again from before."""

    def deliver(site, message, answer):
        round_number = message.content.config_records[protocol.CONFIG].get(protocol.ROUND)
        if site == 2 and message.metadata.message_type == stage and round_number == 3:
            raise Killed
        return answer()

    federate(experiment, [cohorts], tmp_path / "whole")
    with pytest.raises(Killed):
        federate(experiment, [cohorts], tmp_path / "broken", deliver=deliver)
    assert not (tmp_path / "broken" / "metrics.json").exists()
    federate(experiment, [cohorts], tmp_path / "broken")
    assert_same(tmp_path / "broken", tmp_path / "whole")


def test_a_killed_training_resumes(experiment, cohorts, cache, tmp_path):
    config = tmp_path / "experiment.toml"
    longer = experiment.model_copy(update={"training": experiment.training.model_copy(update={"epochs": 8})})
    config.write_text(to_toml(longer))

    def command(out):
        entry = "from stsmm_core.cli import main; main()"
        options = ["--cohort", str(cohorts / "site_1"), "--out", out, "--cache", str(cache)]
        return [sys.executable, "-c", entry, "train", str(config), *options]

    subprocess.run(command(str(tmp_path / "whole")), check=True, capture_output=True)
    broken = tmp_path / "broken"
    kills = 0
    for wanted in (1, 4):
        process = subprocess.Popen(command(str(broken)), stdout=subprocess.DEVNULL)
        checkpoint = broken / "checkpoints" / "fold-0.pt"
        while process.poll() is None:
            if checkpoint.exists() and torch.load(checkpoint, weights_only=True)["round"] >= wanted:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            time.sleep(0.01)
    assert kills == 2
    assert not (broken / "metrics.json").exists()
    assert (broken / "state").exists()
    subprocess.run(command(str(broken)), check=True, capture_output=True)
    assert_same(broken, tmp_path / "whole")
    # What only an unfinished run needs is most of its folder.
    assert not (broken / "state").exists()
    assert [path.name for path in (broken / "checkpoints").glob("*.pt")] == ["fold-0.pt"]


def test_a_run_folder_of_another_experiment_is_refused(experiment, cohorts, cache, tmp_path):
    from rich.console import Console

    from stsmm_core.errors import RunError
    from stsmm_core.training.train import train_run

    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    quick = experiment.model_copy(update={"training": experiment.training.model_copy(update={"epochs": 2}), "seed": 1})
    first.write_text(to_toml(quick))
    second.write_text(to_toml(quick.model_copy(update={"seed": 2})))
    out = tmp_path / "run"
    train_run(Console(quiet=True), first, [cohorts / "site_3"], out, cache=cache)
    before = (out / "metrics.json").read_text()
    with pytest.raises(RunError, match=r"holds a run (with another configuration|on other data)"):
        train_run(Console(quiet=True), second, [cohorts / "site_3"], out, cache=cache)
    with pytest.raises(RunError, match=r"holds a run (with another configuration|on other data)"):
        train_run(Console(quiet=True), first, [cohorts / "site_2"], out, cache=cache)
    assert (out / "metrics.json").read_text() == before
