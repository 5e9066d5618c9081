"""What goes wrong at a hospital, with real processes: a clear message at both ends, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from faults import Proxy, fill_disk, mount_small_disk, other_version, unmount, wrong_clock
from loopback import Consortium, consortium, free_port, stsmm, wait_until

from server.deploy.folder import ServerFolder
from server.deploy.processes import end_processes
from server.deploy.project import read_project
from server.deploy.provision import provision
from server.deploy.superlink import server_environment

pytestmark = [pytest.mark.long, pytest.mark.slow]

SITES = ("site_1", "site_2", "site_3")
ROUNDS = 6
CUT_S = 30.0
EXPERIMENT = f"""
seed = 0
[data]
modalities = ["clinical"]
[training]
epochs = {ROUNDS}
batch_size = 16
risk_window = 16
[blending]
method = "robust"
interval = 1
[evaluation]
bootstrap_replicates = 100
[federation]
min_sites = 2
timeout_s = 120
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def running(folder):
    """A server and three sites: site_1 has an old version, site_2 a small disk, site_3 a proxy."""
    stsmm("cohort", "synth", folder / "cohorts", "--sites", "3", "--patients", "60", "--seed", "0")
    with consortium(folder / "consortium", folder / "cohorts") as made:
        made.start_server()
        state = made.kit("site_2") / "state"
        if made_disk := mount_small_disk(state, 64):
            made.stack.callback(unmount, state)
        proxy = Proxy()
        made.stack.callback(proxy.close)
        old = other_version(folder, "0.0.9")
        made.start("site_1", "site", "start", made.kit("site_1"), environment=old)
        made.start_site("site_2")
        environment = dict(os.environ) | {"HTTPS_PROXY": proxy.address}
        made.start("site_3", "site", "start", made.kit("site_3"), environment=environment)
        made.wait_online(*SITES)
        yield SimpleNamespace(made=made, proxy=proxy, has_small_disk=made_disk, old=old)


@pytest.fixture(scope="module")
def made(running):
    return running.made


@pytest.fixture(scope="module")
def going(made, folder):
    """A run that the faults below happen to."""
    path = folder / "faults.toml"
    path.write_text(EXPERIMENT)
    stsmm("server", "run", made.server, path, "--name", "faults", "--no-follow")
    made.wait_for_round("faults", 0)
    return "faults"


@pytest.fixture(scope="module")
def other(folder, made):
    """The kits of another consortium at the same port."""
    project = folder / "other.toml"
    project.write_text(
        f'name = "other"\n[server]\nhost = "localhost"\nport = {made.port}\nhealth_port = {free_port()}\n'
        '[[site]]\nname = "site_1"\n'
    )
    stsmm("server", "provision", project, folder / "other")
    return folder / "other" / "sites" / "site_1"


@pytest.fixture
def copy(made, tmp_path):
    """A copy of a site's kit, without its state."""

    def make(site):
        return shutil.copytree(made.kit(site), tmp_path / site, ignore=shutil.ignore_patterns("state"))

    return make


def findings(kit, environment=os.environ):
    """What `stsmm site check` finds, by check; it ends with code 1 where there is a fault."""
    said = subprocess.run(
        [sys.executable, "-c", "from stsmm_core.cli import main; main()", "site", "check", str(kit), "--json"],
        capture_output=True,
        text=True,
        env=dict(environment),
        timeout=120,
    )
    found = {each["check"]: each for each in json.loads(said.stdout)}
    assert said.returncode == any(each["state"] == "fault" for each in found.values())
    return found


def assert_does_not_connect(made: Consortium, kit, environment=os.environ):
    """Start a node that cannot connect: it says where to look and tries again later, and ends when it is asked."""
    program = made.start(f"{kit.parent.name}-{kit.name}", "site", "start", kit, environment=environment)
    wait_until(
        lambda: "stsmm site check" in program.said() or program.process.poll() is not None,
        seconds=90,
        what=f"a word of the node of {kit}",
    )
    assert program.process.poll() is None, program.said()
    assert "connected: no" in stsmm("site", "status", kit)
    program.end()
    assert "Traceback" not in program.said()
    return program.said()


