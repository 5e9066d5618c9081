"""stsmm compare."""

from pathlib import Path
from typing import Annotated

import typer

from stsmm_core.training.cli import CacheFolder, CohortFolders, ConfigFile, RunFolder


def compare(
    config: ConfigFile,
    cohort: CohortFolders,
    out: RunFolder,
    cache: CacheFolder = None,
    second_reader: Annotated[
        Path | None,
        typer.Option(
            "--second-reader",
            help="Cohort folder with another reader's masks of some of the same patients: radiomic features on which "
            "the two do not agree are left out.",
        ),
    ] = None,
) -> None:
    """The paper's experiment: the network beside every comparator, on the same patients, with a report.

    Writes the run folder: comparison.json, report.html, tables, figures, and private/, which holds a run folder a
    network, names patients and stays at the centre.
    """
    from rich.console import Console

    from stsmm_core.cohort.reading import refuse_inside_cohorts
    from stsmm_core.comparators.comparison import compare_run

    refuse_inside_cohorts(cache, cohort, option="--cache")
    compare_run(Console(), config, cohort, out, cache=cache, second_reader=second_reader)
