"""Names, states and conditions of runs, without a server."""

import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from server.deploy import control, runs
from server.deploy.control import FlowerRun, ServerUnreachableError
from server.deploy.folder import ServerFolder
from server.deploy.run_state import run_state, submitted_runs
from server.deploy.status import read_status, show_status
from server.deploy.superlink import server_environment
from stsmm_core.config import parse_experiment, to_toml
from stsmm_core.errors import RunError


@pytest.fixture
def folder(kits):
    folder = ServerFolder(kits / "server")
    folder.state.mkdir(exist_ok=True)
    folder.nodes.write_text(json.dumps({"leiden": 1, "milan": 2}))
    return folder


@pytest.fixture
def submitted(monkeypatch, folder):
    """Runs that Flower was asked to start."""
    calls = []

    def submit(kit, app, run_config):
        calls.append((app, dict(run_config)))
        return 40 + len(calls)

    monkeypatch.setattr(runs, "submit", submit)
    monkeypatch.setattr(runs, "build_app", lambda: b"an app")
    app = folder.apps / f"{runs.digest(b'an app')}.fab"
    app.parent.mkdir(exist_ok=True)
    app.write_bytes(b"an app")
    return calls


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "My Study.toml"
    path.write_text(to_toml(parse_experiment("seed = 3\nfederation.min_sites = 2", source="test")))
    return path


def begin(folder, config, name=None, sites=None):
    runs.start_run(Console(quiet=True), folder.kit, config, name=name, sites=sites, follow=False)


def test_a_run_is_named_and_sent_without_a_path(folder, config, submitted):
    begin(folder, config)
    begin(folder, config)
    assert sorted(path.name for path in folder.runs.iterdir()) == ["my-study-1", "my-study-2"]
    app, sent = submitted[0]
    assert app == runs.digest(b"an app")
    assert (sent["run"], sent["sites"]) == ("my-study-1", 2)
    assert str(folder.kit) not in json.dumps(sent)
    assert str(config.parent) not in json.dumps(sent)
    inputs = json.loads((folder.runs / "my-study-1" / "inputs.json").read_text())
    assert inputs == {"mode": "federated", "sites": ["leiden", "milan"], "app": app}


@pytest.mark.parametrize(("name", "sites"), [("Upper", None), ("../x", None), ("a b", None), (None, 1), (None, 3)])
def test_what_cannot_start_is_refused_before_anything_is_written(folder, config, submitted, name, sites):
    with pytest.raises(RunError):
        begin(folder, config, name, sites)
    assert submitted == []
    assert not list(folder.runs.glob("*"))


def test_code_that_is_not_packed_is_refused(folder, config, submitted, monkeypatch):
    monkeypatch.setattr(runs, "build_app", lambda: b"newer code")
    with pytest.raises(RunError, match="stsmm server pack"):
        begin(folder, config)
    assert submitted == []


def test_a_name_is_used_once(folder, config, submitted):
    begin(folder, config, "first")
    with pytest.raises(RunError, match="server resume"):
        begin(folder, config, "first")


def test_resume_takes_the_app_and_the_sites_of_the_start(folder, config, submitted, monkeypatch):
    begin(folder, config, "first")
    folder.nodes.write_text(json.dumps({"leiden": 1, "milan": 2, "oslo": 3}))
    monkeypatch.setattr(runs, "build_app", lambda: b"newer code")
    monkeypatch.setattr(runs, "list_runs", lambda kit: [FlowerRun(41, "running")])
    with pytest.raises(RunError, match="still going on"):
        runs.resume_run(Console(quiet=True), folder.kit, "first", follow=False)
    monkeypatch.setattr(runs, "list_runs", lambda kit: [FlowerRun(41, "finished")])
    (folder.runs / "first" / "failure.txt").write_text("a reason")
    runs.resume_run(Console(quiet=True), folder.kit, "first", follow=False)
    assert submitted[0] == submitted[1]
    assert not (folder.runs / "first" / "failure.txt").exists()


@pytest.mark.parametrize(
    ("files", "known", "state"),
    [
        ([], None, "interrupted"),
        ([], [], "interrupted"),
        ([], [FlowerRun(41, "running")], "running"),
        ([], [FlowerRun(41, "finished")], "interrupted"),
        (["failure.txt"], [FlowerRun(41, "finished")], "failed"),
        (["metrics.json"], None, "finished"),
    ],
)
def test_states(folder, config, submitted, files, known, state):
    begin(folder, config, "first")
    run = folder.runs / "first"
    for name in files:
        (run / name).write_text("a reason")
    assert run_state(run, known)[0] == state