@contextmanager
def superlink_without_its_command(kit):
    """A server whose certificate ended while it ran: the command would not start it."""
    command = [sys.executable, "-m", "server.deploy.superlink_process", str(kit), str(os.getpid())]
    environment = server_environment(ServerFolder(kit), os.environ)
    with (kit / "state" / "old.out").open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        yield
    finally:
        end_processes(ServerFolder(kit), grace_s=5)
        process.wait()


def trained(made, site):
    """The rounds in which a site trained; what a full disk left of the last line does not count."""
    whole, _, _torn = (made.kit(site) / "state" / "audit.jsonl").read_text().rpartition("\n")
    lines = map(json.loads, whole.splitlines())
    return [each["round"] for each in lines if each.get("event") == "sent" and each["message"] == "train"]


def round_of(made, run):
    return json.loads((made.server / "runs" / run / "progress.json").read_text())["round"]


def test_a_site_without_network_for_30_s_takes_part_again(running, made, going, record_testsuite_property):
    done = round_of(made, going)
    running.proxy.cut()
    time.sleep(CUT_S)
    running.proxy.mend()
    began = time.monotonic()
    wait_until(lambda: max(trained(made, "site_3"), default=0) > done + 1, seconds=200, what="site_3 trains again")
    record_testsuite_property("recovery of network, s", time.monotonic() - began)
    left_out = [each for each in made.audit(going) if each["decision"] == "left out"]
    assert {each["site"] for each in left_out} <= {"site_3"}
    assert "No connection to" in made.programs["site_3"].said()
    assert "Traceback" not in made.programs["site_3"].said()


def test_a_full_disk_leaves_the_site_out_until_there_is_space(running, made, going, record_testsuite_property):
    if not running.has_small_disk:
        pytest.skip("mounting is not allowed here")
    kit = made.kit("site_2")
    ballast = kit / "state" / "ballast"
    before = len(made.audit(going))
    fill_disk(ballast)
    wait_until(
        lambda: any("disk is full" in each["reason"] for each in made.audit(going)[before:]),
        seconds=200,
        what="site_2 refuses, and says why",
    )
    found = findings(kit)["disk"]
    assert (found["state"], found["numbers"]["free"]) == ("fault", 0.0)
    before = len(trained(made, "site_2"))
    ballast.unlink()
    began = time.monotonic()
    wait_until(lambda: len(trained(made, "site_2")) > before, seconds=200, what="site_2 trains again")
    record_testsuite_property("recovery of full disk, s", time.monotonic() - began)
    assert "Logging error" not in made.programs["site_2"].said()  # a process of the app in hand may print its own
    assert "lines" in stsmm("audit", "verify", kit / "state" / "audit.jsonl")


def test_the_run_ends_with_every_site(made, going):
    metrics = made.wait_finished(going)
    assert metrics["tested_sites"] == list(SITES)
    for site in SITES:
        assert max(trained(made, site)) == ROUNDS


def test_an_old_version_is_named_at_both_ends(running, made, going):
    found = findings(made.kit("site_1"), running.old)["version"]
    assert found["state"] == "fault"
    assert "0.0.9" in found["detail"]
    (warning,) = [each for each in made.audit(going) if each["decision"] == "warning" and each["site"] == "site_1"]
    assert "0.0.9" in warning["reason"]


def test_a_key_that_the_server_never_had(made, folder):
    kit = folder / "stranger"
    stsmm("server", "add-site", made.server, "stranger", "--csr", "--out", kit)
    stsmm("site", "keygen", kit)
    shutil.copy(made.kit("site_1") / "site.toml", kit / "site.toml")
    assert "never registered" in findings(kit)["registration"]["what"]
    assert "key registered" in " ".join(assert_does_not_connect(made, kit).split())
    stsmm("server", "add-key", made.server, "stranger", kit / "node.pub")
    assert findings(kit)["registration"]["state"] == "ok"


def test_the_authority_of_another_consortium(made, other, copy):
    kit = copy("site_1")
    shutil.copy(other / "ca.pem", kit / "ca.pem")
    assert "manifest.json" in findings(kit)["kit unchanged"]["detail"]
    assert "not signed by the authority in ca.pem" in stsmm("site", "start", kit, code=1)


