"""A simulated consortium from start to report."""

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import tomli_w
from rich.console import Console

from client.site import Site, read_site
from client.work import open_site
from server.strategies import check_sites
from simulation.assignment import mix_by_centre, print_mix, write_assignment
from simulation.partition import Partition, ScannerShift, describe_partition
from simulation.runtime import Runtime, flower_runtime
from simulation.scanner import shift_scanners
from stsmm_core import protocol
from stsmm_core.cohort.cohort import ORACLE_FILE, Cohort
from stsmm_core.config import Experiment, ModelKind, read_experiment, to_toml
from stsmm_core.errors import CohortError, RunError
from stsmm_core.files import write_text_atomically
from stsmm_core.report.audit import left_out_sentences, read_audit
from stsmm_core.report.report import write_report
from stsmm_core.run_folder import (
    FAILURE_FILE,
    METRICS_FILE,
    PROGRESS_FILE,
    SERVER_FILE,
    SITES_FOLDER,
    describe_inputs,
    open_run,
)
from stsmm_core.training.centre import open_salt
from stsmm_core.training.device import available_device
from stsmm_core.training.inputs import announce_inputs, open_cohorts
from stsmm_core.training.progress import progress_bar
from stsmm_core.training.results import oracle_concordance, write_metrics
from stsmm_core.training.summary import print_results

SCANNERS_FOLDER = "scanners"
"""Cohort folders of centres whose images come through scanners of their own."""
POLL_S = 0.5
START_S = 120.0


def simulate_run(
    console: Console,
    config: Path,
    cohorts: Sequence[Path],
    out: Path,
    *,
    partition: Partition | None,
    cache: Path | None,
    kind: ModelKind | None = None,
) -> None:
    """Train over virtual centres and write the run folder.

    Args:
        kind: of the model, in place of the experiment's.

    Raises:
        StsmmError: when the experiment, the cohorts or the run cannot be used, or the run fails.
    """
    experiment = read_experiment(config, kind=kind)
    available_device(experiment.training.device)
    virtual = virtual_centres(open_cohorts(cohorts), partition, seed=experiment.seed)
    check_sites(experiment.federation, len(virtual))
    announce_inputs(console, experiment, virtual)
    with open_run(out, experiment, virtual_inputs("federated", virtual, partition)):
        virtual = ready_centres(console, experiment, virtual, partition, out)
        metrics = federate(console, experiment, virtual, out, cache=cache or out / "cache")
        print_results(console, metrics, write_report(out))
        for sentence in left_out_sentences(read_audit(out)):
            console.print(sentence, style="bold red", highlight=False, soft_wrap=True)


def federate(
    console: Console, experiment: Experiment, virtual: Sequence[Cohort], out: Path, *, cache: Path
) -> dict[str, Any]:
    """Train over virtual centres in an open run folder, unless that is done; its metrics.

    Raises:
        RunError: with the reason that the server or the sites gave.
    """
    sites = write_sites(virtual, out, cache=cache.resolve(), experiment=experiment)
    if not (out / METRICS_FILE).exists():
        _federate(console, experiment, out, sites)
    metrics: dict[str, Any] = json.loads((out / METRICS_FILE).read_text(encoding="utf-8"))
    if metrics["oracle"] is None and all((cohort.root / ORACLE_FILE).exists() for cohort in virtual):
        metrics["oracle"] = oracle_concordance(
            [open_site(site, to_toml(experiment.with_pretrained("")))[1] for site in sites]
        )
        write_metrics(metrics, out / METRICS_FILE)
    return metrics


def virtual_centres(cohorts: Sequence[Cohort], partition: Partition | None, *, seed: int) -> list[Cohort]:
    """One centre a cohort, or one cohort divided.

    Raises:
        CohortError: when several cohorts are to be divided, or the one cannot be divided so.
    """
    if partition is None:
        return list(cohorts)
    if len(cohorts) != 1:
        raise CohortError(
            f"--centres and --partition divide one cohort, but {len(cohorts)} were given; leave them out or give one"
        )
    return partition.divide(cohorts[0], seed=seed)


def virtual_inputs(mode: str, virtual: Sequence[Cohort], partition: Partition | None) -> dict[str, Any]:
    """What a run over virtual centres was made from; a run goes on only with the same division."""
    divided = {} if partition is None else {"partition": describe_partition(partition)}
    return describe_inputs(mode, virtual) | divided


