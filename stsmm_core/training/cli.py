"""stsmm train, the centralised mode, and stsmm preprocess, which gets its images ready."""

from pathlib import Path
from typing import Annotated

import typer

from stsmm_core.config import ModelKind

ConfigFile = Annotated[Path, typer.Argument(help="Experiment file, e.g. configs/demo.toml.", metavar="CONFIG")]
CohortFolders = Annotated[
    list[Path],
    typer.Option("--cohort", help="Cohort folder, or a folder of cohort folders; may be given more than once."),
]
RunFolder = Annotated[Path, typer.Option("--out", help="Run folder; a run that was interrupted goes on from there.")]
CacheFolder = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder of preprocessed images to share between runs.", show_default="in --out"),
]

KindOfModel = Annotated[
    ModelKind | None, typer.Option("--model", help="Kind of model, in place of the experiment's model.kind.")
]


def train(
    config: ConfigFile,
    cohort: CohortFolders,
    out: RunFolder,
    model: KindOfModel = None,
    cache: CacheFolder = None,
) -> None:
    """Train on all cohorts together, in one place.

    Writes the run folder: config.toml, versions.json, history.csv, metrics.json, checkpoints (of a
    Cox model cox.json instead), report.html.
    """
    from rich.console import Console

    from stsmm_core.cohort.reading import refuse_inside_cohorts
    from stsmm_core.training.train import train_run

    refuse_inside_cohorts(cache, cohort, option="--cache")
    train_run(Console(), config, cohort, out, cache=cache, kind=model)


def preprocess(
    cohort: Annotated[list[Path], typer.Argument(help="Cohort folders, or folders of cohort folders.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", help=r"Experiment file; its \[imaging] counts.", show_default="the defaults"),
    ] = None,
    cache: Annotated[Path, typer.Option("--cache", help="Folder of preprocessed images, for --cache of a run.")] = Path(
        "runs/cache"
    ),
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes.", show_default="one a core")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make every tensor anew.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Predict time and disk; write nothing.")] = False,
) -> None:
    """Make the tensors of all patients, several at a time; what is in the cache already is left alone."""
    from rich.console import Console

    from stsmm_core.cohort.reading import refuse_inside_cohorts
    from stsmm_core.training.preprocessing import preprocess_cohorts

    refuse_inside_cohorts(cache, cohort, option="--cache")
    preprocess_cohorts(Console(), cohort, config, cache, workers=workers, force=force, dry_run=dry_run)
