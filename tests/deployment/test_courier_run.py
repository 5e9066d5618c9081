"""A run of real processes in which one site has no connection: its messages are files, its answers too."""

import json
import signal

import pytest
from loopback import consortium, stsmm, wait_until

pytestmark = [pytest.mark.long, pytest.mark.slow]

EXPERIMENT = """
seed = 0
[data]
modalities = ["clinical"]
[training]
epochs = 1
batch_size = 16
risk_window = 16
[blending]
method = "none"
[evaluation]
bootstrap_replicates = 100
[federation]
min_sites = 3
timeout_s = 86400
"""
CONNECTED = ("site_1", "site_2")
FAR = "site_3"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A server, two sites online and a courier for the third."""
    folder = tmp_path_factory.mktemp("courier")
    stsmm("cohort", "synth", folder / "cohorts", "--sites", "3", "--patients", "90", "--seed", "0")
    with consortium(folder / "consortium", folder / "cohorts") as made:
        made.start_server()
        assert "--make" in stsmm("server", "courier", made.server, FAR, folder / "exchange", code=1)
        made.start("courier", "server", "courier", made.server, FAR, folder / "exchange", "--make")
        for site in CONNECTED:
            made.start_site(site)
        made.wait_online(*CONNECTED, FAR)
        yield made, folder / "exchange"


def test_a_run_with_a_site_by_courier_tests_every_site(running):
    made, exchange = running
    config = made.folder / "courier.toml"
    config.write_text(EXPERIMENT)
    stsmm("server", "run", made.server, config, "--name", "far", "--no-follow")
    run, carried = made.server / "runs" / "far", []

    def carry_until_the_end():
        """What people do: fetch each file, let the site answer it, bring the answer."""
        for file in sorted((exchange / "out").glob("*.courier")):
            if file.name not in carried:
                carried.append(file.name)
                assert "Answered" in stsmm("site", "courier", made.kit(FAR), file, exchange / "in" / file.name)
        return (run / "metrics.json").exists() or (run / "failure.txt").exists()

    wait_until(carry_until_the_end, seconds=1800, what="the run ended")
    assert sorted(made.wait_finished("far")["tested_sites"]) == [*CONNECTED, FAR]
    log = made.kit(FAR) / "state" / "audit.jsonl"
    assert "lines" in stsmm("audit", "verify", log)
    noted = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["courier"] for each in noted if "courier" in each] == ["received", "answered"] * len(carried)
    assert {each["event"] for each in noted if "event" in each} == {"sent"}
    assert {"query", "train", "evaluate.test"} <= {each["message"] for each in noted if "message" in each}
    assert not [each for each in made.audit("far") if each.get("decision") == "left out"]


def test_an_interrupted_courier_signs_off_and_comes_back(running):
    made, exchange = running
    courier = made.programs["courier"]
    courier.process.send_signal(signal.SIGINT)
    courier.process.wait(30)
    assert courier.process.returncode == 0, courier.said()
    assert "The courier ends" in courier.said()
    assert "Traceback" not in courier.said()
    assert made.status()["sites"][FAR]["state"] == "offline"
    again = made.start("courier", "server", "courier", made.server, FAR, exchange)
    made.wait_online(FAR)
    assert "running on this machine" in stsmm("server", "courier", made.server, FAR, exchange, code=1)
    stsmm("server", "revoke-site", made.server, FAR)
    again.process.wait(60)
    assert again.process.returncode == 1
    assert f"{FAR} was revoked" in again.said()
    assert "Traceback" not in again.said()
