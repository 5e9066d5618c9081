"""Dividing one cohort into virtual centres."""

from dataclasses import replace

import numpy as np

from stsmm_core.cohort.cohort import Cohort
from stsmm_core.errors import CohortError
from stsmm_core.seeds import generator


def divide_equally(cohort: Cohort, centres: int, *, seed: int) -> list[Cohort]:
    """Divide a cohort at random into centres of equal size (the sizes differ by one patient at most).

    Raises:
        CohortError: when there are fewer patients than centres.
    """
    if len(cohort.patients) < centres:
        raise CohortError(
            f"{cohort.root.name} has {len(cohort.patients)} patients, too few for {centres} centres; lower --centres"
        )
    order = generator(seed, "partition").permutation(np.array(cohort.patients))
    return [
        replace(
            cohort.subset([str(patient) for patient in part]),
            manifest=cohort.manifest.model_copy(update={"site": f"centre_{number}"}),
        )
        for number, part in enumerate(np.array_split(order, centres), start=1)
    ]
