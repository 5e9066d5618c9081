"""stsmm simulate: virtual centres on one machine."""

from typing import Annotated

import typer

from stsmm_core.training.cli import CacheFolder, CohortFolders, ConfigFile, KindOfModel, RunFolder

Centres = Annotated[int | None, typer.Option("--centres", min=1, help="Divide one cohort into this many centres.")]


def simulate(
    config: ConfigFile,
    cohort: CohortFolders,
    out: RunFolder,
    centres: Centres = None,
    model: KindOfModel = None,
    cache: CacheFolder = None,
) -> None:
    """Train over virtual centres: each cohort is one, or one cohort is divided into --centres.

    Runs the same server and client code as a real consortium, on Flower's simulation runtime.
    Writes the run folder: config.toml, versions.json, history.csv, metrics.json, checkpoints (of a
    Cox model cox.json instead), report.html.
    """
    from rich.console import Console

    from simulation.simulate import simulate_run
    from stsmm_core.cohort.reading import refuse_inside_cohorts

    refuse_inside_cohorts(cache, cohort, option="--cache")
    simulate_run(Console(), config, cohort, out, centres=centres, cache=cache, kind=model)
