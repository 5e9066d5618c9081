"""Survival curves: events and censorings by time."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stsmm_core.config import Experiment
from stsmm_core.protocol.keys import Numbers, ProtocolError, read_array
from stsmm_core.survival.time_counts import TimeCounts

TIME_COUNTS_ACTION = "time_counts"


def time_counts_to_numbers(counts: Mapping[str, TimeCounts | None]) -> Numbers:
    """Counts of each endpoint; of one that the site withholds only that it does."""
    numbers: Numbers = {}
    for endpoint, each in counts.items():
        numbers[f"{endpoint}.withheld"] = int(each is None)
        if each is not None:
            numbers[f"{endpoint}.times"] = each.times.tolist()
            numbers[f"{endpoint}.events"] = each.events.tolist()
            numbers[f"{endpoint}.censored"] = each.censored.tolist()
            numbers[f"{endpoint}.largest-move"] = each.largest_move_days
    return numbers


def time_counts_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> dict[str, TimeCounts | None]:
    """Inverse of `time_counts_to_numbers`."""
    return {
        endpoint: None if read_array(numbers, f"{endpoint}.withheld", ()) else _counts(numbers, endpoint)
        for endpoint in experiment.data.endpoints
    }


def _counts(numbers: Mapping[str, Any], endpoint: str) -> TimeCounts:
    shape = (len(numbers.get(f"{endpoint}.times", ())),)
    times = read_array(numbers, f"{endpoint}.times", shape)
    events, censored = (read_array(numbers, f"{endpoint}.{key}", shape) for key in ("events", "censored"))
    if (np.diff(times) <= 0).any() or (events < 0).any() or (censored < 0).any():
        raise ProtocolError(f"the times of '{endpoint}' do not increase, or a count is negative")
    return TimeCounts(times, events, censored, float(read_array(numbers, f"{endpoint}.largest-move", ())))
