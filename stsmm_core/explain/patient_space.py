"""Heat maps where they belong: in the patient, and over one of the patient's own channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from stsmm_core.config import Imaging
from stsmm_core.explain.grad_cam import HeatMaps
from stsmm_core.imaging.preprocess import PatientImages, read_images, run_steps, tumour_grid
from stsmm_core.imaging.quality import tumour_on
from stsmm_core.imaging.volume import Geometry, Volume, resample, to_image

SHOWN_FIRST = "t2"


@dataclass(frozen=True, eq=False)
class PatientMap:
    """One patient's heat map over one of the patient's channels.

    Attributes:
        channel: name of the channel.
        image: the channel at its own resolution.
        tumour: on the channel's grid.
        heat: upsampled, on the channel's grid; NaN outside the tensor's field of view.
        tensor_heat: upsampled, on the tensor's grid.
        native: the block's own voxels, in patient space.
    """

    channel: str
    image: Volume
    tumour: NDArray[np.bool_]
    heat: Volume
    tensor_heat: Volume
    native: Volume


def to_patient_space(
    maps: HeatMaps, patient: int, *, channels: Mapping[str, Path], mask: Path, config: Imaging
) -> PatientMap:
    """Put a patient's map back into physical space, onto T2, or the last MRI channel where there is none.

    Args:
        patient: row of the maps.
        channels, mask: the patient's files, as for preprocessing.

    Raises:
        CohortError: as for preprocessing.
    """
    images = _placed(read_images(channels, mask), config)
    reference = images.channels[images.first].geometry
    grid = tumour_grid(images.tumour, reference, shape=config.shape, margin_mm=config.margin_mm)
    name = channel_to_show(tuple(channels), config.bias_correction.channels)
    image = images.channels[name]
    tensor_heat = Volume(maps.upsampled(patient).astype(np.float32), grid)
    return PatientMap(
        name,
        image,
        tumour_on(image, images.tumour),
        resample(tensor_heat, image.geometry, interpolation="linear"),
        tensor_heat,
        Volume(maps.native[patient], block_grid(maps, grid)),
    )


def block_grid(maps: HeatMaps, grid: Geometry) -> Geometry:
    """Where the block's own voxels lie, given the tensor's grid."""
    spacing = np.array(grid.spacing_mm)
    depth, height, width = maps.native.shape[1:]
    origin = np.array(grid.origin) + grid.axes @ (spacing * maps.block.start)
    coarse = (spacing * maps.block.step).tolist()
    return Geometry((width, height, depth), (coarse[0], coarse[1], coarse[2]), tuple(origin.tolist()), grid.direction)


def channel_to_show(channels: Sequence[str], mri: Sequence[str]) -> str:
    """T2; without it the last MRI channel, without any the first channel."""
    if SHOWN_FIRST in channels:
        return SHOWN_FIRST
    return next((name for name in reversed(channels) if name in mri), channels[0])


def write_nifti(volume: Volume, path: Path) -> None:
    """Write a volume in patient space; NaN becomes 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(to_image(Volume(np.nan_to_num(volume.array), volume.geometry)), str(path))


def _placed(images: PatientImages, config: Imaging) -> PatientImages:
    """The channels where registration put them, their voxels as they are."""
    steps = tuple(step for step in config.steps if step == "registration")
    return run_steps(images, config.model_copy(update={"steps": steps}))
