"""A site's outputs of each model, kept for the test at the end; the files stay at the site."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stsmm_core.errors import RunError
from stsmm_core.files import write_atomically


def save_outputs(folder: Path, fold: int, *, development: NDArray[np.float64], test: NDArray[np.float64]) -> None:
    """Keep log hazards of a fold's development and test patients, with no reference taken off.

    Args:
        development: of training and then validation patients, shape (heads, patients, endpoints); NaN where a head has
            no input for the patient.
        test: the same of the test patients.
    """

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, development=development, test=test)

    write_atomically(_file(folder, fold), write)


def load_outputs(folder: Path, fold: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inverse of `save_outputs`.

    Raises:
        RunError: when the model was not tested here.
    """
    try:
        with np.load(_file(folder, fold)) as kept:
            return kept["development"], kept["test"]
    except FileNotFoundError:
        raise RunError(f"{_file(folder, fold)}: missing; this site did not predict model {fold + 1}") from None


def _file(folder: Path, fold: int) -> Path:
    return folder / f"outputs-{fold}.npz"
