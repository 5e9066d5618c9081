"""3D Grad-CAM: where in the tumour a dense block's features raise the predicted risk.

Selvaraju et al., ICCV 2017, doi 10.1109/ICCV.2017.74: the features of a layer, weighted by the mean gradient of the
output, added up, and what is negative set to 0. The paper takes the last convolution, whose map has 2 × 2 × 2 voxels at
the paper's tensor size; we take the block before the last by default, and say the map's resolution wherever it is
shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from stsmm_core.errors import RunError
from stsmm_core.explain.captum_import import import_captum
from stsmm_core.model.mmnn import ModalityBatch, MultimodalNetwork


@dataclass(frozen=True)
class Block:
    """A dense block of the image encoder, counted from 1, and where the voxels of its output lie on the tensor's grid.

    The first convolution and the pooling after it (kernels 7 and 3, stride 2, symmetric padding) put output voxel i on
    input voxel 4 i; each transition averages two neighbours, so that voxel i lies between voxels 2 i and 2 i + 1.
    """

    number: int

    @property
    def name(self) -> str:
        """Of the module within the encoder."""
        return f"features.denseblock{self.number}"

    @property
    def step(self) -> int:
        """Distance of neighbouring map voxels, in tensor voxels."""
        return 2 ** (self.number + 1)

    @property
    def start(self) -> int:
        """Place of the first map voxel's centre, in tensor voxels from the first one's centre."""
        return 2**self.number - 2


@dataclass(frozen=True, eq=False)
class HeatMaps:
    """Grad-CAM of one output for some patients, in units of the log hazard, not negative.

    Attributes:
        block: the layer.
        native: at the block's own resolution, shape (patients, d, h, w).
        shape: of the tensor, (D, H, W).
    """

    block: Block
    native: NDArray[np.float32]
    shape: tuple[int, int, int]

    def upsampled(self, patient: int) -> NDArray[np.float32]:
        """A patient's map on the tensor's grid, shape (D, H, W), trilinear; beyond the outermost voxels as there."""
        along = [(np.arange(size) - self.block.start) / self.block.step for size in self.shape]
        places = np.meshgrid(*along, indexing="ij")
        return ndimage.map_coordinates(self.native[patient], places, order=1, mode="nearest")

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Patients in whom no place raises the risk, shape (patients,)."""
        return np.asarray(~self.native.any(axis=(1, 2, 3)))


def dense_blocks(network: MultimodalNetwork) -> tuple[Block, ...]:
    """The blocks of the image encoder: 4 in densenet121, 3 in small_densenet.

    Raises:
        RunError: when the network has no image encoder.
    """
    if "image" not in network.encoders:
        raise RunError("the network has no image encoder, so there is no heat map; data.modalities needs 'image'")
    names = dict(network.encoders["image"].named_modules())
    number = sum(Block(candidate).name in names for candidate in range(1, 10))
    return tuple(Block(each) for each in range(1, number + 1))


def default_block(network: MultimodalNetwork) -> Block:
    """The block before the last: 3 in densenet121, 2 in small_densenet."""
    return dense_blocks(network)[-2]


def grad_cam(
    network: MultimodalNetwork,
    batch: Mapping[str, ModalityBatch],
    *,
    endpoint: int,
    block: Block,
    head: int = 0,
    batch_size: int = 8,
) -> HeatMaps:
    """Maps of a head's log hazard for patients who all have an image; the network is left in evaluation mode.

    Args:
        endpoint: index of the output.
        head: 0 for the fusion head, which hears the clinical input too; otherwise a unimodal head's index.
        batch_size: patients in memory.
    """
    if not batch["image"].present.all():
        raise ValueError("a patient without an image has no heat map; leave such patients out")
    network.eval()
    layer = network.encoders["image"].get_submodule(block.name)
    native: list[Tensor] = []
    for rows in torch.arange(len(batch["image"].present)).split(batch_size):
        part = {name: ModalityBatch(each.values[rows], each.present[rows]) for name, each in batch.items()}
        native.append(_grad_cam(network, layer, part, head, endpoint))
    shape = batch["image"].values.shape
    return HeatMaps(block, torch.cat(native).cpu().numpy(), (shape[2], shape[3], shape[4]))


def _grad_cam(
    network: MultimodalNetwork, layer: nn.Module, batch: Mapping[str, ModalityBatch], head: int, endpoint: int
) -> Tensor:
    image = batch["image"]

    def log_hazard(values: Tensor) -> Tensor:
        return network({**batch, "image": ModalityBatch(values, image.present)})[head, :, endpoint]

    maps = import_captum().LayerGradCam(log_hazard, layer).attribute(image.values, relu_attributions=True)
    return maps[:, 0].detach()
