"""Encoder of the image modality: 3D DenseNet on the tumour volume."""

from typing import Any

from torch import nn

from stsmm_core.config import Model

GROUPS = 8
"""Channels of both networks are multiples of 8, so that group norm divides them everywhere."""

_DENSENET121: dict[str, Any] = {"init_features": 64, "growth_rate": 32, "block_config": (6, 12, 24, 16)}
_SMALL: dict[str, Any] = {"init_features": 16, "growth_rate": 8, "block_config": (2, 2, 2), "bn_size": 2}


def build_image_encoder(config: Model, channels: int) -> nn.Module:
    """A network from (patients, channels, D, H, W) to (patients, features).

    densenet121 is the paper's (Methods, image network); small_densenet has the same kind of blocks, three of
    them with growth 8, for demonstration and tests.
    """
    from monai.networks.nets import DenseNet  # half of the start of a process, which many messages do not need

    norm = ("group", {"num_groups": GROUPS}) if config.norm == "group" else "batch"
    shape = _DENSENET121 if config.image_encoder == "densenet121" else _SMALL
    return DenseNet(
        spatial_dims=3,
        in_channels=channels,
        out_channels=config.features,
        norm=norm,
        dropout_prob=config.dropout,
        **shape,
    )
