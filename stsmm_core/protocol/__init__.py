"""What crosses the wire, known to both ends: message types, record keys and layouts, a module a message.

Everything is a flat list of numbers or a short string; docs/wire.md says of each field what it reveals.
"""

from stsmm_core.protocol.description import (
    description_from_numbers,
    description_to_numbers,
    training_sums_from_numbers,
    training_sums_to_numbers,
)
from stsmm_core.protocol.keys import (
    ARRAYS,
    BLENDING,
    CHANNELS,
    CONFIG,
    EXPERIMENT,
    FOLD,
    METRICS,
    NAME,
    PAIRS_ACTION,
    PREDICT_ACTION,
    QUERY,
    REFUSAL,
    ROUND,
    RUN_VARIABLE,
    SCHEMA,
    SITE,
    SITES,
    SITES_VARIABLE,
    WEIGHT,
    WITHHELD,
    WITHHELD_VARIABLES,
    Numbers,
    ProtocolError,
    read_array,
)
from stsmm_core.protocol.pairs import (
    pairs_from_numbers,
    pairs_to_numbers,
)
from stsmm_core.protocol.rounds import (
    encoding_from_numbers,
    encoding_to_numbers,
    losses_from_numbers,
    losses_to_numbers,
)

__all__ = [
    "ARRAYS",
    "BLENDING",
    "CHANNELS",
    "CONFIG",
    "EXPERIMENT",
    "FOLD",
    "METRICS",
    "NAME",
    "PAIRS_ACTION",
    "PREDICT_ACTION",
    "QUERY",
    "REFUSAL",
    "ROUND",
    "RUN_VARIABLE",
    "SCHEMA",
    "SITE",
    "SITES",
    "SITES_VARIABLE",
    "WEIGHT",
    "WITHHELD",
    "WITHHELD_VARIABLES",
    "Numbers",
    "ProtocolError",
    "description_from_numbers",
    "description_to_numbers",
    "encoding_from_numbers",
    "encoding_to_numbers",
    "losses_from_numbers",
    "losses_to_numbers",
    "pairs_from_numbers",
    "pairs_to_numbers",
    "read_array",
    "training_sums_from_numbers",
    "training_sums_to_numbers",
]
