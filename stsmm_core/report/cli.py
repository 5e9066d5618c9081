"""stsmm tensorboard."""

from pathlib import Path
from typing import Annotated

import typer


def tensorboard(
    run: Annotated[Path, typer.Argument(help="A run folder, of any mode.", exists=True, file_okay=False)],
    watch: Annotated[bool, typer.Option("--watch", help="Go on with each round until the run is finished.")] = False,
) -> None:
    """Write a run's losses and blending weights for TensorBoard."""
    from stsmm_core.report.tensorboard import FOLDER, write_tensorboard

    if watch:
        typer.echo(f"Look meanwhile, in another terminal: tensorboard --logdir {run / FOLDER}")
    typer.echo(f"tensorboard --logdir {write_tensorboard(run, watch=watch)}")
