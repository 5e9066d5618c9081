"""The command that keeps a hospital's node running, around a process that stands for the node's."""

import re
import signal
import subprocess
import sys

import psutil
import pytest
from loopback import fill_in, wait_until
from typer.testing import CliRunner

from client.cli import app
from client.node.ledger import Ledger
from client.node.node import stop
from stsmm_core.errors import RunError

HANGS = "import time; time.sleep(600)"
ENDS = "pass"


@pytest.fixture
def kit(kits, tmp_path):
    (tmp_path / "cohort").mkdir()
    fill_in(kits / "sites" / "leiden", tmp_path / "cohort")
    return kits / "sites" / "leiden"


@pytest.fixture
def keep_running(kit):
    """Starts the command with a node that does as told and is given up after a second without contact."""
    started = []

    def start(node: str) -> subprocess.Popen[str]:
        code = (
            "import sys; from pathlib import Path; from client.node import node\n"
            f"node._START, node.LONGEST_START_S, node.SHORTEST_WAIT_S = {node!r}, 1.0, 0.1\n"
            "node.start(Path(sys.argv[1]))"
        )
        command = [sys.executable, "-c", code, str(kit)]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for program in started:
        for child in psutil.Process(program.pid).children() if program.poll() is None else []:
            child.kill()
        program.kill()
        program.wait()


def other_process(kit, known: set[int]) -> int:
    """Number of the next process of the node."""

    def number() -> int | None:
        noted = Ledger(kit).noted("node")
        return None if noted is None else noted["process"]

    wait_until(lambda: number() not in {None, *known}, seconds=60, what="another process of the node", every=0.05)
    return number()


def test_a_node_that_hangs_before_its_first_contact_is_started_again(kit, keep_running):
    program = keep_running(HANGS)
    first = other_process(kit, set())
    second = other_process(kit, {first})
    assert not psutil.pid_exists(first)
    program.send_signal(signal.SIGTERM)
    _, said = program.communicate(timeout=60)
    assert "The node does not come up; it is started again." in said
    assert program.returncode == 0
    assert not psutil.pid_exists(second)
    assert Ledger(kit).noted("node") is None


def test_a_node_that_ends_is_started_again_and_the_check_is_named(kit, keep_running):
    program = keep_running(ENDS)
    first = other_process(kit, set())
    other_process(kit, {first})
    assert stop(kit, now=False)
    _, said = program.communicate(timeout=60)
    assert f"stsmm site check {kit}" in said
    assert program.returncode == 0


def test_a_second_start_leaves_the_first_ones_output_alone(kit, keep_running):
    keep_running(HANGS)
    other_process(kit, set())
    output = kit / "state" / "node.out"
    output.write_text("of the first")
    result = CliRunner().invoke(app, ["start", str(kit), "--detach"])
    assert isinstance(result.exception, RunError)
    assert "runs already" in str(result.exception)
    assert output.read_text() == "of the first"
    assert re.search(r"node: running since \d{4}-", CliRunner().invoke(app, ["status", str(kit)]).output)
