"""The rules that make one model of the sites' updates: Flower's own strategies, one entry a config word."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    Strategy,
)
from numpy.typing import NDArray

from stsmm_core import protocol
from stsmm_core.config import Federation
from stsmm_core.errors import RunError

Common = Mapping[str, Any]


class SentAvgM(FedAvgM):
    """FedAvgM from the weights that were sent.

    Flower's keeps its own copy of what it last made, which knows nothing of running statistics averaged beside it, nor
    of a run that was resumed.
    """

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Any:
        """Start the round's step from these arrays."""
        self.current_arrays = arrays
        return super().configure_train(server_round, arrays, config, grid)


@dataclass(frozen=True)
class Rule:
    """How a strategy is made.

    Attributes:
        robust: built to outvote bad updates, one vote a site: what a site did not train is then filled in with the
            median of those that did, and running statistics are put to the vote like any weight. Elsewhere both are
            weighted means.
        least_sites: sites without which the rule does nothing of what it promises.
        remedy: the change to the experiment with which fewer sites do.
    """

    build: Callable[[Federation, Common], Strategy]
    robust: bool = False
    least_sites: Callable[[Federation], int] = lambda _: 1
    remedy: str = ""


def _fedadam(federation: Federation, common: Common) -> Strategy:
    return FedAdam(**common, **_adaptive(federation))


def _fedyogi(federation: Federation, common: Common) -> Strategy:
    return FedYogi(**common, **_adaptive(federation))


def _adaptive(federation: Federation) -> dict[str, Any]:
    return {
        "eta": federation.adaptive_learning_rate,
        "beta_1": federation.server_momentum,
        "beta_2": federation.second_momentum,
        "tau": federation.adaptivity,
    }


def _fedavgm(federation: Federation, common: Common) -> Strategy:
    return SentAvgM(
        **common,
        server_learning_rate=federation.server_learning_rate,
        server_momentum=federation.server_momentum,
    )


RULES: dict[str, Rule] = {
    "fedavg": Rule(lambda _, common: FedAvg(**common)),
    "fedprox": Rule(lambda federation, common: FedProx(**common, proximal_mu=federation.proximal_mu)),
    "fedadam": Rule(_fedadam),
    "fedyogi": Rule(_fedyogi),
    "fedavgm": Rule(_fedavgm),
    "fedmedian": Rule(lambda _, common: FedMedian(**common), robust=True),
    "fedtrimmedavg": Rule(
        lambda federation, common: FedTrimmedAvg(**common, beta=federation.trim_fraction),
        robust=True,
        least_sites=lambda federation: math.ceil(1 / federation.trim_fraction),
        remedy="raise federation.trim_fraction",
    ),
    "krum": Rule(
        lambda federation, common: Krum(**common, num_malicious_nodes=federation.malicious_sites),
        robust=True,
        least_sites=lambda federation: 2 * federation.malicious_sites + 3,
        remedy="lower federation.malicious_sites",
    ),
}


def check_sites(federation: Federation, sites: int) -> None:
    """Whether so many sites are enough.

    Raises:
        RunError: when they are too few for the strategy, or for `federation.min_sites`.
    """
    rule = RULES[federation.strategy]
    least = rule.least_sites(federation)
    if sites < least:
        raise RunError(
            f"federation.strategy = '{federation.strategy}' needs {least} sites with these settings, {sites} "
            f"take part; choose another strategy, or {rule.remedy}"
        )
    if sites < federation.min_sites:
        raise RunError(
            f"federation.min_sites asks for {federation.min_sites} sites, {sites} take part; lower it, or add sites"
        )


def build_strategy(federation: Federation, sites: int) -> Strategy:
    """The experiment's strategy for so many sites.

    Raises:
        RunError: as `check_sites`.
    """
    check_sites(federation, sites)
    common = {
        "min_train_nodes": federation.min_sites,
        "min_evaluate_nodes": federation.min_sites,
        "min_available_nodes": federation.min_sites,
        "weighted_by_key": protocol.WEIGHT,
    }
    return RULES[federation.strategy].build(federation, common)


def read_moments(strategy: Strategy) -> dict[str, NDArray[Any]]:
    """What the strategy carries from round to round, under names of its own; nothing before its first step."""
    moments: dict[str, NDArray[Any]] = {}
    for kind in _MOMENTS:
        held = getattr(strategy, kind, None)
        entries = held.items() if isinstance(held, dict) else enumerate(held or [])
        moments |= {f"{kind}/{key}": np.asarray(value) for key, value in entries}
    return moments


def restore_moments(strategy: Strategy, moments: Mapping[str, NDArray[Any]]) -> None:
    """Inverse of `read_moments`."""
    for kind in _MOMENTS:
        entries = {name.split("/", 1)[1]: value for name, value in moments.items() if name.startswith(f"{kind}/")}
        if entries:
            # FedAvgM keeps a list in the order of the arrays, the others a dict.
            setattr(strategy, kind, list(entries.values()) if kind == "momentum_vector" else entries)


_MOMENTS = ("m_t", "v_t", "momentum_vector")
