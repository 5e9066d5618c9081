"""Heads of a site's own: the final model's, fitted to its training patients."""

from copy import deepcopy

import numpy as np
import torch

from stsmm_core.config import Experiment
from stsmm_core.model.mmnn import Weights, get_weights, set_weights
from stsmm_core.seeds import generator
from stsmm_core.training.optimisation import build_optimizer
from stsmm_core.training.trainer import Trainer

PATIENCE = 10
"""Epochs without a better validation loss of any head after which the fit ends."""


def personalise(trainer: Trainer, weights: Weights, experiment: Experiment) -> Weights:
    """Fit the heads to the site's training patients, everything before them as it is.

    Each head takes the epoch of its own lowest validation loss, the weights as given among them: a site without
    validation events keeps those.
    """
    train, validation = (trainer.encoded(weights, rows) for rows in (trainer.fold.train, trainer.fold.validation))
    position = {row: number for number, row in enumerate(trainer.fold.train)}
    set_weights(trainer.network, weights)
    network = deepcopy(trainer.network)
    optimizer = build_optimizer(experiment.training, network.heads.named_parameters())
    equal = (1.0,) * len(experiment.heads)

    def validation_loss() -> np.ndarray:
        with torch.no_grad():
            outputs = network.decode(validation).cpu().double().numpy()
        return trainer.sums(outputs, trainer.fold.validation).per_event()

    best_loss, best = validation_loss(), get_weights(network)
    waited = 0
    for epoch in range(experiment.federation.personal_epochs):
        rng = generator(experiment.seed, trainer.site, trainer.state.fold, "personal", epoch)
        for window in trainer.windows(trainer.fold.train, rng):
            seen = [position[row] for row in window]
            optimizer.zero_grad(set_to_none=True)
            outputs = network.decode({name: features[seen] for name, features in train.items()})
            trainer.blended_loss(outputs, window, equal).backward()
            optimizer.step()
        loss, now = validation_loss(), get_weights(network)
        better = loss < best_loss
        for head, name in enumerate(experiment.heads):
            if better[head]:
                best |= {key: value for key, value in now.items() if key.startswith(f"heads.{name}.")}
        best_loss = np.where(better, loss, best_loss)
        waited = 0 if better.any() else waited + 1
        if waited == PATIENCE:
            break
    return best
