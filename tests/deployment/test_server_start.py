"""The real server with its own processes: starts once, registers, refuses, and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from server.deploy.control import list_nodes, register_nodes, unregister_node
from server.deploy.folder import ServerFolder
from server.deploy.processes import find_processes
from server.deploy.project import read_project
from server.deploy.provision import provision
from stsmm_core.audit.chain import verify

ENTRY = [sys.executable, "-c", "from stsmm_core.cli import main; main()", "server"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def real_kit(tmp_path):
    project = tmp_path / "consortium.toml"
    server = f'host = "localhost"\nport = {free_port()}\nhealth_port = {free_port()}'
    project.write_text(f'name = "here"\n[server]\n{server}\n[[site]]\nname = "leiden"\n[[site]]\nname = "milan"\n')
    provision(read_project(project), tmp_path / "kits", own_keys=[], now=datetime.now(UTC))
    return tmp_path / "kits" / "server"


def start(kit):
    process = subprocess.Popen([*ENTRY, "start", str(kit)], stdout=subprocess.PIPE, text=True)
    assert "is up" in process.stdout.readline()
    process.stdout.readline()
    return process


def wait_until_none_is_left(kit):
    deadline = time.monotonic() + 20
    while find_processes(ServerFolder(kit)):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.2)


@pytest.mark.slow
def test_a_server_starts_once_and_leaves_nothing_behind(real_kit):
    first = start(real_kit)
    nodes = json.loads(ServerFolder(real_kit).nodes.read_text())
    assert list(nodes) == ["leiden", "milan"]
    second = subprocess.run([*ENTRY, "start", str(real_kit)], capture_output=True, text=True)
    assert second.returncode == 1
    assert "running already" in second.stderr
    assert len(find_processes(ServerFolder(real_kit))) >= 2
    first.kill()
    first.wait()
    wait_until_none_is_left(real_kit)

    again = start(real_kit)
    assert register_nodes(real_kit) == nodes
    unregister_node(real_kit, "milan")
    (real_kit / "nodes" / "milan.pub").unlink()
    assert register_nodes(real_kit) == {"leiden": nodes["leiden"]}
    assert sorted(node.status for node in list_nodes(real_kit)) == ["registered", "unregistered"]
    superlink = next(each for each in find_processes(ServerFolder(real_kit)) if each.ppid() == again.pid)
    os.kill(superlink.pid, signal.SIGKILL)
    assert again.wait(timeout=40) == 1
    assert find_processes(ServerFolder(real_kit)) == []
    verify(ServerFolder(real_kit).state / "audit.jsonl")


@pytest.mark.slow
def test_sigterm_ends_a_server(real_kit):
    process = start(real_kit)
    process.terminate()
    assert process.wait(timeout=40) == 0
    assert find_processes(ServerFolder(real_kit)) == []