def test_a_kit_of_another_consortium(made, other):
    shutil.copy(made.kit("site_1") / "site.toml", other / "site.toml")
    found = findings(other)
    assert found["kit unchanged"]["state"] == "ok"
    assert "not from the kit's authority" in found["certificate"]["what"]
    assert found["registration"]["state"] == "skipped"
    assert_does_not_connect(made, other)


def test_a_changed_byte_of_the_kit(made, copy):
    kit = copy("site_1")
    path = kit / "kit.toml"
    path.write_bytes(path.read_bytes().replace(b"localhost", b"localhosT"))
    assert "kit.toml" in findings(kit)["kit unchanged"]["detail"]
    said = " ".join(stsmm("site", "start", kit, code=1).split())
    assert "was changed since the kit was made; take the kit as it was sent" in said


@pytest.mark.parametrize(("day", "word"), [(86400, "ahead"), (-86400, "behind")], ids=["ahead", "behind"])
def test_a_clock_off_by_a_day(made, copy, tmp_path, day, word):
    if shutil.which("cc") is None:
        pytest.skip("no compiler for the library that shifts the clock")
    kit, environment = copy("site_2"), wrong_clock(tmp_path, day)
    found = findings(kit, environment)
    assert found["clock"]["state"] == "fault"
    assert word in found["clock"]["what"]
    assert found["certificate"]["state"] == ("ok" if day > 0 else "fault")  # not valid yet
    assert_does_not_connect(made, kit, environment)


def test_two_machines_with_one_kit(made, copy):
    kit = copy("site_1")
    assert "connected already" in findings(kit)["registration"]["what"]
    said = assert_does_not_connect(made, kit)
    assert "used by this node alone" in " ".join(said.split())
    assert made.status()["sites"]["site_1"]["state"] == "online"
    assert findings(made.kit("site_1"))["registration"]["state"] == "ok"


def test_two_names_with_one_key(made):
    said = stsmm("server", "add-key", made.server, "site_2", made.kit("site_1") / "node.pub", "--replace", code=1)
    assert "this is the key of site_1" in " ".join(said.split())
    assert made.status()["sites"]["site_2"]["state"] == "online"


def test_a_server_certificate_that_ended(made, folder, record_testsuite_property):
    project = folder / "old.toml"
    project.write_text(
        f'name = "old"\n[server]\nhost = "localhost"\nport = {free_port()}\nhealth_port = {free_port()}\n'
        '[validity]\nserver_days = 1\n[[site]]\nname = "site_1"\n'
    )
    (folder / "old").mkdir()
    provision(read_project(project), folder / "old" / "kits", own_keys=[], now=datetime.now(UTC) - timedelta(days=2))
    old = Consortium(folder / "old", 0, ("site_1",), made.app, made.stack)
    server, kit = old.server, old.kit("site_1")
    shutil.copy(made.kit("site_1") / "site.toml", kit / "site.toml")
    said = " ".join(stsmm("server", "start", server, code=1, timeout=60).split())
    assert "server.pem ended on" in said
    assert "stsmm server rotate" in said

    with superlink_without_its_command(server):
        wait_until(lambda: findings(kit)["port"]["state"] == "ok", seconds=60, what="the old server listens")
        found = findings(kit)["certificate"]
        assert "expired" in found["what"]
        assert "stsmm server rotate" in found["remedy"]
        assert_does_not_connect(made, kit)

    began = time.monotonic()
    stsmm("server", "rotate", server)
    twin = server / "nodes" / "twin.pub"
    shutil.copy(server / "nodes" / "site_1.pub", twin)
    said = " ".join(stsmm("server", "start", server, code=1, timeout=120).split())
    assert "site_1, twin have the same key" in said
    twin.unlink()
    old.start_server()
    record_testsuite_property("recovery of ended certificate, s", time.monotonic() - began)
    found = findings(kit)
    assert found["certificate"]["state"] == "warning"  # a day is not long
    assert found["registration"]["state"] == "ok"
    old.programs["server"].end()
