"""Progress of a training on the terminal."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stsmm_core.training.experiment import Progress as FoldProgress


@dataclass(frozen=True)
class ProgressBar:
    """A bar on the terminal."""

    _bar: Progress
    _task: TaskID

    def advance(self) -> None:
        """One step more."""
        self._bar.advance(self._task)

    def show_round(self, progress: FoldProgress) -> None:
        """A round is done."""
        self.show(progress.round, progress.selected_loss)

    def show(self, done: int, best: float) -> None:
        """So many rounds are done; the best validation loss so far (infinite before the first)."""
        remark = f"best validation loss {best:.3f}" if math.isfinite(best) else ""
        self._bar.update(self._task, completed=done, remark=remark)


@contextmanager
def progress_bar(console: Console, title: str, total: int) -> Iterator[ProgressBar]:
    """Show a progress bar while the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield ProgressBar(bar, bar.add_task(title, total=total, remark=""))
