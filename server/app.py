"""The Flower ServerApp: runs the experiment over the sites and writes the run folder. Wiring only."""

import json
import math
import os
from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.consortium import FlowerConsortium
from server.evaluation import ask_for_test
from stsmm_core import protocol
from stsmm_core.config import read_experiment
from stsmm_core.errors import StsmmError
from stsmm_core.files import write_text_atomically
from stsmm_core.run_folder import (
    CHECKPOINTS_FOLDER,
    CONFIG_FILE,
    FAILURE_FILE,
    HISTORY_FILE,
    LEFT_OUT_FILE,
    METRICS_FILE,
    PROGRESS_FILE,
    SERVER_FILE,
)
from stsmm_core.training.experiment import Progress, run_fold, write_history
from stsmm_core.training.fitted import describe_federated_fit, save_fitted
from stsmm_core.training.results import make_metrics, write_metrics
from stsmm_core.training.site_data import agreed_channels

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all folds; what stops the run is written to the run folder for the command that started it."""
    run = Path(os.environ[protocol.RUN_VARIABLE])
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

    def left_out(site: str, reason: str) -> None:
        with (run / LEFT_OUT_FILE).open("a", encoding="utf-8") as log:
            log.write(f"{site}: {reason}\n")

    expected = int(context.run_config[protocol.SITES])
    consortium = FlowerConsortium(grid, experiment, expected=expected, left_out=left_out)
    folds = []
    for fold in range(experiment.evaluation.runs):
        report = partial(_show_progress, run / PROGRESS_FILE, fold)
        folds.append(run_fold(consortium, experiment, fold, checkpoints=run / CHECKPOINTS_FOLDER, report=report))
    write_history(folds, run / HISTORY_FILE)
    pairs = consortium.count_pairs()
    federated = ask_for_test(consortium, experiment)
    channels = agreed_channels({site.site: site.channels for site in consortium.descriptions})
    for fold in range(len(folds)):
        fitted = describe_federated_fit(federated, fold, experiment, channels=channels)
        save_fitted(fitted, run / CHECKPOINTS_FOLDER / f"fold-{fold}.json")
    metrics = make_metrics(
        mode="federated",
        experiment=experiment,
        sites=consortium.descriptions,
        pairs=pairs,
        folds=folds,
        federated=federated,
    )
    write_metrics(metrics, run / METRICS_FILE)


def _show_progress(path: Path, fold: int, progress: Progress) -> None:
    """Tell the command that started the run where it is."""
    best = progress.selected_loss if math.isfinite(progress.selected_loss) else None
    write_text_atomically(path, json.dumps({"fold": fold, "round": progress.round, "best": best}))
