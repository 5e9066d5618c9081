"""The command that answers a file: what it refuses before and after the work."""

import json
import time

import psutil
import pytest
from filelock import FileLock

from client.node import courier_process
from client.node.courier_process import answer
from stsmm_core.courier.parcel import CourierError, Parcel, pack, unpack
from stsmm_core.errors import KitError, RunError

QUESTION = Parcel(b"message", b"tree", {"a": b"1"}, b"run", b"app")
ANSWER = Parcel(b"answer", b"tree", {}, seconds=2.0)
CHILD = """
import json, os, sys
from pathlib import Path
state = Path(sys.argv[2]) / "state" / "courier"
(state / "seen").write_text(json.dumps([dict(os.environ), (state / "question.parcel").read_bytes().hex()]))
(state / "answer.parcel").write_bytes(bytes.fromhex("{answer}"))
print("patient 7")
sys.exit({code})
"""


@pytest.fixture
def child(monkeypatch, kit):
    """Stands for the process: notes what it was given, ends as it is told."""
    (kit / "state" / "courier").mkdir(parents=True)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:word@proxy")
    monkeypatch.setenv("AWS_SECRET", "word")

    def ends(code=0):
        monkeypatch.setattr(courier_process, "_START", CHILD.format(answer=pack(ANSWER).hex(), code=code))

    return ends


def left(kit):
    return sorted(path.name for path in (kit / "state" / "courier").iterdir())


def test_the_process_has_the_nodes_environment_and_leaves_no_parcel(kit, child):
    child()
    assert pack(courier_process._work(kit, QUESTION)) == pack(ANSWER)
    assert left(kit) == ["node.out", "seen"]
    environment, question = json.loads((kit / "state" / "courier" / "seen").read_text())
    assert unpack(bytes.fromhex(question)).message == b"message"
    assert environment["FLWR_HOME"] == str(kit / "state" / "flower")
    assert not [name for name, value in environment.items() if "word" in value]
    assert (kit / "state" / "courier" / "node.out").stat().st_mode & 0o777 == 0o600


def test_a_process_that_fails_gives_no_answer_and_shows_nothing_of_the_app(kit, child, capfd):
    child(code=1)
    with pytest.raises(CourierError, match=r"node\.out says why") as failure:
        courier_process._work(kit, QUESTION)
    assert left(kit) == ["node.out", "seen"]
    assert "patient" not in str(failure.value) + "".join(capfd.readouterr())


def test_a_kit_that_was_changed_answers_nothing(kit, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KitError):
        answer(kit, tmp_path / "file", tmp_path / "out")


def test_a_site_does_not_answer_while_its_node_runs(kit, tmp_path, monkeypatch):
    monkeypatch.setattr(courier_process, "check_ready", lambda _kit: None)
    (kit / "state").mkdir(exist_ok=True)
    with FileLock(kit / "state" / "node.lock"), pytest.raises(RunError, match="connected or has a courier, not both"):
        answer(kit, tmp_path / "file", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_command_ends_what_it_started(kit, child, monkeypatch):
    monkeypatch.setattr(
        courier_process,
        "_START",
        "import os, signal, subprocess, sys, time\n"
        "second = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open(sys.argv[2] + '/state/courier/pids', 'w').write(f'{os.getpid()} {second.pid}')\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(60)",
    )
    with pytest.raises(KeyboardInterrupt):
        courier_process._work(kit, QUESTION)
    assert left(kit) == ["node.out", "pids"]
    for pid in (kit / "state" / "courier" / "pids").read_text().split():
        deadline = time.monotonic() + 10
        while psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "a process lives on"
            time.sleep(0.05)
