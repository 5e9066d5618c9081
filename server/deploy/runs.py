"""Runs of a consortium: start, watch, stop, go on."""

import hashlib
import json
import math
import time
from pathlib import Path

from rich.console import Console

from server.deploy.apps import build_app, digest, packed_app
from server.deploy.control import list_runs, registered, submit
from server.deploy.control import stop as stop_flower_run
from server.deploy.folder import ServerFolder
from server.deploy.processes import end_process
from server.deploy.run_state import FINISHED, RUNNING, SUBMISSION_FILE, read_progress, read_submission, run_state
from stsmm_core import protocol
from stsmm_core.config import Experiment, read_experiment, to_toml
from stsmm_core.errors import RunError
from stsmm_core.files import write_text_atomically
from stsmm_core.report.audit import left_out_sentences, read_audit
from stsmm_core.report.report import REPORT_FILE, write_report
from stsmm_core.run_folder import (
    CONFIG_FILE,
    FAILURE_FILE,
    INPUTS_FILE,
    METRICS_FILE,
    PROGRESS_FILE,
    SERVER_FILE,
    open_run,
)
from stsmm_core.training.progress import progress_bar
from stsmm_core.training.summary import print_results

POLL_S = 1.0
STOP_S = 10.0


def start_run(console: Console, kit: Path, config: Path, *, name: str | None, sites: int | None, follow: bool) -> None:
    """Start a run over the sites of a consortium.

    Args:
        sites: to wait for at the start; all that are registered if not given.

    Raises:
        StsmmError: when the experiment, the name or the app cannot be used, or the server does not accept the run.
    """
    folder = ServerFolder(kit)
    folder.settings()
    experiment = read_experiment(config)
    name = _checked_name(name) if name else _free_name(folder, config.stem)
    if (folder.runs / name).exists():
        raise RunError(f"there is a run {name} already; `stsmm server resume {kit} {name}` goes on with it")
    nodes = registered(folder)
    wanted = _sites_to_wait_for(experiment, nodes, sites)
    app = digest(build_app())
    packed_app(folder, app)
    inputs = {"mode": "federated", "sites": sorted(nodes), "app": app}
    with open_run(folder.runs / name, experiment, inputs):
        _submit(folder, name, experiment, app, wanted)
    console.print(f"Run {name} is started over {len(nodes)} sites.", highlight=False, markup=False)
    if follow:
        follow_run(console, kit, name)


def resume_run(console: Console, kit: Path, name: str, *, follow: bool) -> None:
    """Go on with a run from its last checkpoint, with the app and the sites that it began with.

    Raises:
        StsmmError: when there is nothing to go on with, or the server does not accept it.
    """
    folder = ServerFolder(kit)
    run = _run_folder(folder, name)
    state, _ = run_state(run, list_runs(kit))
    if state == FINISHED:
        raise RunError(f"run {name} is finished; `stsmm server results {kit} {name}` shows it")
    if state == RUNNING:
        raise RunError(f"run {name} is still going on; `stsmm server status {kit}` shows where it is")
    experiment = read_experiment(run / CONFIG_FILE)
    inputs = json.loads((run / INPUTS_FILE).read_text(encoding="utf-8"))
    with open_run(run, experiment, inputs):
        packed_app(folder, inputs["app"])
        _submit(folder, name, experiment, inputs["app"], read_submission(run)["sites"])
    console.print(f"Run {name} goes on.", highlight=False, markup=False)
    if follow:
        follow_run(console, kit, name)


def stop_run(kit: Path, name: str) -> None:
    """End a run; what it has reached is kept.

    Raises:
        StsmmError: when it is not going on.
    """
    folder = ServerFolder(kit)
    run = _run_folder(folder, name)
    if run_state(run, list_runs(kit))[0] != RUNNING:
        raise RunError(f"run {name} is not going on")
    submitted = read_submission(run)
    stop_flower_run(kit, submitted["flower_run"])
    # Flower ends the run's process at its next message: until then it could write into a run that is resumed.
    end_process(folder, run / SERVER_FILE, grace_s=STOP_S)
    write_text_atomically(run / SUBMISSION_FILE, json.dumps(submitted | {"stopped": True}))
    folder.note("run stopped", run=name)


