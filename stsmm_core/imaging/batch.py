"""The tensors, or the features, of many patients, several at a time.

What a worker process has to import is kept small: it starts for a few patients, and torch alone takes seconds.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import SimpleITK as sitk

from stsmm_core.config import Imaging
from stsmm_core.errors import CohortError, RunError
from stsmm_core.imaging.cache import store_patient

INTERRUPT_S = 1.0
"""How long an interrupt that ended a worker may take to reach this process."""


@dataclass(frozen=True)
class Job:
    """A patient whose images are wanted.

    Attributes:
        label: of the patient, for messages at the site.
    """

    label: str
    channels: Mapping[str, Path]
    mask: Path


def store_tensors(jobs: Sequence[Job], config: Imaging, cache: Path, *, workers: int) -> Iterator[str | None]:
    """Make and store tensors in worker processes; as each is done, what is wrong with it, or None."""
    return for_each(jobs, partial(_store_tensor, config=config, cache=cache), workers=workers)


def for_each(jobs: Sequence[Job], work: Callable[[Job], object], *, workers: int) -> Iterator[str | None]:
    """Do the work of each patient in worker processes; as each is done, what is wrong with it, or None.

    Args:
        work: can be pickled; raises CohortError.

    Raises:
        RunError: when a worker process was ended from outside.
    """
    if not jobs:
        return
    # A fresh interpreter a worker: a forked one would inherit the threads of the image library.
    context = get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=start_worker) as pool:
        with _interrupts_held_back():
            running = [pool.submit(_try, work, job) for job in jobs]
        try:
            for done in as_completed(running):
                yield done.result()
        except BrokenProcessPool:
            time.sleep(INTERRUPT_S)  # Ctrl-C ends workers too, perhaps before it arrives here
            raise RunError(
                "a worker process ended without a word (out of memory?); what is done is kept; "
                "fewer --workers need less"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Keep Ctrl-C waiting, also in processes that start meanwhile, until they let it through themselves."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def start_worker() -> None:
    """On Ctrl-C a worker ends without a word: the process that waits for it says what there is to say.

    Where that one ignores it, as in the background of a script, so does the worker.
    """
    use_one_thread()
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def use_one_thread() -> None:
    """Of the image library: one patient a process, more threads would only wait for each other."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _store_tensor(job: Job, config: Imaging, cache: Path) -> None:
    store_patient(cache, job.channels, job.mask, config)


def _try(work: Callable[[Job], object], job: Job) -> str | None:
    """Say what is wrong instead of raising, so that one patient does not stop the others."""
    try:
        work(job)
    except CohortError as error:
        return f"{job.label}: {error}"
    return None
