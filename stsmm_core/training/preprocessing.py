"""`stsmm preprocess`: the tensors of all patients of some cohorts, before anything trains on them."""

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from stsmm_core.cohort.reading import cohort_folders, load_cohort
from stsmm_core.config import Experiment, Imaging, read_experiment
from stsmm_core.errors import CohortError
from stsmm_core.imaging.batch import Job, store_tensors
from stsmm_core.imaging.cache import is_cached
from stsmm_core.imaging.channels import channel_notes
from stsmm_core.training.inputs import image_jobs
from stsmm_core.training.progress import progress_bar

BYTES_A_VOXEL = 4
MEBIBYTE = 2**20


def preprocess_cohorts(
    console: Console,
    folders: Sequence[Path],
    config: Path | None,
    cache: Path,
    *,
    workers: int | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Fill the cache with the tensors of all patients that have images.

    The patient of median size is done first and timed; disk and time of the rest are predicted from it. One who cannot
    be done predicts nothing: the next one is.

    Args:
        config: experiment file whose [imaging] counts; the defaults without one.
        force: also make the tensors that are in the cache.
        dry_run: stop after the prediction; nothing is kept.

    Raises:
        CohortError: with every patient whose images cannot be used; the others are in the cache then. In a dry run,
            with those that were tried. Also when nobody has images.
        ConfigError: when a channel is to be registered that a cohort does not have.
    """
    imaging = (Experiment() if config is None else read_experiment(config)).imaging
    cohorts = [load_cohort(root) for root in cohort_folders(folders)]
    for channels in dict.fromkeys(cohort.manifest.channels for cohort in cohorts):
        for note in channel_notes(channels, imaging):
            console.print(f"Note: {note}", soft_wrap=True)
    jobs = [job for cohort in cohorts for job in image_jobs(cohort)]
    if not jobs:
        raise CohortError(
            f"{', '.join(map(str, folders))}: no patient has images; name a cohort whose cohort.toml lists channels "
            "and whose images folder holds them"
        )
    todo = [job for job in jobs if force or not is_cached(cache, job.channels, job.mask, imaging)]
    console.print(f"{len(jobs)} patients with images; {len(jobs) - len(todo)} in {cache} already", soft_wrap=True)
    if not todo:
        return
    todo.sort(key=_bytes)
    number = workers or os.cpu_count() or 1
    outcomes: list[str | None] = []
    with TemporaryDirectory() as scratch:
        while todo and None not in outcomes:
            median = todo.pop(len(todo) // 2)
            started = time.perf_counter()
            outcomes += store_tensors([median], imaging, Path(scratch) if dry_run else cache, workers=1)
            seconds = time.perf_counter() - started
    if None in outcomes:
        console.print(_prediction([median, *todo], imaging, number, seconds), soft_wrap=True)
    if not dry_run:
        with progress_bar(console, "Preprocessing", len(outcomes) + len(todo)) as bar:
            for _ in outcomes:
                bar.advance()
            for outcome in store_tensors(todo, imaging, cache, workers=number):
                outcomes.append(outcome)
                bar.advance()
    faults = sorted(f"  {fault}" for fault in outcomes if fault is not None)
    if faults:
        raise CohortError(f"{len(faults)} of {len(jobs)} patients could not be preprocessed\n" + "\n".join(faults))
    if not dry_run:
        console.print(f"All tensors are in {cache}; train with --cache {cache}", soft_wrap=True)


def _bytes(job: Job) -> int:
    return sum(path.stat().st_size for path in job.channels.values())


def _prediction(todo: Sequence[Job], imaging: Imaging, workers: int, seconds: float) -> str:
    voxels = math.prod(imaging.shape) * sum(len(job.channels) for job in todo)
    minutes = seconds * len(todo) / min(workers, len(todo)) / 60
    mebibytes = voxels * BYTES_A_VOXEL / MEBIBYTE
    return (
        f"{len(todo)} to do: at most {math.ceil(mebibytes)} MiB of disk and {math.ceil(minutes)} min on {workers} "
        f"process{'' if workers == 1 else 'es'} ({seconds:.1f} s for the patient of median size, start included)"
    )
