"""What TensorBoard shows of a run is its history, also of one that still goes on."""

import csv
import threading

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from stsmm_core.cli import build_app
from stsmm_core.errors import RunError
from stsmm_core.report import tensorboard
from stsmm_core.report.tensorboard import write_tensorboard
from stsmm_core.run_folder import CONFIG_FILE, HISTORY_COLUMNS, HISTORY_FILE, METRICS_FILE


def write_rounds(run, rounds, folds=1):
    with (run / HISTORY_FILE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HISTORY_COLUMNS)
        for fold in range(folds):
            for number in range(rounds + 1):
                for head in ("fusion", "clinical"):
                    writer.writerow([fold, number, head, "" if number % 2 else 3.0, 2.0 - number / 10 - fold, 0.5])


@pytest.fixture
def run(tmp_path):
    (tmp_path / CONFIG_FILE).write_text("")
    return tmp_path


def scalars(run, fold, name):
    events = EventAccumulator(str(run / "tensorboard" / f"fold-{fold}"))
    events.Reload()
    return [(event.step, round(event.value, 5)) for event in events.Scalars(name)]


def test_every_value_of_the_history_is_there(run):
    write_rounds(run, 3, folds=2)
    result = CliRunner().invoke(build_app(), ["tensorboard", str(run)])
    assert result.exit_code == 0, result.output
    assert "--logdir" in result.output
    for fold in (0, 1):
        expected = [(number, round(2.0 - number / 10 - fold, 5)) for number in range(4)]
        assert scalars(run, fold, "validation loss/fusion") == expected
        assert scalars(run, fold, "training loss/clinical") == [(0, 3.0), (2, 3.0)]
        assert len(scalars(run, fold, "blending weight/clinical")) == 4


def test_a_run_that_goes_on_is_followed_to_its_end(run, monkeypatch):
    monkeypatch.setattr(tensorboard, "WATCH_S", 0.05)
    follower = threading.Thread(target=write_tensorboard, args=(run,), kwargs={"watch": True})
    follower.start()
    for rounds in (1, 4):
        write_rounds(run, rounds)
    (run / METRICS_FILE).write_text("{}")
    follower.join(timeout=30)
    assert not follower.is_alive()
    assert [number for number, _ in scalars(run, 0, "validation loss/fusion")] == [0, 1, 2, 3, 4]


def test_what_is_no_run_or_has_no_history_is_said(run, tmp_path_factory):
    with pytest.raises(RunError, match="no round in its history"):
        write_tensorboard(run, watch=False)
    with pytest.raises(RunError, match="not a run folder"):
        write_tensorboard(tmp_path_factory.mktemp("empty"), watch=False)
    (run / HISTORY_FILE).write_text("a,b\n1,2\n")
    with pytest.raises(RunError, match="not the history"):
        write_tensorboard(run, watch=False)
    assert not (run / "tensorboard").exists()
