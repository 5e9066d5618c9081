"""The test: concordance counts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stsmm_core.config import Experiment
from stsmm_core.protocol.keys import Numbers, read_array
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


def pairs_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> list[list[PairCounts]]:
    """Inverse of `pairs_to_numbers`."""
    shape = len(experiment.heads), len(experiment.data.endpoints)
    replicates = (*shape, experiment.evaluation.bootstrap_replicates)
    concordant, comparable = read_array(numbers, "concordant", shape), read_array(numbers, "comparable", shape)
    patients, events = read_array(numbers, "patients", shape), read_array(numbers, "events", shape)
    concordant_replicates = read_array(numbers, "concordant-replicates", replicates)
    comparable_replicates = read_array(numbers, "comparable-replicates", replicates)
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