def ready_centres(
    console: Console, experiment: Experiment, virtual: Sequence[Cohort], partition: Partition | None, out: Path
) -> list[Cohort]:
    """Make the centres' images where they are to come through other scanners, and write down who went where."""
    centres = list(virtual)
    if isinstance(partition, ScannerShift):
        with progress_bar(console, "Other scanners", sum(len(centre.patients) for centre in centres)) as bar:
            folder, strength = out / SCANNERS_FOLDER, partition.strength
            centres = shift_scanners(centres, folder, strength=strength, seed=experiment.seed, advance=bar.advance)
    write_assignment(centres, out / SITES_FOLDER)
    print_mix(console, mix_by_centre(centres, experiment.data.endpoints, partition), partition)
    return centres


def parallel_centres(centres: int) -> tuple[int, int]:
    """How many centres work at a time on this machine, and the threads of each."""
    cores = os.cpu_count() or 1
    parallel = min(centres, cores)
    return parallel, cores // parallel


def write_sites(virtual: Sequence[Cohort], out: Path, *, cache: Path, experiment: Experiment) -> list[Path]:
    """Write a site file a centre; virtual node i reads i.toml.

    Nothing is withheld between virtual centres: all their patients lie on this machine.
    """
    _, threads = parallel_centres(len(virtual))
    files = []
    for number, cohort in enumerate(virtual):
        name = cohort.manifest.site
        folder = (out / SITES_FOLDER / name).resolve()
        site = Site(
            name=name,
            cohort=cohort.root.resolve(),
            folder=folder,
            cache=cache,
            device=experiment.training.device,
            threads=threads,
            min_cell_size=1,
            salt=open_salt(experiment.seed),
            patients=cohort.patients,
        )
        files.append(out / SITES_FOLDER / f"{number}.toml")
        write_text_atomically(files[-1], tomli_w.dumps(site.model_dump(mode="json", exclude_none=True)))
    return files


def _federate(console: Console, experiment: Experiment, out: Path, sites: Sequence[Path]) -> None:
    """Run the experiment on Flower's simulation runtime until metrics.json is there.

    Raises:
        RunError: with the reason that the server or the sites gave.
    """
    stale = [out / name for name in (PROGRESS_FILE, FAILURE_FILE, SERVER_FILE)]
    for file in [*stale, *(read_site(site).folder / "site.log" for site in sites)]:
        file.unlink(missing_ok=True)
    models, rounds = experiment.evaluation.runs, experiment.training.rounds
    parallel, _ = parallel_centres(len(sites))
    gpu = experiment.training.device.startswith("cuda")
    with (
        progress_bar(console, f"Training {models} model(s) over {len(sites)} centres", models * rounds) as bar,
        flower_runtime(out, sites=out / SITES_FOLDER, nodes=len(sites), parallel=parallel, gpu=gpu) as runtime,
    ):
        runtime.submit({protocol.EXPERIMENT: to_toml(experiment.with_pretrained("")), protocol.SITES: len(sites)})
        deadline = time.monotonic() + START_S
        best = float("inf")
        while not (out / METRICS_FILE).exists():
            _raise_if_failed(runtime, out, sites, overdue=time.monotonic() > deadline)
            if (out / PROGRESS_FILE).exists():
                state = json.loads((out / PROGRESS_FILE).read_text(encoding="utf-8"))
                best = math.inf if state["best"] is None else state["best"]
                bar.show(state["fold"] * rounds + max(state["round"], 0), best)
            time.sleep(POLL_S)
        bar.show(models * rounds, best)


def _raise_if_failed(runtime: Runtime, out: Path, sites: Sequence[Path], *, overdue: bool) -> None:
    """Say why the run ended, with what the virtual sites wrote in their own logs: they are all on this machine."""
    server = out / SERVER_FILE
    if (out / FAILURE_FILE).exists():
        reason = (out / FAILURE_FILE).read_text(encoding="utf-8")
    elif (out / METRICS_FILE).exists():
        return
    elif not runtime.is_running():
        reason = f"Flower's SuperLink ended; see {runtime.log}"
    elif server.exists() and not psutil.pid_exists(int(server.read_text(encoding="utf-8"))):
        reason = f"the server process ended without a word (out of memory?); see {runtime.log}"
    elif overdue and not server.exists():
        reason = f"Flower did not start the run within {START_S:.0f} s; see {runtime.log}"
    else:
        return
    logs = [read_site(site).folder / "site.log" for site in sites]
    said = [f"  {log.parent.name}: {log.read_text(encoding='utf-8').strip()}" for log in logs if log.exists()]
    raise RunError("\n".join([reason, *said]))
