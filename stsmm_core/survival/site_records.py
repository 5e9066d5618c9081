"""What a site knows of its patients when its models are tested. It never leaves the site; sums of it do."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class FoldRecords:
    """One model's patients at a site; rows number the site's patients.

    Attributes:
        development: rows of training and validation patients; trained: which of them were for training.
        development_output: log hazards with no reference taken off, shape (heads, development, endpoints); NaN
            where a head has no input for the patient.
        test, test_output: the same of the test patients.
    """

    development: Rows
    trained: NDArray[np.bool_]
    development_output: NDArray[np.float64]
    test: Rows
    test_output: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SiteRecords:
    """A site's outcomes and its models' outputs.

    Attributes:
        time, event: shape (patients, endpoints); NaN where an outcome is not known.
        folds: one a model.
        samples: how often each tested patient, in the order of rows, is in each bootstrap sample; shape
            (endpoints, replicates, tested).
        salt: the site's secret, which seeds the samples of single figures where these are not to be put together.
    """

    time: NDArray[np.float64]
    event: NDArray[np.float64]
    folds: tuple[FoldRecords, ...]
    samples: NDArray[np.float64]
    salt: int

    @property
    def tested(self) -> Rows:
        """Rows of the patients tested by any model."""
        return np.unique(np.concatenate([fold.test for fold in self.folds]))

    @property
    def endpoints(self) -> int:
        """How many there are."""
        return self.time.shape[1]
