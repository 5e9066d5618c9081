"""A consortium of real processes, in which server and sites fall over."""

import json
import subprocess
import time

import pytest
from loopback import COMMAND, assert_same_numbers, experiment, online, stsmm, wait_until

from client.node.ledger import IN_HAND, Ledger
from stsmm_core.protocol import refusals

pytestmark = [pytest.mark.long, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("loopback")


@pytest.fixture(scope="module")
def running(folder):
    """A server and three sites, online."""
    stsmm("cohort", "synth", folder / "cohorts", "--sites", "3", "--patients", "90", "--seed", "0")
    with online(folder / "consortium", folder / "cohorts") as made:
        yield made


@pytest.fixture(scope="module")
def first(running, folder):
    """An uninterrupted run."""
    said = stsmm("server", "run", running.server, experiment(folder, 2), "--name", "first", timeout=600)
    assert "report.html" in said
    return running.server / "runs" / "first"


def test_a_killed_server_goes_on_from_its_checkpoint_to_the_same_numbers(first, running, folder):
    stsmm("server", "run", running.server, experiment(folder, 2), "--name", "second", "--no-follow")
    running.wait_for_round("second", 1)
    running.programs["server"].kill()
    assert running.status()["up"] is False
    running.start_server()
    running.wait_online(*running.names)
    assert running.run_state("second")["state"] == "interrupted"
    stsmm("server", "resume", running.server, "second", timeout=600)
    assert_same_numbers(running.server / "runs" / "second", first)


def test_a_killed_site_is_left_out_and_comes_back(running, folder):
    stsmm("server", "run", running.server, experiment(folder, 20), "--name", "third", "--no-follow")
    running.wait_for_round("third", 0)
    ledger = Ledger(running.kit("site_3"))
    wait_until(lambda: ledger.noted(IN_HAND), seconds=120, what="site_3 works on a message", every=0.1)
    running.programs["site_3"].kill()
    running.start_site("site_3")
    wait_until(lambda: left_out(running.audit("third")), seconds=200, what="a reply left out before the time-out")
    (reason,) = [each["reason"] for each in left_out(running.audit("third"))]
    # Flower answers for a node that it takes for offline; one that is back before that says it itself.
    assert reason in (f"refused: {refusals.INTERRUPTED}", "no answer: the site went offline")
    log = running.kit("site_3") / "state" / "audit.jsonl"

    def trained():
        lines = map(json.loads, log.read_text().splitlines())
        wanted = ("sent", "third", "train")
        return {each["round"] for each in lines if (each["event"], each["run"], each["message"]) == wanted}

    missed = running.run_state("third")["round"] + 1
    wait_until(lambda: max(trained(), default=0) > missed, seconds=600, what="site_3 takes part again")
    assert {each["site"] for each in left_out(running.audit("third"))} == {"site_3"}
    stsmm("server", "stop", running.server, "third")
    assert running.run_state("third")["state"] == "stopped"
    assert "lines" in stsmm("audit", "verify", log)


def left_out(audit):
    return [each for each in audit if each.get("decision") == "left out"]


def test_a_node_of_the_same_kit_does_not_start_twice(running):
    said = stsmm("site", "start", running.kit("site_1"), code=1)
    assert "runs already" in said


def test_unapproved_code_is_refused_at_the_site_and_both_ends_read_why(running, folder):
    stsmm("site", "approve", running.kit("site_1"), "--revoke", running.app.stem)
    try:
        stsmm("server", "run", running.server, experiment(folder, 1), "--name", "fourth", "--no-follow")
        wait_until(lambda: running.audit("fourth"), seconds=120, what="a refusal at the server")
        (refusal,) = [each for each in running.audit("fourth") if each.get("stage") == "query"]
        assert "approved" in refusal["reason"]
        assert "approved" in stsmm("site", "status", running.kit("site_1"))
    finally:
        subprocess.run([*COMMAND, "server", "stop", str(running.server), "fourth"], capture_output=True)
        stsmm("site", "approve", running.kit("site_1"), running.app, "--yes")


def test_a_revoked_site_is_cut_off_and_its_check_says_so(running):
    stsmm("server", "revoke-site", running.server, "site_2")
    said = stsmm("site", "check", running.kit("site_2"), code=1)
    assert "revoked" in said
    assert running.status()["sites"]["site_2"]["state"] == "revoked"


def test_stopping_leaves_no_process(running):
    stsmm("site", "stop", running.kit("site_1"))
    wait_until(lambda: running.programs["site_1"].process.poll() is not None, seconds=60, what="site_1 ended")
    before = running.programs["server"].family()
    running.programs["server"].end()
    time.sleep(1)
    assert not [process for process in before if process.is_running() and process.status() != "zombie"]