def test_a_run_whose_start_was_cut_short_can_go_on(folder, config, submitted, monkeypatch):
    """Killed before Flower was asked: the folder says what the run is, and not yet its number."""
    begin(folder, config, "first")
    (folder.runs / "first" / "submission.json").unlink()
    assert run_state(folder.runs / "first", [])[0] == "interrupted"
    monkeypatch.setattr(runs, "list_runs", lambda kit: [])
    runs.resume_run(Console(quiet=True), folder.kit, "first", follow=False)
    assert submitted[1] == submitted[0]


def test_a_stopped_run_is_called_stopped_until_it_goes_on(folder, config, submitted, monkeypatch):
    begin(folder, config, "first")
    stopped = []
    monkeypatch.setattr(runs, "list_runs", lambda kit: [FlowerRun(41, "running")])
    monkeypatch.setattr(runs, "stop_flower_run", lambda kit, number: stopped.append(number))
    runs.stop_run(folder.kit, "first")
    (folder.runs / "first" / "failure.txt").write_text("what its end looked like to the app")
    assert stopped == [41]
    assert run_state(folder.runs / "first", [FlowerRun(41, "finished")])[0] == "stopped"
    assert run_state(folder.runs / "first", None)[0] == "stopped"
    monkeypatch.setattr(runs, "list_runs", lambda kit: [FlowerRun(41, "finished")])
    runs.resume_run(Console(quiet=True), folder.kit, "first", follow=False)
    assert run_state(folder.runs / "first", [FlowerRun(42, "running")])[0] == "running"


@pytest.mark.slow
def test_a_stopped_runs_process_is_gone_before_the_run_can_go_on(folder, config, submitted, monkeypatch):
    begin(folder, config, "first")
    monkeypatch.setattr(runs, "list_runs", lambda kit: [FlowerRun(41, "running")])
    monkeypatch.setattr(runs, "stop_flower_run", lambda kit, number: None)
    monkeypatch.setattr(runs, "STOP_S", 0.5)
    environment = server_environment(folder, os.environ)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (folder.runs / "first" / "server.pid").write_text(str(process.pid))
        runs.stop_run(folder.kit, "first")
        process.wait(timeout=5)
        begin(folder, config, "second")
        (folder.runs / "second" / "server.pid").write_text(str(stranger.pid))
        monkeypatch.setattr(runs, "list_runs", lambda kit: [FlowerRun(42, "running")])
        runs.stop_run(folder.kit, "second")
        assert stranger.poll() is None  # a number that another program has by now
    finally:
        process.kill()
        stranger.kill()


def test_only_runs_of_the_server_before_are_ended(folder, config, submitted, monkeypatch):
    begin(folder, config, "first")
    assert submitted_runs(folder) == {41}
    known = [FlowerRun(41, "running"), FlowerRun(42, "running"), FlowerRun(40, "finished")]
    monkeypatch.setattr(control, "list_runs", lambda kit: known)
    stopped = []
    monkeypatch.setattr(control, "stop", lambda kit, number: stopped.append(number))
    assert control.end_runs(folder.kit, {40, 41}) == [41] == stopped

    def ended_meanwhile(kit, number):
        raise ServerUnreachableError("the server refused: the run is finished")

    monkeypatch.setattr(control, "stop", ended_meanwhile)
    assert control.end_runs(folder.kit, {41}) == []


def test_status_without_a_server(folder, config, submitted):
    begin(folder, config, "first")
    status = read_status(folder.kit)
    assert not status["up"]
    assert list(status["sites"]) == ["leiden", "milan", "paris"]
    assert status["sites"]["paris"]["state"] == "not connected yet"  # its key came after the server's last start
    assert status["runs"]["first"]["state"] == "interrupted"
    console = Console(record=True, width=160)
    console.print(show_status(json.loads(json.dumps(status))))
    assert "not running" in console.export_text()


def test_the_server_gets_no_more_of_the_environment_than_it_needs(folder):
    outer = {"HOME": "/h", "PATH": "/bin", "HTTPS_PROXY": "http://p", "PASSWORD": "x", "FLWR_SUPERGRID_API_URL": "y"}
    inner = server_environment(folder, outer)
    assert not {"HTTPS_PROXY", "PASSWORD", "FLWR_SUPERGRID_API_URL"} & set(inner)
    assert inner["FLWR_TELEMETRY_ENABLED"] == "0"
    assert inner["STSMM_NODES"] == str(folder.nodes)
