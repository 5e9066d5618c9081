"""The multimodal neural network: an encoder a modality, a fusion head and a unimodal head each."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.model.clinical_encoder import build_clinical_encoder
from stsmm_core.model.image_encoder import build_image_encoder
from stsmm_core.seeds import derive_seed

Weights = dict[str, NDArray[np.float32]]
"""What travels between server and sites: every parameter and running statistic, by name."""

NORMALISATION_LAYERS = (nn.BatchNorm1d, nn.BatchNorm3d, nn.GroupNorm)


@dataclass(frozen=True)
class ModalityBatch:
    """One modality of a batch of patients.

    Attributes:
        values: encoder input, first axis patients; arbitrary where the patient lacks the modality.
        present: whether the patient has the modality, shape (patients,), bool.
    """

    values: Tensor
    present: Tensor


class MultimodalNetwork(nn.Module):
    """Late fusion of modality encoders (paper, Fig. 4).

    Head 0 is the multimodal one; the unimodal heads, in the order of the encoders, serve gradient blending.
    A patient without a modality gets that encoder's learned absent vector in its place. In training so does, before
    the fusion head alone, a share `modality_dropout` of the patients who have several modalities: one of these, drawn
    anew each time. So the fusion head leans less on any one (after Neverova et al., IEEE TPAMI 2016,
    doi 10.1109/TPAMI.2015.2461544).
    """

    def __init__(
        self, encoders: Mapping[str, nn.Module], *, features: int, endpoints: int, modality_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.features = features
        self.modality_dropout = modality_dropout
        self.encoders = nn.ModuleDict(encoders)
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(features)) for name in encoders})
        self.heads = nn.ModuleDict(
            {"fusion": nn.Linear(features * len(encoders), endpoints)}
            | {name: nn.Linear(features, endpoints) for name in encoders}
        )

    def forward(self, batch: Mapping[str, ModalityBatch]) -> Tensor:
        """Log hazards, shape (heads, patients, endpoints)."""
        encoded = {name: self.encode(name, batch[name]) for name in self.encoders}
        return self.decode(encoded, self._hide(encoded, batch) if self.training and self.modality_dropout else None)

    def fused(self, batch: Mapping[str, ModalityBatch]) -> Tensor:
        """What the fusion head sees: the modalities' features side by side, shape (patients, all features)."""
        return torch.cat([self.encode(name, batch[name]) for name in self.encoders], dim=1)

    def decode(self, encoded: Mapping[str, Tensor], shown: Mapping[str, Tensor] | None = None) -> Tensor:
        """Log hazards, as `forward`, from the features of each modality, shape (patients, features).

        Args:
            shown: the features that the fusion head sees; the same where not given.
        """
        fused = torch.cat([(shown or encoded)[name] for name in self.encoders], dim=1)
        outputs = [self.heads["fusion"](fused)]
        outputs += [self.heads[name](encoded[name]) for name in self.encoders]
        return torch.stack(outputs)

    def _hide(self, encoded: Mapping[str, Tensor], batch: Mapping[str, ModalityBatch]) -> dict[str, Tensor]:
        """The features with the absent vector in place of the modalities that modality dropout draws."""
        present = torch.stack([batch[name].present for name in self.encoders], dim=1)
        dropped = draw_dropped(present, self.modality_dropout)
        return {
            name: torch.where(dropped[:, column, None], self.absent[name], encoded[name])
            for column, name in enumerate(self.encoders)
        }

    def encode(self, name: str, modality: ModalityBatch) -> Tensor:
        """A modality's features, shape (patients, features); the absent vector for a patient without it."""
        absent = self.absent[name].expand(len(modality.present), self.features)
        if not modality.present.any():
            return absent
        values = modality.values[modality.present]
        encoder = self.encoders[name]
        if self.training:  # batch norm cannot take a variance over one patient: it goes by its running statistics there
            encoder.train(len(values) > 1)
        encoded = encoder(values)
        return absent.masked_scatter(modality.present[:, None], encoded)


def draw_dropped(present: Tensor, share: float) -> Tensor:
    """Which modality the fusion head is not shown of which patient, bool, shape of `present` (patients, modalities).

    A patient of several modalities loses one of them with probability `share`, each as likely; nobody loses the last.
    """
    several = present.sum(dim=1) > 1
    lost = several & (torch.rand(len(present), device=present.device) < share)
    # The largest draw is as likely any modality's; one that the patient lacks draws below all and is never it.
    draws = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
    return lost[:, None] & nn.functional.one_hot(draws.argmax(dim=1), present.shape[1]).bool()


def build_network(experiment: Experiment, *, channels: int, clinical_inputs: int, fold: int) -> MultimodalNetwork:
    """The experiment's network with random initial weights that depend on the seed and the fold alone."""
    torch.manual_seed(derive_seed(experiment.seed, "initial weights", fold))
    encoders: dict[str, nn.Module] = {}
    for modality in experiment.data.modalities:
        if modality == "image":
            if channels == 0:
                raise RunError(
                    "data.modalities names 'image', but no cohort has an image channel; "
                    'set data.modalities = ["clinical"]'
                )
            encoders[modality] = build_image_encoder(experiment.model, channels)
        else:
            encoders[modality] = build_clinical_encoder(experiment.model, clinical_inputs)
    return MultimodalNetwork(
        encoders,
        features=experiment.model.features,
        endpoints=len(experiment.data.endpoints),
        modality_dropout=experiment.model.modality_dropout,
    )


def normalisation_names(network: nn.Module) -> frozenset[str]:
    """Names of the weights and running statistics of the network's normalisation layers."""
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, NORMALISATION_LAYERS)}
    return frozenset(
        f"{name}.{key}"
        for name, layer in layers.items()
        for key, value in layer.state_dict().items()
        if value.is_floating_point()
    )


def is_running_statistic(name: str) -> bool:
    """Whether a weight of that name is a running mean or variance, which no gradient moves."""
    return name.endswith(".running_mean") or is_running_variance(name)


def is_running_variance(name: str) -> bool:
    """Whether a weight of that name is a running variance."""
    return name.endswith(".running_var")


def get_weights(network: nn.Module) -> Weights:
    """A copy of the network's weights and running statistics.

    Batch counters stay behind: with a fixed momentum nothing reads them, and averaging integers would be wrong.
    """
    return {
        name: value.detach().cpu().numpy().copy()
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }


def set_weights(network: nn.Module, weights: Weights) -> None:
    """Load weights in place.

    Raises:
        RunError: when names or shapes are not this network's.
    """
    state = network.state_dict()
    expected = {name: tuple(value.shape) for name, value in state.items() if value.is_floating_point()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != given:
        differing = sorted(set(expected.items()) ^ set(given.items()))
        raise RunError(
            f"the weights are not this network's: {len({name for name, _ in differing})} arrays differ in name or "
            f"shape, {differing[0][0]} among them; was the run started with another experiment or other channels?"
        )
    network.load_state_dict(state | {name: torch.as_tensor(value) for name, value in weights.items()})
