"""3D Grad-CAM and HiResCAM: where in the tumour a dense block's features move the predicted risk.

Selvaraju et al., ICCV 2017, doi 10.1109/ICCV.2017.74: the features of a layer, weighted by the mean gradient of the
output, added up, and what is negative set to 0. The paper takes the last convolution, whose map has 2 × 2 × 2 voxels at
the paper's tensor size; the block is the experiment's (`explain.block`), and the map's resolution is said wherever it
is shown.

Averaging the gradient over the volume, and dropping what lowers the risk, can put the heat where the signal is not: a
network may know a tumour by the absence of what it finds elsewhere. On the synthetic cohort that happens to most
networks (docs/explain.md). `hires_cam` multiplies features and gradient voxel by voxel (HiResCAM, Draelos and Carin,
arXiv 2011.08891) and shows the size of the product whatever its sign.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from stsmm_core.errors import RunError
from stsmm_core.explain.captum_import import import_captum
from stsmm_core.model.mmnn import ModalityBatch, MultimodalNetwork

Output = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Block:
    """A dense block of the image encoder, counted from 1, and where the voxels of its output lie on the tensor's grid.

    The first convolution and the pooling after it (of odd kernels, stride 2, symmetric padding) put output voxel i on
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
    """Maps of one output for some patients, not negative; what a value means is the method's.

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


def dense_blocks(network: MultimodalNetwork) -> tuple[Block, ...]:
    """The blocks of the image encoder: 4 in densenet121, 3 in small_densenet, 2 in fine_densenet.

    Raises:
        RunError: when the network has no image encoder.
    """
    if "image" not in network.encoders:
        raise RunError("the network has no image encoder, so there is no heat map; data.modalities needs 'image'")
    names = dict(network.encoders["image"].named_modules())
    number = sum(Block(candidate).name in names for candidate in range(1, 10))
    return tuple(Block(each) for each in range(1, number + 1))


class MapMethod(Protocol):
    """Heat maps of a head's log hazard: `grad_cam` or `hires_cam`."""

    def __call__(
        self,
        network: MultimodalNetwork,
        batch: Mapping[str, ModalityBatch],
        *,
        endpoint: int,
        block: Block,
        head: int = 0,
        batch_size: int = 8,
    ) -> HeatMaps:
        """Maps of patients who all have an image; the network is left in evaluation mode.

        Args:
            endpoint: index of the output.
            head: 0 for the fusion head, which hears the clinical input too; otherwise a unimodal head's index.
            batch_size: patients in memory.
        """
        ...


def grad_cam(
    network: MultimodalNetwork,
    batch: Mapping[str, ModalityBatch],
    *,
    endpoint: int,
    block: Block,
    head: int = 0,
    batch_size: int = 8,
) -> HeatMaps:
    """Grad-CAM; arguments as `MapMethod`."""
    attr = import_captum()

    def explain(log_hazard: Output, layer: nn.Module, images: Tensor) -> Tensor:
        return attr.LayerGradCam(log_hazard, layer).attribute(images, relu_attributions=True)[:, 0]

    return _batched(explain, network, batch, (head, endpoint), block, batch_size)


def hires_cam(
    network: MultimodalNetwork,
    batch: Mapping[str, ModalityBatch],
    *,
    endpoint: int,
    block: Block,
    head: int = 0,
    batch_size: int = 8,
) -> HeatMaps:
    """HiResCAM without its sign: where features move the log hazard, up or down; arguments as `MapMethod`."""
    attr = import_captum()

    def explain(log_hazard: Output, layer: nn.Module, images: Tensor) -> Tensor:
        return attr.LayerGradientXActivation(log_hazard, layer).attribute(images).sum(dim=1).abs()

    return _batched(explain, network, batch, (head, endpoint), block, batch_size)


MAP_METHODS: Mapping[str, MapMethod] = {"grad_cam": grad_cam, "hires_cam": hires_cam}
"""By their name in `explain.method`."""


def _batched(
    explain: Callable[[Output, nn.Module, Tensor], Tensor],
    network: MultimodalNetwork,
    batch: Mapping[str, ModalityBatch],
    output: tuple[int, int],
    block: Block,
    batch_size: int,
) -> HeatMaps:
    if not batch["image"].present.all():
        raise ValueError("a patient without an image has no heat map; leave such patients out")
    network.eval()
    layer = network.encoders["image"].get_submodule(block.name)
    native: list[Tensor] = []
    for rows in torch.arange(len(batch["image"].present)).split(batch_size):
        part = {name: ModalityBatch(each.values[rows], each.present[rows]) for name, each in batch.items()}
        native.append(explain(_log_hazard(network, part, output), layer, part["image"].values).detach())
    shape = batch["image"].values.shape
    return HeatMaps(block, torch.cat(native).cpu().numpy(), (shape[2], shape[3], shape[4]))


def _log_hazard(network: MultimodalNetwork, batch: Mapping[str, ModalityBatch], output: tuple[int, int]) -> Output:
    """One output as a function of the image alone."""
    head, endpoint = output

    def log_hazard(images: Tensor) -> Tensor:
        return network({**batch, "image": ModalityBatch(images, batch["image"].present)})[head, :, endpoint]

    return log_hazard
