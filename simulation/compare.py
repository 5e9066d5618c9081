"""Is it worth joining? The federation beside pooling all patients and beside each site alone."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from server.strategies import check_sites
from simulation.assignment import mix_by_centre
from simulation.gain import Models, SiteCounts, compare_models
from simulation.partition import Partition, describe_partition
from simulation.simulate import ready_centres, virtual_centres, virtual_inputs
from simulation.summary import print_joining
from simulation.tested import Chosen, Tests, count_by_sites, count_everywhere, seen_without_images
from simulation.trainings import (
    CENTRALISED,
    FEDERATED,
    LOCAL,
    WITHOUT,
    open_centres,
    train_federated,
    train_pooled,
    train_without,
)
from stsmm_core.cohort.cohort import Cohort
from stsmm_core.config import Experiment, ModelKind, read_experiment
from stsmm_core.errors import ConfigError, RunError
from stsmm_core.files import write_atomically, write_text_atomically
from stsmm_core.report.joining import write_joining_report
from stsmm_core.run_folder import COMPARISON_FILE, METRICS_FILE, open_run
from stsmm_core.training.centre import Centre
from stsmm_core.training.device import available_device
from stsmm_core.training.inputs import announce_inputs, open_cohorts
from stsmm_core.training.results import oracle_concordance

COMPARISON_TABLE = "comparison.csv"
TESTED_FOLDER = "tested"
"""Predictions of every model at every site, by patient: kept as private as the cohorts."""
Reasons = dict[str, str | None]
"""By site: why a model could not be trained, None where it was."""


def compare_run(
    console: Console,
    config: Path,
    cohorts: Sequence[Path],
    out: Path,
    *,
    partition: Partition | None,
    cache: Path | None,
    leave_one_out: bool,
    kind: ModelKind | None = None,
) -> None:
    """Train the federation, all patients pooled and each site alone, and set them side by side.

    What is finished is not done again, and a leave-one-out can be added later.

    Raises:
        StsmmError: when the experiment, the cohorts or the run cannot be used, or a run fails.
    """
    experiment = read_experiment(config, kind=kind)
    if experiment.model.kind == "cox":
        raise ConfigError(
            "--compare trains networks; a federated Cox regression equals the pooled one, which `stsmm train` fits"
        )
    available_device(experiment.training.device)
    virtual = virtual_centres(open_cohorts(cohorts), partition, seed=experiment.seed)
    if len(virtual) < 2:
        raise RunError("--compare needs at least two centres; give more cohorts, or divide one with --centres")
    check_sites(experiment.federation, len(virtual))
    announce_inputs(console, experiment, virtual)
    store = cache or out / "cache"
    with open_run(out, experiment, virtual_inputs("joining", virtual, partition)):
        virtual = ready_centres(console, experiment, virtual, partition, out)
        train_federated(console, experiment, virtual, partition, out / FEDERATED, cache=store)
        centres = open_centres(console, experiment, virtual, out, cache=store)
        reason = train_pooled(console, centres, out / CENTRALISED, name="pooled model")
        if reason is not None:
            raise RunError(f"centralised training: {reason}")
        alone = {
            centre.site: train_pooled(console, [centre], out / LOCAL / centre.site, name=f"{centre.site} alone, model")
            for centre in centres
        }
        without = _leave_out(console, experiment, virtual, partition, out, store) if leave_one_out else {}
        with console.status("Testing every model at every site"):
            figures, notes = _figures(centres, out, alone, without)
        comparison = _describe(experiment, virtual, partition, centres, out) | {"figures": figures, "notes": notes}
        table = pd.DataFrame(figures)
        write_atomically(out / COMPARISON_TABLE, lambda path: table.to_csv(path, index=False))
        write_text_atomically(out / COMPARISON_FILE, json.dumps(comparison, indent=2, allow_nan=False))
        print_joining(console, *write_joining_report(out))


def _leave_out(
    console: Console,
    experiment: Experiment,
    virtual: Sequence[Cohort],
    partition: Partition | None,
    out: Path,
    cache: Path,
) -> Reasons:
    return {
        site: train_without(console, experiment, virtual, partition, out / WITHOUT / site, site=site, cache=cache)
        for site in [cohort.manifest.site for cohort in virtual]
    }


def _figures(
    centres: Sequence[Centre], out: Path, alone: Reasons, without: Reasons
) -> tuple[list[dict[str, Any]], list[str]]:
    """Every figure of the selected and of the final weights, and what a reader must know of them."""
    chosen: list[Chosen] = ["selected"]
    notes = []
    if not centres[0].experiment.federation.keeps_layers_at_sites:
        chosen.append("final")
    else:
        notes.append(
            "The sites of this federation keep layers of their own, of which only the selected round's are known, so "
            "there are no figures of the final round."
        )
    if _alone_without_images(centres, alone):
        before, centres = sum(map(_known_outcomes, centres)), seen_without_images(centres)
        if before > sum(map(_known_outcomes, centres)):
            notes.append(
                "Patients of whom no clinical variable is known are in no test: the network of a site without images "
                "sees nothing of them, and all models are compared on the same patients."
            )
    rows = []
    for each in chosen:
        everything = _tests(centres, out, each, alone, without)
        for column, endpoint in enumerate(centres[0].experiment.data.endpoints):
            models = Models(
                _of_endpoint(everything[FEDERATED], column),
                _of_endpoint(everything[CENTRALISED], column),
                {site: reason or _of_endpoint(everything[f"{LOCAL}/{site}"], column) for site, reason in alone.items()},
                {
                    site: reason or _of_endpoint(everything[f"{WITHOUT}/{site}"], column)
                    for site, reason in without.items()
                },
            )
            rows += [{"weights": each, "endpoint": endpoint} | asdict(figure) for figure in compare_models(models)]
    return rows, notes


def _tests(centres: Sequence[Centre], out: Path, chosen: Chosen, alone: Reasons, without: Reasons) -> dict[str, Tests]:
    """By the folder of its run, each model's tests at every site."""
    runs = [
        FEDERATED,
        CENTRALISED,
        *(f"{LOCAL}/{site}" for site, reason in alone.items() if reason is None),
        *(f"{WITHOUT}/{site}" for site, reason in without.items() if reason is None),
    ]
    unseeing = {f"{LOCAL}/{centre.site}" for centre in _alone_without_images(centres, alone)}
    blind = [replace(centre, data=centre.data.without_images()) for centre in centres]
    tests = {
        run: count_everywhere(
            blind if run in unseeing else centres, out / run, chosen, out / TESTED_FOLDER / run / chosen
        )
        for run in runs
    }
    if chosen == "selected":  # where sites keep layers of their own, only they can say what they predict
        tests[FEDERATED] = count_by_sites(centres, out / FEDERATED)
        for site, reason in without.items():
            if reason is None:
                others = [centre for centre in centres if centre.site != site]
                tests[f"{WITHOUT}/{site}"] |= count_by_sites(others, out / WITHOUT / site)
    if centres[0].experiment.federation.local_normalisation:
        # The server's normalisation layers are the initial ones: with them there is no model for a site left out.
        for site in [site for site, reason in without.items() if reason is None]:
            del tests[f"{WITHOUT}/{site}"][site]
    return tests


