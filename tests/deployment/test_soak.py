"""Ten sites for thirty rounds, and sites are killed all the time: the run ends, and nothing grows."""

import contextlib
import csv
import json
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from loopback import Consortium, consortium, stsmm

from server.deploy.folder import ServerFolder
from server.deploy.processes import find_processes

pytestmark = [pytest.mark.soak, pytest.mark.slow]

SITES, ROUNDS, PATIENTS = 10, 30, 240
BETWEEN_KILLS_S = (60.0, 180.0)
DOWN_S = (2.0, 20.0)
SAMPLE_S = 10.0
LONGEST_S = 7200.0
GROWTH = 1.1
"""Memory in the last third of a process's life against the middle third."""
EXPERIMENT = f"""
seed = 0
[data]
modalities = ["clinical"]
[model]
clinical_widths = [32]
[training]
epochs = {ROUNDS}
batch_size = 16
risk_window = 16
learning_rate = 0.01
[blending]
method = "robust"
interval = 5
[evaluation]
bootstrap_replicates = 100
[federation]
min_sites = 5
timeout_s = 300
"""


@dataclass(frozen=True)
class Sample:
    """Memory of one process at one moment."""

    seconds: float
    round: int
    owner: str
    pid: int
    megabytes: float


def memory(process: psutil.Process) -> float:
    """What only this process holds, in MB."""
    return process.memory_full_info().uss / 1e6


def take_samples(made: Consortium, seconds: float, reached: int) -> list[Sample]:
    """Memory of the server's and the nodes' processes, without those that live for one message."""
    families = {"server": find_processes(ServerFolder(made.server))}
    families |= {site: made.programs[site].family() for site in made.names}
    samples = []
    for owner, processes in families.items():
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                if not any("flwr-clientapp" in word for word in process.cmdline()):
                    samples.append(Sample(seconds, reached, owner, process.pid, memory(process)))
    return samples


def round_of(run: Path) -> int:
    """The last round that is done; -1 before the first."""
    path = run / "progress.json"
    return json.loads(path.read_text(encoding="utf-8"))["round"] if path.exists() else -1


def growth(samples: list[Sample]) -> float:
    """Median memory in the last third over that in the middle third."""
    values = [sample.megabytes for sample in samples]
    third = len(values) // 3
    return statistics.median(values[-third:]) / statistics.median(values[third : 2 * third])


def test_a_long_run_with_random_kills_ends_with_flat_memory(tmp_path, record_testsuite_property):
    chance = random.Random(0)
    stsmm("cohort", "synth", tmp_path / "cohorts", "--sites", str(SITES), "--patients", str(PATIENTS), "--seed", "0")
    config = tmp_path / "soak.toml"
    config.write_text(EXPERIMENT)
    samples: list[Sample] = []
    kills: list[tuple[float, str, int]] = []
    with consortium(tmp_path / "consortium", tmp_path / "cohorts") as made:
        made.start_server()
        for site in made.names:
            made.start_site(site)
        made.wait_online(*made.names, seconds=300)
        stsmm("server", "run", made.server, config, "--name", "soak", "--no-follow")
        run = made.server / "runs" / "soak"
        began = time.monotonic()
        next_kill, next_sample, back = chance.uniform(*BETWEEN_KILLS_S), 0.0, {}
        while not (run / "metrics.json").exists():
            now = time.monotonic() - began
            assert now < LONGEST_S, "the run does not end"
            assert not (run / "failure.txt").exists(), (run / "failure.txt").read_text()
            reached = round_of(run)
            if now >= next_sample:
                samples += take_samples(made, now, reached)
                next_sample = now + SAMPLE_S
            if 0 <= reached < ROUNDS and now >= next_kill:
                site = chance.choice([each for each in made.names if each not in back])
                made.programs[site].kill()
                kills.append((now, site, reached))
                back[site] = now + chance.uniform(*DOWN_S)
                next_kill = now + chance.uniform(*BETWEEN_KILLS_S)
            for site in [site for site, due in back.items() if now >= due]:
                del back[site]
                made.start_site(site)
            time.sleep(0.5)
        seconds = time.monotonic() - began
        left_out = [each for each in made.audit("soak") if each["decision"] == "left out"]
        for site in made.names:
            assert "lines" in stsmm("audit", "verify", made.kit(site) / "state" / "audit.jsonl")
        assert "lines" in stsmm("audit", "verify", made.server / "state" / "audit.jsonl")
    with (tmp_path / "memory.csv").open("w", newline="") as file:
        csv.writer(file).writerows([vars(sample).values() for sample in samples])
    with (run / "history.csv").open(newline="") as file:
        rounds = {int(row["round"]) for row in csv.DictReader(file)}
    assert rounds == set(range(ROUNDS + 1))
    assert len(kills) >= 10

    by_process = {pid: [sample for sample in samples if sample.pid == pid] for pid in {each.pid for each in samples}}
    longest = max(len(own) for own in by_process.values())
    grown = {
        f"{own[0].owner}-{pid}": (statistics.median(sample.megabytes for sample in own), growth(own))
        for pid, own in by_process.items()
        if len(own) >= max(longest // 3, 9)
    }
    record_testsuite_property("soak", json.dumps({"s": seconds, "kills": len(kills), "left out": len(left_out)}))
    print(f"{seconds:.0f} s, {len(kills)} kills, {len(left_out)} replies left out")
    for name, (megabytes, factor) in sorted(grown.items()):
        print(f"{name}: {megabytes:.0f} MB, x {factor:.3f}")
    assert any(name.startswith("server") for name in grown)
    assert any(name.startswith("site") for name in grown)
    assert {name: factor for name, (_, factor) in grown.items() if factor > GROWTH} == {}
