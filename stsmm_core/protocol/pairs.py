"""The test: concordance counts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stsmm_core.config import Experiment
from stsmm_core.protocol.keys import LARGEST_COUNT, Numbers, ProtocolError, read_array, read_counts
from stsmm_core.survival.concordance import PairCounts


def pairs_to_numbers(pairs: Sequence[Sequence[PairCounts]]) -> Numbers:
    """Concordance counts, [head][endpoint], with their bootstrap replicates."""

    def gather(read: Callable[[PairCounts], Any]) -> list[float]:
        return np.array([[read(counts) for counts in head] for head in pairs], dtype=float).ravel().tolist()

    return {
        "concordant": gather(lambda counts: counts.concordant),
        "comparable": gather(lambda counts: counts.comparable),
        "concordant-replicates": gather(lambda counts: counts.concordant_replicates),
        "comparable-replicates": gather(lambda counts: counts.comparable_replicates),
        "patients": gather(lambda counts: counts.patients),
        "events": gather(lambda counts: counts.events),
    }


def pairs_from_numbers(
    numbers: Mapping[str, Any], experiment: Experiment, *, most: int = LARGEST_COUNT
) -> list[list[PairCounts]]:
    """Inverse of `pairs_to_numbers`, of at most so many patients.

    Raises:
        ProtocolError: when a count is none, or there are more concordant pairs than pairs, or events than patients.
    """
    shape = len(experiment.heads), len(experiment.data.endpoints)
    replicates = (*shape, experiment.evaluation.bootstrap_replicates)
    patients, events = (read_counts(numbers, key, shape, most=most) for key in ("patients", "events"))
    concordant, comparable = (_read_pairs(numbers, key, shape, most) for key in ("concordant", "comparable"))
    concordant_replicates, comparable_replicates = (
        _read_pairs(numbers, f"{key}-replicates", replicates, most) for key in ("concordant", "comparable")
    )
    if (events > patients).any():
        raise ProtocolError("field 'events' holds more than field 'patients'")
    if (concordant > comparable).any() or (concordant_replicates > comparable_replicates).any():
        raise ProtocolError("field 'concordant' or its replicates hold more than field 'comparable'")
    return [
        [
            PairCounts(
                float(concordant[at]),
                float(comparable[at]),
                concordant_replicates[at],
                comparable_replicates[at],
                int(patients[at]),
                int(events[at]),
            )
            for at in ((head, endpoint) for endpoint in range(shape[1]))
        ]
        for head in range(shape[0])
    ]


def _read_pairs(numbers: Mapping[str, Any], key: str, shape: tuple[int, ...], most: int) -> NDArray[np.float64]:
    """Numbers of pairs of patients, ties counted half."""
    return read_array(numbers, key, shape, low=0, high=most**2)
