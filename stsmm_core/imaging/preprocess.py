"""From a patient's volumes and tumour mask to one tensor, with nothing learned from other patients.

The order of the steps:

1. bias correction of each MRI channel on its own grid (N4; not yet part of this version);
2. the tumour grid: the box around the tumour and its margin, padded to the tensor's shape, one spacing for all axes;
3. every channel and the mask read off on that grid, in physical space, straight from their own grids. This one
   interpolation aligns, crops, pads and resizes at once;
4. z-score of each channel within the tumour's bounding region;
5. everything beyond the tumour and its perilesional margin set to 0, the mean of the bounding region.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stsmm_core.config import Imaging
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Geometry, Volume, read_volume, resample

PREPROCESSING_VERSION = 1
"""Raise it with every change that alters a tensor: cached tensors of other versions are then computed anew."""

CONSTANT = 1e-6
"""A standard deviation below this share of the largest value is rounding, not contrast."""


def preprocess_patient(channels: Sequence[Path], mask: Path, config: Imaging) -> NDArray[np.float32]:
    """One patient's tensor, shape (channels, D, H, W), z-scored, 0 beyond the margin and outside a field of view.

    Axes D, H, W run along the z, y, x axes of the first channel. Each channel and the mask may have its own grid; where
    they lie relative to each other is taken from their headers.

    Args:
        channels: one volume a channel, in the order of the tensor.
        mask: the tumour; any voxel that is not 0 belongs to it.
        config: shape (D, H, W) of the tensor and margin in mm.

    Raises:
        CohortError: naming the file that is unreadable, not finite, empty, constant or elsewhere, and the remedy.
    """
    tumour = read_tumour(mask)
    volumes = [read_volume(path) for path in channels]
    grid = tumour_grid(tumour, volumes[0].geometry, shape=config.shape, margin_mm=config.margin_mm)
    inside = resample(tumour, grid, interpolation="nearest").array > 0
    if not inside.any():
        raise CohortError(
            f"{mask}: the tumour is thinner than one voxel of the tensor ({grid.spacing_mm[0]:.1f} mm) and vanishes; "
            "remove stray voxels far from the tumour, or raise imaging.shape"
        )
    region = perilesional_region(inside, spacing_mm=grid.spacing_mm[0], margin_mm=config.margin_mm)
    box = bounding_box(region)
    tensor = np.zeros((len(channels), *config.shape), dtype=np.float32)
    for index, (path, volume) in enumerate(zip(channels, volumes, strict=True)):
        values = resample(volume, grid, interpolation="linear").array
        if np.isnan(values[inside]).all():
            raise CohortError(
                f"{path}: does not overlap the tumour of {mask} in physical space; "
                "check that both headers (origin, direction, spacing) belong to the same examination"
            )
        standardised = zscore(values, box, source=path)
        tensor[index] = np.where(region & np.isfinite(standardised), standardised, 0)
    return tensor


def read_tumour(path: Path) -> Volume:
    """Read a tumour mask as 0 and 1.

    Raises:
        CohortError: also when it has no tumour voxel.
    """
    volume = read_volume(path)
    if not volume.array.any():
        raise CohortError(f"{path}: the mask is empty (all voxels 0); draw the tumour, or take the image files away")
    return Volume((volume.array != 0).astype(np.float32), volume.geometry)


def tumour_grid(tumour: Volume, reference: Geometry, *, shape: tuple[int, int, int], margin_mm: float) -> Geometry:
    """The isotropic grid of a patient's tensor, centred on the tumour and aligned with the reference's axes.

    The spacing is the smallest with which `shape` (D, H, W) holds the tumour's voxels and `margin_mm` around them; the
    axes with room to spare are padded.
    """
    slices = ndimage.find_objects(tumour.array.astype(np.uint8))[0]
    corner = np.array([along.start for along in slices])[::-1]
    indices = np.argwhere(tumour.array[slices])[:, ::-1] + corner
    own = tumour.geometry
    centres = np.array(own.origin) + indices * np.array(own.spacing_mm) @ own.axes.T
    # Along the reference's axes: how far the centres reach, and each voxel's own half width.
    along = centres @ reference.axes
    half = np.abs(reference.axes.T @ own.axes) @ np.array(own.spacing_mm) / 2
    lower, upper = along.min(axis=0) - half - margin_mm, along.max(axis=0) + half + margin_mm
    size = np.array(shape[::-1])
    spacing = float(((upper - lower) / size).max())
    origin = reference.axes @ ((lower + upper) / 2 - spacing * (size - 1) / 2)
    return Geometry((shape[2], shape[1], shape[0]), (spacing,) * 3, tuple(origin.tolist()), reference.direction)


def perilesional_region(inside: NDArray[np.bool_], *, spacing_mm: float, margin_mm: float) -> NDArray[np.bool_]:
    """The tumour and the tissue whose distance from its surface is at most `margin_mm` (isotropic grid).

    The surface lies half a voxel outside the centres of the outermost tumour voxels.
    """
    distance = ndimage.distance_transform_edt(~inside, sampling=spacing_mm) - spacing_mm / 2
    return inside | (distance <= margin_mm)


def bounding_box(region: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The smallest box of voxels that holds a region."""
    depth, height, width = ndimage.find_objects(region.astype(np.uint8))[0]
    return depth, height, width


def zscore(values: NDArray[np.float32], box: tuple[slice, slice, slice], *, source: Path) -> NDArray[np.float32]:
    """Subtract the mean and divide by the standard deviation of the voxels in `box`; NaN (no data) stays NaN.

    Raises:
        CohortError: naming `source` when the voxels do not vary.
    """
    within = values[box].astype(np.float64)
    mean, deviation = np.nanmean(within), np.nanstd(within)
    if deviation <= CONSTANT * np.nanmax(np.abs(within)):
        raise CohortError(
            f"{source}: has the same value ({mean:g}) all over the tumour region; export the channel again"
        )
    return ((values - mean) / deviation).astype(np.float32)