def _alone_without_images(centres: Sequence[Centre], alone: Reasons) -> list[Centre]:
    return [centre for centre in centres if alone[centre.site] is None and not centre.data.has_image.any()]


def _known_outcomes(centre: Centre) -> int:
    return int(np.isfinite(centre.data.outcomes.time).sum())


def _of_endpoint(tests: Tests, column: int) -> SiteCounts:
    return {site: counts[column] for site, counts in tests.items()}


def _describe(
    experiment: Experiment,
    virtual: Sequence[Cohort],
    partition: Partition | None,
    centres: Sequence[Centre],
    out: Path,
) -> dict[str, Any]:
    """What was compared."""
    rounds = {}
    for run in (FEDERATED, CENTRALISED):
        metrics = json.loads((out / run / METRICS_FILE).read_text(encoding="utf-8"))
        rounds[run] = metrics["selected_rounds"]
    return {
        "seed": experiment.seed,
        "endpoints": list(experiment.data.endpoints),
        "epochs": experiment.training.epochs,
        "rounds": experiment.training.rounds,
        "partition": None if partition is None else describe_partition(partition),
        "centres": mix_by_centre(virtual, experiment.data.endpoints, partition),
        "selected_rounds": rounds,
        "oracle": oracle_concordance(centres),
    }
