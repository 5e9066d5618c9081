"""stsmm predict."""

from pathlib import Path
from typing import Annotated

import typer

from stsmm_core.training.cli import CacheFolder, CohortFolders


def predict(
    run: Annotated[
        Path, typer.Argument(help="Finished run of stsmm train, stsmm simulate or stsmm compare.", metavar="RUN")
    ],
    cohort: CohortFolders,
    out: Annotated[Path, typer.Option("--out", help="Folder for the predictions; it names patients.")],
    patient: Annotated[str | None, typer.Option("--patient", help="Only this patient_id.")] = None,
    cache: CacheFolder = None,
) -> None:
    """Survival curves and absolute risks of patients, and how far they are from the training patients."""
    from rich.console import Console

    from stsmm_core.cohort.reading import refuse_inside_cohorts
    from stsmm_core.prediction.predict import predict_run

    refuse_inside_cohorts(cache, cohort, option="--cache")
    predict_run(Console(), run, cohort, out, patient=patient, cache=cache)
