"""The path of pretrained weights stays with whoever runs the experiment."""

import json
from contextlib import contextmanager

import pytest
from rich.console import Console

from simulation import simulate
from stsmm_core import protocol
from stsmm_core.config import Experiment, Model, parse_experiment
from stsmm_core.errors import RunError
from stsmm_core.run_folder import METRICS_FILE, open_run


def test_the_sites_get_the_experiment_without_it(tmp_path, monkeypatch):
    submitted = []

    class Recorder:
        def submit(self, run_config):
            submitted.append(run_config)
            (tmp_path / METRICS_FILE).write_text("{}")

    @contextmanager
    def recorded(*arguments, **settings):
        yield Recorder()

    monkeypatch.setattr(simulate, "flower_runtime", recorded)
    monkeypatch.setattr(simulate, "parallel_centres", lambda centres: (1, 1))
    experiment = Experiment(model=Model(pretrained="/home/someone/weights.pth"))
    simulate._federate(Console(quiet=True), experiment, tmp_path, [])
    (sent,) = submitted
    assert "someone" not in json.dumps(sent)
    assert parse_experiment(sent[protocol.EXPERIMENT], source="sent") == experiment.with_pretrained("")


def test_a_run_does_not_go_on_from_other_weights(tmp_path):
    weights = tmp_path / "weights.pth"
    experiment = Experiment(model=Model(pretrained=str(weights)))
    with pytest.raises(RunError, match=r"weights\.pth: cannot be read"), open_run(tmp_path / "run", experiment, {}):
        pass
    weights.write_bytes(b"first")
    for _ in range(2):
        with open_run(tmp_path / "run", experiment, {}):
            pass
    assert str(tmp_path) not in (tmp_path / "run" / "inputs.json").read_text()
    weights.write_bytes(b"second")
    with pytest.raises(RunError, match="on other data"), open_run(tmp_path / "run", experiment, {}):
        pass
