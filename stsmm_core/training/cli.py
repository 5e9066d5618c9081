"""stsmm train: the centralised mode."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(help="Experiment file, e.g. configs/demo.toml.", metavar="CONFIG")]
CohortFolders = Annotated[
    list[Path],
    typer.Option("--cohort", help="Cohort folder, or a folder of cohort folders; may be given more than once."),
]
RunFolder = Annotated[Path, typer.Option("--out", help="Run folder; a run that was interrupted goes on from there.")]
CacheFolder = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder of preprocessed images to share between runs. [default: in --out]"),
]


def train(config: ConfigFile, cohort: CohortFolders, out: RunFolder, cache: CacheFolder = None) -> None:
    """Train on all cohorts together, in one place.

    Writes the run folder: config.toml, versions.json, history.csv, metrics.json, checkpoints, report.html.
    """
    from rich.console import Console

    from stsmm_core.training.train import train_run

    train_run(Console(), config, cohort, out, cache=cache)
