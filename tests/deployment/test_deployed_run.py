"""A consortium of real processes, from its kits to the results: the same numbers as a simulation."""

import json

import pytest
from loopback import assert_same_numbers, experiment, online, stsmm

pytestmark = pytest.mark.slow


def test_a_deployed_run_equals_the_simulation_and_every_site_noted_what_left(tmp_path):
    cohorts = tmp_path / "cohorts"
    stsmm("cohort", "synth", cohorts, "--sites", "3", "--patients", "60", "--seed", "0")
    with online(tmp_path / "consortium", cohorts) as made:
        for site in made.names:
            stsmm("site", "check", made.kit(site))
        said = stsmm("server", "run", made.server, experiment(tmp_path, 2), "--name", "first", timeout=600)
        assert "report.html" in said
        for site in made.names:
            log = made.kit(site) / "state" / "audit.jsonl"
            assert "lines" in stsmm("audit", "verify", log)
            sent = [json.loads(line) for line in log.read_text().splitlines()]
            assert {"query", "train", "evaluate", "evaluate.pairs", "evaluate.test"} <= {
                each["message"] for each in sent
            }
            assert {each["code"] for each in sent} == {made.app.stem}
            assert {each["event"] for each in sent} == {"sent"}
    out = tmp_path / "simulated"
    stsmm("simulate", experiment(tmp_path, 2), "--cohort", cohorts, "--out", out, timeout=600)
    assert_same_numbers(made.server / "runs" / "first", out)
