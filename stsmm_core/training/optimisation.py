"""The optimiser of a site, the risk windows of an epoch, and what FedProx adds to a step."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stsmm_core.cohort.splits import Rows
from stsmm_core.config import Training


def build_optimizer(training: Training, named: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """The experiment's optimiser in its first state, for parameters with their names in the network."""
    parameters = list(named)
    clinical = [parameter for name, parameter in parameters if "clinical" in name.split(".")]
    others = [parameter for name, parameter in parameters if "clinical" not in name.split(".")]
    groups = [
        {"params": others, "weight_decay": training.weight_decay},
        {"params": clinical, "weight_decay": training.weight_decay * training.clinical_decay_factor},
    ]
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=training.learning_rate, momentum=training.momentum, nesterov=training.momentum > 0
        )
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(training.momentum, 0.999))


def risk_windows(rows: Rows, has_event: NDArray[np.bool_], size: int, rng: np.random.Generator) -> list[Rows]:
    """Shuffle into risk windows of nearly equal size, events dealt evenly among them.

    Args:
        has_event: whether a patient has an event of any endpoint, shape (rows,).
        size: most patients of a window.
    """
    order = rng.permutation(len(rows))
    shuffled, event = rows[order], has_event[order]
    dealt = np.concatenate([shuffled[event], shuffled[~event]])
    number = math.ceil(len(dealt) / size)
    return [rng.permutation(dealt[start::number]) for start in range(number)]


def pull_back(parameters: Iterable[nn.Parameter], anchor: Iterable[Tensor], mu: float) -> None:
    """Add the gradient of mu / 2 |w - anchor|^2 (Li et al., FedProx, MLSys 2020, equation 2).

    A weight that got no gradient was not part of the step and still lies where it was.
    """
    for parameter, start in zip(parameters, anchor, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - start, alpha=mu)
