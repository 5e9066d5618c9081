"""stsmm simulate: virtual centres on one machine."""

from typing import Annotated

import typer

from stsmm_core.training.cli import CacheFolder, CohortFolders, ConfigFile, KindOfModel, RunFolder

Centres = Annotated[int | None, typer.Option("--centres", min=1, help="Divide one cohort into this many centres.")]
Kind = Annotated[
    str | None,
    typer.Option(
        "--partition",
        help="equal, size (long tail), column (a centre a value), dirichlet (skewed labels) or scanner.",
        show_default="equal",
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        help="column: a column of clinical.csv or acquisition.csv; dirichlet: that, or an endpoint's events.",
        show_default="os for dirichlet",
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option("--alpha", min=1e-3, max=1e6, help="dirichlet: small is skewed, large even.", show_default="0.5"),
]
Exponent = Annotated[
    float | None,
    typer.Option("--exponent", min=0, max=10, help="size: centre k in proportion to k^-exponent.", show_default="1"),
]
AtLeast = Annotated[
    int | None,
    typer.Option("--at-least", min=1, help="size, dirichlet: patients of each centre.", show_default="10"),
]
Strength = Annotated[
    float | None,
    typer.Option("--strength", min=0, max=1, help="scanner: how far the scanners differ.", show_default="1"),
]
Compare = Annotated[
    bool, typer.Option("--compare", help="Also train centralised and each site alone; is it worth joining?")
]
LeaveOneOut = Annotated[
    bool, typer.Option("--leave-one-out", help="With --compare: also a federation without each site in turn.")
]


def simulate(
    config: ConfigFile,
    cohort: CohortFolders,
    out: RunFolder,
    centres: Centres = None,
    model: KindOfModel = None,
    partition: Kind = None,
    by: By = None,
    alpha: Alpha = None,
    exponent: Exponent = None,
    at_least: AtLeast = None,
    strength: Strength = None,
    compare: Compare = False,
    leave_one_out: LeaveOneOut = False,
    cache: CacheFolder = None,
) -> None:
    """Train over virtual centres: each cohort is one, or one cohort is divided.

    Runs the same server and client code as a real consortium, on Flower's simulation runtime.
    Writes the run folder: config.toml, versions.json, history.csv, metrics.json, checkpoints (of a
    Cox model cox.json instead), report.html;
    with --compare a folder of such runs, comparison.json, comparison.csv and report.html.
    """
    from rich.console import Console

    from simulation.compare import compare_run
    from simulation.partition import choose_partition
    from simulation.simulate import simulate_run
    from stsmm_core.cohort.reading import refuse_inside_cohorts
    from stsmm_core.errors import ConfigError

    options = {"centres": centres, "by": by, "alpha": alpha, "exponent": exponent, "at_least": at_least}
    division = choose_partition(partition, options | {"strength": strength})
    if leave_one_out and not compare:
        raise ConfigError("--leave-one-out needs --compare")
    refuse_inside_cohorts(cache, cohort, option="--cache")
    if compare:
        compare_run(
            Console(), config, cohort, out, partition=division, cache=cache, leave_one_out=leave_one_out, kind=model
        )
    else:
        simulate_run(Console(), config, cohort, out, partition=division, cache=cache, kind=model)
