"""A consortium of real processes on this machine, all by the commands that people type."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from stsmm_core.training.centre import open_salt

COMMAND = [sys.executable, "-c", "from stsmm_core.cli import main; main()"]


EXPERIMENT = """
seed = 0
[imaging]
shape = [16, 16, 16]
margin_mm = 5.0
steps = ["resampling", "zscore", "masking"]
[model]
image_encoder = "small_densenet"
norm = "batch"
[training]
epochs = {rounds}
batch_size = 16
risk_window = 16
learning_rate = 0.01
[blending]
method = "robust"
interval = 1
[evaluation]
bootstrap_replicates = 100
[federation]
min_sites = 2
timeout_s = 300
"""


def stsmm(
    *arguments: str | Path, code: int = 0, timeout: float = 300.0, environment: Mapping[str, str] = os.environ
) -> str:
    """What a command printed on either channel, which must end with the exit code."""
    result = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, env=dict(environment)
    )
    said = result.stdout + result.stderr
    assert result.returncode == code, f"stsmm {' '.join(map(str, arguments))} ended with {result.returncode}:\n{said}"
    assert "Traceback" not in said, said
    return said


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], object], *, seconds: float, what: str, every: float = 1.0) -> float:
    """Wait for something; how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() < began + seconds, f"after {seconds:.0f} s still not: {what}"
        time.sleep(every)
    return time.monotonic() - began


@dataclass
class Program:
    """A command that runs in the background."""

    process: subprocess.Popen[bytes]
    output: Path

    def said(self) -> str:
        """What it printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def family(self) -> list[psutil.Process]:
        """The process and all that it started."""
        try:
            own = psutil.Process(self.process.pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """As when the power fails: no process of it lives on."""
        for each in self.family():
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()

    def end(self) -> None:
        """Ask it to end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass
class Consortium:
    """A provisioned consortium whose sites have cohorts."""

    folder: Path
    port: int
    names: tuple[str, ...]
    app: Path
    stack: ExitStack
    programs: dict[str, Program] = field(default_factory=dict)

    @property
    def server(self) -> Path:
        """The server's kit."""
        return self.folder / "kits" / "server"

    def kit(self, site: str) -> Path:
        """A site's kit."""
        return self.folder / "kits" / "sites" / site

    def start(self, name: str, *command: str | Path, environment: Mapping[str, str] = os.environ) -> Program:
        """Start a command that goes on in the background."""
        output = self.folder / f"{name}.out"
        with output.open("ab") as file:
            process = subprocess.Popen(
                [*COMMAND, *map(str, command)],
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                env=dict(environment),
                start_new_session=True,
            )
        program = Program(process, output)
        self.programs[name] = program
        self.stack.callback(program.kill)
        return program

    def start_server(self) -> Program:
        """Start the server and wait until it is up."""
        program = self.start("server", "server", "start", self.server)
        wait_until(lambda: self.status()["up"] or program.process.poll() is not None, seconds=90, what="server up")
        assert program.process.poll() is None, program.said()
        return program

    def start_site(self, site: str) -> Program:
        """Start a site's node, without waiting for it."""
        return self.start(site, "site", "start", self.kit(site))

    def wait_online(self, *sites: str, seconds: float = 120) -> float:
        """Wait until the server sees the sites."""
        return wait_until(
            lambda: all(self.status()["sites"][site]["state"] == "online" for site in sites),
            seconds=seconds,
            what=f"{sites} online",
        )

    def status(self) -> dict:
        """What the server's status command says."""
        return json.loads(stsmm("server", "status", self.server, "--json"))

    def run_state(self, run: str) -> dict:
        """State, fold and round of a run."""
        return self.status()["runs"][run]

    def wait_for_round(self, run: str, number: int, *, seconds: float = 300) -> None:
        """Wait until a run has done a round."""
        path = self.server / "runs" / run / "progress.json"
        wait_until(
            lambda: path.exists() and json.loads(path.read_text(encoding="utf-8"))["round"] >= number,
            seconds=seconds,
            what=f"round {number} of {run}",
        )

    def wait_finished(self, run: str, *, seconds: float = 600) -> dict:
        """Wait until a run ends; its metrics."""
        metrics = self.server / "runs" / run / "metrics.json"
        failure = self.server / "runs" / run / "failure.txt"
        wait_until(lambda: metrics.exists() or failure.exists(), seconds=seconds, what=f"{run} finished")
        assert metrics.exists(), failure.read_text(encoding="utf-8")
        return json.loads(metrics.read_text(encoding="utf-8"))

    def audit(self, run: str) -> list[dict]:
        """What the server noted of a run."""
        path = self.server / "runs" / run / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def consortium(
    folder: Path, cohorts: Path, *, patients_cell: int = 1, salts: Mapping[str, int] | None = None
) -> Iterator[Consortium]:
    """Provision a server and a site a cohort of the folder, and let every site approve the packed app.

    Args:
        patients_cell: min_cell_size of every site.
        salts: the sites' secret numbers, to compare with a simulation; each makes its own if not given.
    """
    folder.mkdir(parents=True)
    names = tuple(sorted(path.name for path in cohorts.iterdir() if (path / "cohort.toml").exists()))
    port, health = free_port(), free_port()
    sites = "".join(f'[[site]]\nname = "{name}"\n' for name in names)
    project = folder / "consortium.toml"
    project.write_text(
        f'name = "loopback"\n[server]\nhost = "localhost"\nport = {port}\nhealth_port = {health}\n'
        f"[policy]\nmin_cell_size = {patients_cell}\n{sites}",
        encoding="utf-8",
    )
    stsmm("server", "provision", project, folder / "kits")
    said = stsmm("server", "pack", folder / "kits" / "server")
    app = Path(re.sub(r"\s", "", said.splitlines()[-1]))
    with ExitStack() as stack:
        made = Consortium(folder, port, names, app, stack)
        for name in names:
            fill_in(made.kit(name), cohorts / name)
            if salts:
                state = made.kit(name) / "state"
                state.mkdir(mode=0o700, exist_ok=True)
                (state / "salt").write_text(str(salts[name]), encoding="utf-8")
                (state / "salt").chmod(0o600)
            stsmm("site", "approve", made.kit(name), app, "--yes")
        yield made


