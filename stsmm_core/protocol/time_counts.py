"""Survival curves: events and censorings by time."""

from collections.abc import Mapping
from typing import Any

from stsmm_core.cohort.dictionary import LONGEST_TIME_DAYS
from stsmm_core.config import Experiment
from stsmm_core.protocol.keys import (
    LARGEST_COUNT,
    Numbers,
    ProtocolError,
    read_array,
    read_count,
    read_counts,
    read_times,
)
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


def time_counts_from_numbers(
    numbers: Mapping[str, Any], experiment: Experiment, *, most: int = LARGEST_COUNT
) -> dict[str, TimeCounts | None]:
    """Inverse of `time_counts_to_numbers`, of at most so many patients."""
    return {
        endpoint: None
        if read_count(numbers, f"{endpoint}.withheld", most=1)
        else read_counts_at(numbers, endpoint, most)
        for endpoint in experiment.data.endpoints
    }


def read_counts_at(numbers: Mapping[str, Any], prefix: str, most: int) -> TimeCounts:
    """Events and censorings by time, of at most so many patients.

    Raises:
        ProtocolError: naming the field, when they are none.
    """
    times = read_times(numbers, f"{prefix}.times", most=most)
    events, censored = (
        read_counts(numbers, f"{prefix}.{key}", times.shape, most=most) for key in ("events", "censored")
    )
    if events.sum() + censored.sum() > most:
        raise ProtocolError(f"field '{prefix}.events' or '{prefix}.censored' counts more patients than there are")
    if (events + censored < 1).any():
        raise ProtocolError(f"field '{prefix}.times' holds a time at which no patient left")
    move = read_array(numbers, f"{prefix}.largest-move", (), low=0, high=LONGEST_TIME_DAYS)
    return TimeCounts(times, events, censored, float(move))
