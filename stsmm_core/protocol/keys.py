"""Message types, record keys and the reading of a field."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

WITHHELD = -1
"""A count below the site's minimum cell size."""


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


def read_array(numbers: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A field as a finite array of the agreed shape."""
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
    return values.reshape(shape)
