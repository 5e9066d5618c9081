"""Encoder of the clinical modality: the paper's multilayer perceptron."""

from torch import Tensor, nn
from torch.nn import functional as F

from stsmm_core.config import Model

HIDDEN_WIDTHS = (32, 16, 8, 8, 8)
"""Fig. 4A of the paper."""


class BatchNormOfAnySize(nn.BatchNorm1d):
    """Batch norm that falls back on its running statistics where a batch of one patient has no variance."""

    def forward(self, values: Tensor) -> Tensor:
        """Normalise (patients, features)."""
        if self.training and len(values) == 1:
            return F.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(values)


def build_clinical_encoder(config: Model, inputs: int) -> nn.Module:
    """A network from (patients, inputs) encoded variables to (patients, features)."""
    layers: list[nn.Module] = []
    width = inputs
    for hidden in HIDDEN_WIDTHS:
        norm = nn.GroupNorm(1, hidden) if config.norm == "group" else BatchNormOfAnySize(hidden)
        layers += [nn.Linear(width, hidden), norm, nn.ReLU(), nn.Dropout(config.dropout)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, config.features))
