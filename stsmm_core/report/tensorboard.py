"""A run's history for TensorBoard: losses and blending weights by round, one TensorBoard run a model."""

import csv
import time
from pathlib import Path

from stsmm_core.errors import RunError
from stsmm_core.run_folder import CONFIG_FILE, FAILURE_FILE, HISTORY_COLUMNS, HISTORY_FILE, METRICS_FILE

FOLDER = "tensorboard"
WATCH_S = 2.0
CURVES = {"train_loss": "training loss", "validation_loss": "validation loss", "weight": "blending weight"}


def write_tensorboard(run: Path, *, watch: bool) -> Path:
    """Write history.csv as TensorBoard's event files into the run folder; with `watch` until the run has ended.

    Raises:
        RunError: when tensorboard is not installed, or the folder holds no run with a history.
    """
    if not (run / CONFIG_FILE).exists():
        raise RunError(f"{run} is not a run folder of stsmm")
    written = 0
    while True:
        finished = (run / METRICS_FILE).exists() or (run / FAILURE_FILE).exists()
        history = _read(run / HISTORY_FILE)
        _write(history[written:], run / FOLDER)
        written = len(history)
        if finished or not watch:
            break
        time.sleep(WATCH_S)
    if not written:
        raise RunError(f"{run} has no round in its history yet (Cox models have none); --watch waits for the first")
    return run / FOLDER


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and set(rows[0]) != set(HISTORY_COLUMNS):
        raise RunError(f"{path}: this is not the history of a run")
    return rows


def _write(rows: list[dict[str, str]], out: Path) -> None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RunError("tensorboard is not installed; in the source folder: pip install '.[tensorboard]'") from None

    for fold in sorted({int(row["fold"]) for row in rows}):
        own = [row for row in rows if int(row["fold"]) == fold]
        # What an earlier command wrote of these rounds is hidden by what comes now.
        first = min(int(row["round"]) for row in own)
        with SummaryWriter(str(out / f"fold-{fold}"), purge_step=first) as writer:
            for row in own:
                for column, title in CURVES.items():
                    if row[column]:  # the training loss is known at checkpoints only
                        writer.add_scalar(f"{title}/{row['head']}", float(row[column]), int(row["round"]))
