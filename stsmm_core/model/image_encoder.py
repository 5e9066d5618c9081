"""Encoder of the image modality: 3D DenseNet on the tumour volume."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from stsmm_core.config import Model

GROUPS = 8
"""Channels of all networks are multiples of 8, so that group norm divides them everywhere."""

_SMALL: Mapping[str, Any] = {"init_features": 16, "growth_rate": 8, "block_config": (2, 2, 2), "bn_size": 2}
_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "densenet121": {"init_features": 64, "growth_rate": 32, "block_config": (6, 12, 24, 16)},
    "small_densenet": _SMALL,
    "fine_densenet": {**_SMALL, "block_config": (2, 2)},
}
_FIRST_KERNEL = {"fine_densenet": 3}
"""Voxels, where it is not DenseNet's 7."""


def build_image_encoder(config: Model, channels: int) -> nn.Module:
    """A network from (patients, channels, D, H, W) to (patients, features).

    densenet121 is the paper's (Methods, image network). The others have the same kind of blocks with growth 8, for
    demonstration and tests: small_densenet three of them, fine_densenet two behind a first kernel of 3 voxels instead
    of 7, which finds the texture of a small volume sooner.
    """
    from monai.networks.nets import DenseNet  # half of the start of a process, which many messages do not need

    norm = ("group", {"num_groups": GROUPS}) if config.norm == "group" else "batch"
    shape = _SHAPES[config.image_encoder]
    encoder = DenseNet(
        spatial_dims=3,
        in_channels=channels,
        out_channels=config.features,
        norm=norm,
        dropout_prob=config.dropout,
        **shape,
    )
    if kernel := _FIRST_KERNEL.get(config.image_encoder):
        width = shape["init_features"]
        first = nn.Conv3d(channels, width, kernel_size=kernel, stride=2, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(first.weight)  # as MONAI starts the kernel that it replaces
        encoder.features.conv0 = first
    return encoder
