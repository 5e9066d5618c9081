"""The Flower ServerApp: runs the experiment over the sites and writes the run folder. Wiring only."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.audit import AuditLog
from server.consortium import FlowerConsortium
from server.cox import FlowerCox
from server.evaluation import ask_for_test
from stsmm_core import protocol
from stsmm_core.config import Experiment, read_experiment
from stsmm_core.errors import StsmmError
from stsmm_core.files import write_text_atomically
from stsmm_core.protocol.time_counts import TIME_COUNTS_ACTION, time_counts_from_numbers
from stsmm_core.run_folder import (
    AUDIT_FILE,
    CHECKPOINTS_FOLDER,
    CONFIG_FILE,
    COX_FILE,
    FAILURE_FILE,
    HISTORY_FILE,
    METRICS_FILE,
    PROGRESS_FILE,
    SERVER_FILE,
    SITE_BLENDING_FILE,
)
from stsmm_core.training.cox import run_cox_fold, run_final_cox
from stsmm_core.training.cox_results import write_cox
from stsmm_core.training.curves import describe_curves
from stsmm_core.training.evaluation_over_sites import FederatedTest
from stsmm_core.training.experiment import Progress, run_fold, write_history, write_site_history
from stsmm_core.training.fitted import describe_federated_fit, save_fitted
from stsmm_core.training.results import Course, make_metrics, write_metrics
from stsmm_core.training.site_data import agreed_channels

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all folds; what stops the run is written to the run folder for the command that started it."""
    run = Path(os.environ[protocol.RUN_VARIABLE]) / protocol.run_name(str(context.run_config[protocol.RUN]))
    write_text_atomically(run / SERVER_FILE, str(os.getpid()))
    try:
        _run(grid, context, run)
    except Exception as error:
        known = isinstance(error, StsmmError)
        write_text_atomically(run / FAILURE_FILE, str(error) if known else f"unexpected error: {error!r}")
        raise


def _run(grid: Grid, context: Context, run: Path) -> None:
    # Its own copy: what the run configuration gives to the sites has no path of this machine.
    experiment = read_experiment(run / CONFIG_FILE)
    expected = int(context.run_config[protocol.SITES])
    consortium = FlowerConsortium(grid, experiment, expected=expected, audit=AuditLog(run / AUDIT_FILE))
    course = _fit_cox if experiment.model.kind == "cox" else _train
    folds = course(consortium, experiment, run)
    pairs = consortium.count_pairs()
    federated = ask_for_test(consortium, experiment)
    if experiment.model.kind == "mmnn":
        _describe_fits(federated, consortium, experiment, run)
    metrics = make_metrics(
        mode="federated",
        experiment=experiment,
        sites=consortium.descriptions,
        pairs=pairs,
        folds=folds,
        federated=federated,
    )
    metrics["survival"] = describe_curves(
        consortium.ask(
            TIME_COUNTS_ACTION,
            "survival curves",
            {},
            lambda numbers, most: time_counts_from_numbers(numbers, experiment, most=most),
        )
    )
    write_metrics(metrics, run / METRICS_FILE)


def _describe_fits(federated: FederatedTest, consortium: FlowerConsortium, experiment: Experiment, run: Path) -> None:
    """What `stsmm predict` needs beside each fold's weights."""
    channels = agreed_channels({site.site: site.channels for site in consortium.descriptions})
    for fold in range(experiment.evaluation.runs):
        fitted = describe_federated_fit(federated, fold, experiment, channels=channels)
        save_fitted(fitted, run / CHECKPOINTS_FOLDER / f"fold-{fold}.json")


def _train(consortium: FlowerConsortium, experiment: Experiment, run: Path) -> Sequence[Course]:
    folds: list[Progress] = []
    for fold in range(experiment.evaluation.runs):

        def report(progress: Progress, fold: int = fold) -> None:
            write_history([*folds, progress], run / HISTORY_FILE)
            _show_progress(run / PROGRESS_FILE, fold, progress)

        folds.append(run_fold(consortium, experiment, fold, checkpoints=run / CHECKPOINTS_FOLDER, report=report))
    write_site_history(folds, run / SITE_BLENDING_FILE)
    return folds


def _fit_cox(consortium: FlowerConsortium, experiment: Experiment, run: Path) -> Sequence[Course]:
    sites = FlowerCox(consortium, experiment)
    folds = []
    for fold in range(experiment.evaluation.runs):
        write_text_atomically(run / PROGRESS_FILE, json.dumps({"fold": fold, "round": 0, "best": None}))
        folds.append(run_cox_fold(sites, experiment, fold))
    write_cox(run_final_cox(sites, experiment), experiment, run / COX_FILE)
    return folds


def _show_progress(path: Path, fold: int, progress: Progress) -> None:
    """Tell the command that started the run where it is."""
    best = progress.selected_loss if math.isfinite(progress.selected_loss) else None
    write_text_atomically(path, json.dumps({"fold": fold, "round": progress.round, "best": best}))
