"""Encoder of the clinical modality: the paper's multilayer perceptron."""

from torch import nn

from stsmm_core.config import Model


def build_clinical_encoder(config: Model, inputs: int) -> nn.Module:
    """A network from (patients, inputs) encoded variables to (patients, features)."""
    layers: list[nn.Module] = []
    width = inputs
    for hidden in config.clinical_widths:
        norm = nn.GroupNorm(1, hidden) if config.norm == "group" else nn.BatchNorm1d(hidden)
        layers += [nn.Linear(width, hidden), norm, nn.ReLU(), nn.Dropout(config.dropout)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, config.features))
