"""The trainings of a comparison: federated, centralised, each site alone, and without each site.

Each is a run folder of its own and is done once: the same folds, network, budget and seed in all.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from server.strategies import RULES
from simulation.partition import Partition
from simulation.simulate import federate, virtual_inputs
from stsmm_core.cohort.cohort import Cohort
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.files import write_text_atomically
from stsmm_core.report.report import write_report
from stsmm_core.run_folder import AUDIT_FILE, FAILURE_FILE, METRICS_FILE, SITES_FOLDER, describe_inputs, open_run
from stsmm_core.training.centre import Centre
from stsmm_core.training.site_data import agreed_channels
from stsmm_core.training.train import load_centres, train_models

FEDERATED = "federated"
CENTRALISED = "centralised"
LOCAL = "local"
WITHOUT = "without"


def open_centres(
    console: Console, experiment: Experiment, virtual: Sequence[Cohort], out: Path, *, cache: Path
) -> list[Centre]:
    """The centres with their patients in memory.

    A centre without images gets the channels of the others and an image of nobody, so that it can train and test the
    same network.
    """
    channels = agreed_channels({cohort.manifest.site: cohort.manifest.channels for cohort in virtual})
    alike = [replace(cohort, manifest=cohort.manifest.model_copy(update={"channels": channels})) for cohort in virtual]
    return load_centres(console, experiment, alike, out, cache=cache)


def train_federated(
    console: Console,
    experiment: Experiment,
    virtual: Sequence[Cohort],
    partition: Partition | None,
    run: Path,
    *,
    cache: Path,
) -> dict[str, Any]:
    """The federation of these centres; its metrics."""
    with open_run(run, experiment, virtual_inputs("federated", virtual, partition)):
        metrics = federate(console, experiment, virtual, run, cache=cache)
        untested = {cohort.manifest.site for cohort in virtual} - set(metrics["tested_sites"])
        if untested:
            raise RunError(f"{run}: {', '.join(sorted(untested))} could not test the model; see {AUDIT_FILE} there")
        write_report(run)
    return metrics


def train_pooled(console: Console, centres: Sequence[Centre], run: Path, *, name: str) -> str | None:
    """Train these centres' patients in one place: all of them, or one centre alone.

    Returns:
        Why there is no model, e.g. no training patient with an event; None where there is one.
    """
    experiment = centres[0].experiment
    moved = [replace(centre, folder=run / SITES_FOLDER / centre.site) for centre in centres]
    with open_run(run, experiment, describe_inputs("centralised", [centre.cohort for centre in centres])):
        if (run / FAILURE_FILE).exists():
            return (run / FAILURE_FILE).read_text(encoding="utf-8")
        if not (run / METRICS_FILE).exists():
            try:
                train_models(console, moved, run, name=name)
            except RunError as error:
                write_text_atomically(run / FAILURE_FILE, str(error))
                return str(error)
        write_report(run)
    return None


def train_without(
    console: Console,
    experiment: Experiment,
    virtual: Sequence[Cohort],
    partition: Partition | None,
    run: Path,
    *,
    site: str,
    cache: Path,
) -> str | None:
    """The federation of all centres but one, which asks for as many sites less if it asked for all.

    Returns:
        Why there can be none; None where there is one.
    """
    rest = [cohort for cohort in virtual if cohort.manifest.site != site]
    if "image" in experiment.data.modalities and not any(cohort.manifest.channels for cohort in rest):
        return "no other site has images"
    federation = experiment.federation
    least = RULES[federation.strategy].least_sites(federation)
    if len(rest) < least:
        return f"federation.strategy = '{federation.strategy}' needs {least} sites"
    fewer = federation.model_copy(update={"min_sites": min(federation.min_sites, len(rest))})
    train_federated(console, experiment.model_copy(update={"federation": fewer}), rest, partition, run, cache=cache)
    return None
