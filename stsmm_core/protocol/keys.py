"""Message types, record keys and the reading of a field."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stsmm_core.cohort.dictionary import LONGEST_TIME_DAYS
from stsmm_core.errors import StsmmError

EXPERIMENT = "experiment"
"""Key of the run configuration that holds the resolved experiment as TOML text."""
SITES_VARIABLE = "STSMM_SITES"
"""Environment variable of a simulation: the folder of site files; virtual node i takes i.toml."""
RUN_VARIABLE = "STSMM_RUN"
"""Environment variable of the server: the run folder, or the folder of all runs where runs have names."""

SITES = "sites"
"""Key of the run configuration: sites to wait for at the start."""
RUN = "run"
"""Key of the run configuration: name of the run at server and sites, the same when it is resumed; empty in simulations,
whose folders hold one run."""

QUERY = "query"
PREDICT_ACTION = "predict"
PAIRS_ACTION = "pairs"
SCALE_ACTION = "scale"
DEVELOPMENT_ACTION = "development"
TEST_ACTION = "test"

ARRAYS = "arrays"
WEIGHTS = "weights"
"""The one array of that record: the network's weights, packed."""
CONFIG = "config"
METRICS = "metrics"
SITE = "site"
REFUSAL = "refusal"

ROUND = "server-round"
FOLD = "fold"
CHANNELS = "channels"
NAME = "name"
SCHEMA = "schema-version"
WITHHELD_VARIABLES = "withheld"
BLENDING = "blending-weights"
WEIGHT = "weight"
"""How much a site's update counts in the average."""
PATIENTS = "patients"
EVENTS = "events"
SEEN = "modalities-seen"
MISSED = "modalities-missed"
TAUGHT = "heads-taught"
"""Whether a site trained on a patient with, and without, each modality: 0 or 1 a modality."""
INVERTED = "events-inverted"
"""Whether an endpoint's events look coded the wrong way round: 0 or 1 an endpoint."""
PROXIMAL_MU = "proximal-mu"
"""Flower's own key: what FedProx sends with a training round."""

Numbers = dict[str, Any]
"""A record of numbers and lists of numbers."""

ROUNDING = 1e-9
"""By which two sums over the same patients may miss what holds of them exactly."""

WITHHELD = -1
"""A count below the site's minimum cell size."""
MOST_PATIENTS = 20_000
"""That a site can have: far more than any hospital sees with a sarcoma, and their pairs would fit no site's memory."""
MOST_PATIENTS_WITHHELD = 100
"""That a site can have which withholds how many: a minimum cell size is about 5, never near this."""
LARGEST_COUNT = 10_000_000
"""Patients may count many times: once an endpoint, or once a repeat of cross-validation."""
LARGEST_NUMBER = 1e12
"""Sizes of fields that are no counts stay far below this; sums of so large numbers, and their squares, are finite."""


class ProtocolError(StsmmError):
    """A message does not have the agreed layout."""


def run_name(text: str) -> str:
    """The name of a run, made sure to be no path.

    Raises:
        ProtocolError: when it is something else than lower-case letters, digits, - and _.
    """
    if re.fullmatch(r"([a-z0-9][a-z0-9_-]{0,63})?", text) is None:
        raise ProtocolError("the run's name is not made of at most 64 lower-case letters, digits, - and _")
    return text


def most_patients(named: int | None) -> int:
    """How many patients a site may speak of that has named so many, or withheld the number."""
    return MOST_PATIENTS_WITHHELD if named is None else named


def read_array(
    numbers: Mapping[str, Any],
    key: str,
    shape: tuple[int, ...],
    *,
    low: float = -LARGEST_NUMBER,
    high: float = LARGEST_NUMBER,
) -> NDArray[np.float64]:
    """A field as an array of the agreed shape, with numbers from `low` to `high`.

    Raises:
        ProtocolError: naming the field, when it holds something else.
    """
    if key not in numbers:
        raise ProtocolError(f"field '{key}' is missing from the message")
    try:
        values = np.asarray(numbers[key], dtype=float)
    except (TypeError, ValueError):
        raise ProtocolError(f"field '{key}' holds something else than numbers") from None
    if values.size != int(np.prod(shape)):
        raise ProtocolError(f"field '{key}' holds {values.size} numbers, not {int(np.prod(shape))}")
    if not np.isfinite(values).all():
        raise ProtocolError(f"field '{key}' holds a value that is not a number")
    if low == 0 and (values < 0).any():
        raise ProtocolError(f"field '{key}' holds a negative number")
    if (values < low).any() or (values > high).any():
        raise ProtocolError(f"field '{key}' holds a number that is not from {low:g} to {high:g}")
    return values.reshape(shape)


def read_counts(
    numbers: Mapping[str, Any],
    key: str,
    shape: tuple[int, ...],
    *,
    most: int = LARGEST_COUNT,
    withheld: bool = False,
) -> NDArray[np.float64]:
    """A field of whole numbers from 0 to `most`, or `WITHHELD` where the field allows it.

    Raises:
        ProtocolError: naming the field, when it holds something else.
    """
    values = read_array(numbers, key, shape, low=WITHHELD if withheld else 0, high=most)
    if (values != np.rint(values)).any():
        raise ProtocolError(f"field '{key}' holds a number that is not a count")
    return values


def check_sums(
    n: NDArray[np.float64], total: NDArray[np.float64], squares: NDArray[np.float64], key: str, *, largest: float
) -> None:
    """Whether there are n numbers, none larger than `largest`, with that sum and sum of squares.

    Raises:
        ProtocolError: naming the field, when there are not.
    """
    too_small = (squares < 0) | (n * squares < total**2 * (1 - ROUNDING))
    if too_small.any() or (squares > n * largest**2 * (1 + ROUNDING)).any():
        raise ProtocolError(f"field '{key}' holds a sum and a sum of squares of no numbers up to {largest:g}")


def read_length(numbers: Mapping[str, Any], key: str) -> int:
    """How long a list is whose length is the sender's own to say."""
    if key not in numbers:
        raise ProtocolError(f"field '{key}' is missing from the message")
    if not isinstance(numbers[key], Sequence) or isinstance(numbers[key], (str, bytes)):
        raise ProtocolError(f"field '{key}' is not a list")
    return len(numbers[key])


def read_times(numbers: Mapping[str, Any], key: str, *, most: int = LARGEST_COUNT) -> NDArray[np.float64]:
    """A field of at most so many times in days that increase, none longer than a life.

    Raises:
        ProtocolError: naming the field, when it holds something else.
    """
    count = read_length(numbers, key)
    if count > most:
        raise ProtocolError(f"field '{key}' holds {count} times, more than the {most} patients who can have one")
    times = read_array(numbers, key, (count,), low=0, high=LONGEST_TIME_DAYS)
    if (np.diff(times) <= 0).any():
        raise ProtocolError(f"field '{key}' does not increase")
    return times


def read_count(numbers: Mapping[str, Any], key: str, *, most: int = LARGEST_COUNT) -> int:
    """A field of one whole number from 0 to `most`."""
    return int(read_counts(numbers, key, (), most=most))