def fill_in(kit: Path, cohort: Path) -> None:
    """Edit site.toml as the hospital does."""
    path = kit / "site.toml"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r'^cohort = ""', f'cohort = "{cohort}"', text, flags=re.M)
    text = re.sub(r'^data_folder = ""', f'data_folder = "{cohort.parent}"', text, flags=re.M)
    path.write_text(text, encoding="utf-8")


@contextmanager
def online(folder: Path, cohorts: Path) -> Iterator[Consortium]:
    """The same with server and sites running, drawing what a simulation draws."""
    names = sorted(path.name for path in cohorts.iterdir())
    with consortium(folder, cohorts, salts=dict.fromkeys(names, open_salt(0))) as made:
        made.start_server()
        for site in made.names:
            made.start_site(site)
        made.wait_online(*made.names)
        yield made


def experiment(folder: Path, rounds: int) -> Path:
    """An experiment of a small network on images and clinical variables."""
    path = folder / f"rounds{rounds}.toml"
    path.write_text(EXPERIMENT.format(rounds=rounds))
    return path


def assert_same_numbers(run: Path, other: Path) -> None:
    """Two runs selected the same rounds of the same course with the same weights, to the precision of single floats."""
    metrics, others = (json.loads((each / "metrics.json").read_text()) for each in (run, other))
    assert metrics["selected_rounds"] == others["selected_rounds"]
    for head, endpoints in metrics["heads"].items():
        for endpoint, figures in endpoints.items():
            assert figures["harrell_c"] == pytest.approx(others["heads"][head][endpoint]["harrell_c"], abs=1e-9)
    rows, other_rows = (list(csv.reader((each / "history.csv").open())) for each in (run, other))
    assert rows[0] == other_rows[0]
    values, other_values = (
        np.array([[float(cell or "nan") for cell in row if not cell[:1].isalpha()] for row in table[1:]])
        for table in (rows, other_rows)
    )
    np.testing.assert_allclose(values, other_values, rtol=1e-4, atol=1e-6)
    weights, other_weights = (
        torch.load(each / "checkpoints" / "fold-0.pt", weights_only=True)["weights"] for each in (run, other)
    )
    assert weights.keys() == other_weights.keys()
    for name, value in weights.items():
        np.testing.assert_allclose(value, other_weights[name], rtol=1e-3, atol=1e-5, err_msg=name)
