"""Centralised training from start to report."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from stsmm_core.cohort.cohort import Cohort
from stsmm_core.config import Experiment, ModelKind, read_experiment
from stsmm_core.report.report import write_report
from stsmm_core.run_folder import (
    CHECKPOINTS_FOLDER,
    COX_FILE,
    HISTORY_FILE,
    METRICS_FILE,
    SITES_FOLDER,
    describe_inputs,
    open_run,
)
from stsmm_core.training.centralised import Centralised
from stsmm_core.training.centre import Centre, open_centre, open_salt
from stsmm_core.training.cox import run_cox_fold, run_final_cox
from stsmm_core.training.cox_centralised import CentralisedCox
from stsmm_core.training.cox_results import write_cox
from stsmm_core.training.device import available_device
from stsmm_core.training.experiment import Progress, previous_checkpoint, run_fold, write_history
from stsmm_core.training.fitted import save_fitted
from stsmm_core.training.inputs import announce_inputs, open_cohorts
from stsmm_core.training.progress import ProgressBar, progress_bar
from stsmm_core.training.results import Course, make_metrics, oracle_concordance, write_metrics
from stsmm_core.training.site_data import load_site_data
from stsmm_core.training.summary import print_results

_STATE_FOLDER = "state"


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """One fold's model.

    Attributes:
        progress: its course, with the selected weights.
        risks: log hazards of all pooled patients, shape (patients, endpoints).
    """

    progress: Progress
    risks: NDArray[np.float64]


def train_run(
    console: Console,
    config: Path,
    cohort: Sequence[Path],
    out: Path,
    *,
    cache: Path | None,
    kind: ModelKind | None = None,
) -> None:
    """Train on all cohorts in one place and write the run folder.

    Args:
        kind: of the model, in place of the experiment's.

    Raises:
        StsmmError: when the experiment, the cohorts or the run folder cannot be used.
    """
    experiment = read_experiment(config, kind=kind)
    available_device(experiment.training.device)
    cohorts = open_cohorts(cohort)
    announce_inputs(console, experiment, cohorts)
    with open_run(out, experiment, describe_inputs("centralised", cohorts)):
        if not (out / METRICS_FILE).exists():
            centres = load_centres(console, experiment, cohorts, out, cache=cache or out / "cache")
            if experiment.model.kind == "cox":
                fit_cox_models(centres, out)
            else:
                train_models(console, centres, out)
        metrics = json.loads((out / METRICS_FILE).read_text(encoding="utf-8"))
        print_results(console, metrics, write_report(out))


def load_centres(
    console: Console, experiment: Experiment, cohorts: Sequence[Cohort], out: Path, *, cache: Path
) -> list[Centre]:
    """Read and preprocess the patients of all cohorts."""
    centres = []
    with progress_bar(console, "Reading patients", sum(len(each.patients) for each in cohorts)) as bar:
        for each in cohorts:
            data = load_site_data(each, experiment, cache=cache, advance=bar.advance)
            folder = out / SITES_FOLDER / each.manifest.site
            centres.append(open_centre(experiment, each, data, folder=folder, salt=open_salt(experiment.seed)))
    return centres


def train_models(console: Console, centres: Sequence[Centre], out: Path, *, name: str = "model") -> list[TrainedModel]:
    """Train one model a fold, each from its last checkpoint on, and write what they found into the run folder."""
    experiment = centres[0].experiment
    consortium, checkpoints = Centralised(centres, out / _STATE_FOLDER), out / CHECKPOINTS_FOLDER
    models: list[TrainedModel] = []
    for fold in range(experiment.evaluation.runs):
        title = f"Training {name} {fold + 1} of {experiment.evaluation.runs}"
        with progress_bar(console, title, experiment.training.rounds) as bar:

            def report(progress: Progress, bar: ProgressBar = bar) -> None:
                write_history([*(model.progress for model in models), progress], out / HISTORY_FILE)
                bar.show_round(progress)

            progress = run_fold(consortium, experiment, fold, checkpoints=checkpoints, report=report)
        save_fitted(consortium.describe_fit(progress.selected), checkpoints / f"fold-{fold}.json")
        models.append(TrainedModel(progress, consortium.risks(progress.selected)))
    folds = [model.progress for model in models]
    _forget_course(out, len(folds))
    _write_metrics(centres, folds, out)
    return models


def _forget_course(out: Path, folds: int) -> None:
    """Drop what only an unfinished run needs, most of its folder, once the last checkpoints are on the disk."""
    for fold in range(folds):
        last = out / CHECKPOINTS_FOLDER / f"fold-{fold}.pt"
        with last.open("r+b") as file:
            os.fsync(file.fileno())
        previous_checkpoint(last).unlink(missing_ok=True)
    if (out / _STATE_FOLDER).is_dir():
        shutil.rmtree(out / _STATE_FOLDER)


def fit_cox_models(centres: Sequence[Centre], out: Path) -> None:
    """Fit one Cox model a fold and the final one of all patients, and write what they found into the run folder."""
    experiment = centres[0].experiment
    sites = CentralisedCox(centres)
    folds = [run_cox_fold(sites, experiment, fold) for fold in range(experiment.evaluation.runs)]
    write_cox(run_final_cox(sites, experiment), experiment, out / COX_FILE)
    _write_metrics(centres, folds, out)


def _write_metrics(centres: Sequence[Centre], folds: Sequence[Course], out: Path) -> None:
    metrics = make_metrics(
        mode="centralised",
        experiment=centres[0].experiment,
        sites=[centre.describe() for centre in centres],
        pairs={centre.site: centre.count_pairs() for centre in centres},
        folds=folds,
    )
    metrics["oracle"] = oracle_concordance(centres)
    write_metrics(metrics, out / METRICS_FILE)
