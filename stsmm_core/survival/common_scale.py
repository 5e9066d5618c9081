"""One reference and one unit of risk for all sites: mean and standard deviation over their training patients."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.site_records import SiteRecords


@dataclass(frozen=True, eq=False)
class OutputSums:
    """Number, sum and sum of squares of the training patients' outputs, shape (folds, heads, endpoints) each."""

    n: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __add__(self, other: "OutputSums") -> "OutputSums":
        return OutputSums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def scale(self) -> "Scale":
        """Mean and standard deviation; 0 where no patient was heard."""
        n = np.maximum(self.n, 1)
        mean = self.total / n
        return Scale(mean, np.sqrt(np.maximum(self.squares / n - mean**2, 0)))


@dataclass(frozen=True, eq=False)
class Scale:
    """Mean and standard deviation of the outputs over all sites' training patients, shape (folds, heads, endpoints)."""

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]


def sum_outputs(records: SiteRecords, *, minimum: int) -> OutputSums:
    """A site's share of the common scale; 0 for a head that has fewer than `minimum` training patients."""
    outputs = [fold.development_output[:, fold.trained] for fold in records.folds]
    heard = [np.isfinite(each) for each in outputs]
    n = np.stack([each.sum(axis=1) for each in heard]).astype(float)
    known = [np.where(which, each, 0.0) for each, which in zip(outputs, heard, strict=True)]
    total = np.stack([each.sum(axis=1) for each in known])
    squares = np.stack([(each**2).sum(axis=1) for each in known])
    enough = n >= minimum
    return OutputSums(n * enough, total * enough, squares * enough)