def follow_run(console: Console, kit: Path, name: str) -> None:
    """Show the progress of a run until it ends, then its results.

    Raises:
        RunError: with the reason that ended it.
    """
    folder = ServerFolder(kit)
    run = _run_folder(folder, name)
    experiment = read_experiment(run / CONFIG_FILE)
    rounds = experiment.training.rounds
    try:
        with progress_bar(console, f"Run {name}", experiment.evaluation.runs * rounds) as bar:
            while (state := run_state(run, list_runs(kit)))[0] == RUNNING:
                done = read_progress(run)
                if done is not None:
                    best = math.inf if done["best"] is None else done["best"]
                    bar.show(done["fold"] * rounds + max(done["round"], 0), best)
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        console.print(
            f"The run goes on at the server. `stsmm server status {kit} --watch` shows it, "
            f"`stsmm server results {kit} {name}` gives its results, `stsmm server stop {kit} {name}` ends it.",
            soft_wrap=True,
        )
        return
    folder.note("run ended", run=name, state=state[0])
    if state[0] != FINISHED:
        raise RunError(f"run {name} is {state[0]}: {state[1]}; `stsmm server resume {kit} {name}` goes on with it")
    show_results(console, kit, name)


def show_results(console: Console, kit: Path, name: str) -> None:
    """Print a finished run's results and where its report is; writes the report where it is missing.

    Raises:
        RunError: when the run is not finished.
    """
    run = _run_folder(ServerFolder(kit), name)
    if not (run / METRICS_FILE).exists():
        raise RunError(f"run {name} has no results yet; `stsmm server status {kit}` shows where it is")
    metrics = json.loads((run / METRICS_FILE).read_text(encoding="utf-8"))
    report = run / REPORT_FILE
    print_results(console, metrics, report if report.exists() else write_report(run))
    for sentence in left_out_sentences(read_audit(run)):
        console.print(sentence, style="bold red", highlight=False, soft_wrap=True, markup=False)


def _submit(folder: ServerFolder, name: str, experiment: Experiment, app: str, sites: int) -> None:
    """Hand the run to Flower; the folder then says which of Flower's runs it is."""
    run = folder.runs / name
    for stale in (PROGRESS_FILE, FAILURE_FILE, SERVER_FILE):
        (run / stale).unlink(missing_ok=True)
    text = to_toml(experiment.with_pretrained(""))  # no path of this machine
    run_config: dict[str, str | int] = {protocol.EXPERIMENT: text, protocol.SITES: sites, protocol.RUN: name}
    write_text_atomically(run / SUBMISSION_FILE, json.dumps({"flower_run": 0, "sites": sites}))
    number = submit(folder.kit, app, run_config)
    write_text_atomically(run / SUBMISSION_FILE, json.dumps({"flower_run": number, "sites": sites}))
    config = hashlib.sha256(text.encode()).hexdigest()
    folder.note("run submitted", run=name, flower_run=number, app=app, config=config, sites=sites)


def _run_folder(folder: ServerFolder, name: str) -> Path:
    run = folder.runs / _checked_name(name)
    if not (run / CONFIG_FILE).exists():
        known = ", ".join(sorted(path.parent.name for path in folder.runs.glob(f"*/{CONFIG_FILE}"))) or "none"
        raise RunError(f"{folder.kit} has no run {name}; its runs: {known}")
    return run


def _checked_name(name: str) -> str:
    try:
        if name and protocol.run_name(name):
            return name
    except protocol.ProtocolError:
        pass
    raise RunError(f"'{name}' cannot name a run; take at most 64 lower-case letters, digits, - and _")


def _free_name(folder: ServerFolder, stem: str) -> str:
    """The experiment's name with the first number that is free."""
    base = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in stem.lower()
    )
    base = base.strip("-_")[:58] or "run"
    number = 1
    while (folder.runs / f"{base}-{number}").exists():
        number += 1
    return f"{base}-{number}"


def _sites_to_wait_for(experiment: Experiment, nodes: dict[str, int], sites: int | None) -> int:
    least = experiment.federation.min_sites
    wanted = len(nodes) if sites is None else sites
    if not least <= wanted <= len(nodes) or wanted < 1:
        raise RunError(
            f"the run needs {max(least, wanted, 1)} sites (federation.min_sites = {least}), {len(nodes)} are "
            "registered; `stsmm server start` registers those with a key in nodes/"
        )
    return wanted
