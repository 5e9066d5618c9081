"""From a patient's volumes and tumour mask to one tensor, with nothing learned from other patients.

The steps, each a function from images to images, in the order of `imaging.steps`:

- `bias_correction`: N4 of the MRI channels, each on its own grid;
- `registration`: channels moved onto the first one; the grid is moved, no voxel changes;
- `resampling`: every channel and the mask read off on the tumour grid, the box around the tumour and its margin, padded
  to the tensor's shape, with one spacing for all axes. They are read in physical space, straight from their own grids:
  this one interpolation aligns, crops, pads and resizes at once;
- `zscore`: each channel, within the bounding box of the tumour and its margin;
- `masking`: everything beyond the tumour and its perilesional margin is no data.

Voxels without data are NaN until the end and 0 in the tensor: the mean of the box, where the channel was z-scored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stsmm_core.config import Imaging, Step
from stsmm_core.errors import CohortError
from stsmm_core.imaging.bias import correct_bias
from stsmm_core.imaging.registration import Motion, register
from stsmm_core.imaging.volume import Geometry, Volume, read_volume, resample

PREPROCESSING_VERSION = 4
"""Raise it with every change of a tensor, of what is kept with it or of what is refused: others are then made anew."""

CONSTANT = 1e-6
"""A standard deviation below this share of the largest value is rounding, not contrast."""


@dataclass(frozen=True)
class PatientImages:
    """A patient's volumes on their way to a tensor.

    Attributes:
        channels: a volume each, in the order of the tensor.
        tumour: 0 and 1.
        sources: the file of each channel, and of the mask under `mask`; for messages.
        motions: how far each registered channel was moved, and how much that helped.
    """

    channels: Mapping[str, Volume]
    tumour: Volume
    sources: Mapping[str, Path]
    motions: Mapping[str, Motion] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The channel that the tensor's axes run along."""
        return next(iter(self.channels))


def preprocess_patient(channels: Mapping[str, Path], mask: Path, config: Imaging) -> NDArray[np.float32]:
    """One patient's tensor, shape (channels, D, H, W), 0 where there are no data.

    Axes D, H, W run along the z, y, x axes of the first channel, against z where those are left-handed. Each channel
    and the mask may have its own grid; where they lie relative to each other is taken from their headers, and from the
    registration.

    Args:
        channels: a volume each, by name, in the order of the tensor.
        mask: the tumour; any voxel that is not 0 belongs to it.

    Raises:
        CohortError: naming the file that is unreadable, not finite, empty, constant or elsewhere, and the remedy.
    """
    return to_tensor(prepare_patient(channels, mask, config))


def to_tensor(images: PatientImages) -> NDArray[np.float32]:
    """The channels after the last step as one array, 0 where there are no data."""
    return np.stack([np.nan_to_num(volume.array, nan=0.0) for volume in images.channels.values()])


def prepare_patient(channels: Mapping[str, Path], mask: Path, config: Imaging) -> PatientImages:
    """The images after the last step, on the tumour grid; arguments and errors as `preprocess_patient`."""
    return run_steps(read_images(channels, mask), config)


def run_steps(images: PatientImages, config: Imaging) -> PatientImages:
    """`imaging.steps`, one after the other."""
    for step in config.steps:
        images = STEP_FUNCTIONS[step](images, config)
    return images


def run_early_steps(images: PatientImages, config: Imaging) -> PatientImages:
    """The steps on whole volumes, before `resampling`: every channel is left on its own grid."""
    for step in config.steps[: config.steps.index("resampling")]:
        images = STEP_FUNCTIONS[step](images, config)
    return images


def read_images(channels: Mapping[str, Path], mask: Path) -> PatientImages:
    """Read a patient's volumes and mask as they lie on disk."""
    return PatientImages(
        {name: read_volume(path) for name, path in channels.items()}, read_tumour(mask), {**channels, "mask": mask}
    )


def correct_biases(images: PatientImages, config: Imaging) -> PatientImages:
    """N4 of the channels that `imaging.bias_correction` names."""
    return _each(
        images,
        lambda name, volume: (
            correct_bias(volume, config.bias_correction) if name in config.bias_correction.channels else volume
        ),
    )


def register_channels(images: PatientImages, config: Imaging) -> PatientImages:
    """Move the channels that `imaging.registration` names onto the first one; the mask stays with the first."""
    fixed = images.channels[images.first]
    motions: dict[str, Motion] = {}

    def moved(name: str, volume: Volume) -> Volume:
        if name == images.first or name not in config.registration.channels:
            return volume
        placed, motions[name] = register(volume, fixed, config.registration)
        return placed

    return replace(_each(images, moved), motions=motions)


def onto_tumour_grid(images: PatientImages, config: Imaging) -> PatientImages:
    """Read every channel and the mask off on the tumour grid, NaN outside a channel's field of view.

    Raises:
        CohortError: when the tumour vanishes between the voxels, or a channel does not show it.
    """
    reference = images.channels[images.first].geometry
    grid = tumour_grid(images.tumour, reference, shape=config.shape, margin_mm=config.margin_mm)
    tumour = resample(images.tumour, grid, interpolation="nearest")
    inside = tumour.array > 0
    mask = images.sources["mask"]
    if not inside.any():
        raise CohortError(
            f"{mask}: the tumour is thinner than one voxel of the tensor ({grid.spacing_mm[0]:.1f} mm) and vanishes; "
            "remove stray voxels far from the tumour, or raise imaging.shape"
        )

    def resampled(name: str, volume: Volume) -> Volume:
        there = resample(volume, grid, interpolation="linear")
        if np.isnan(there.array[inside]).all():
            raise CohortError(
                f"{images.sources[name]}: does not overlap the tumour of {mask} in physical space; "
                "check that both headers (origin, direction, spacing) belong to the same examination"
            )
        return there

    return replace(_each(images, resampled), tumour=tumour)


def standardise(images: PatientImages, config: Imaging) -> PatientImages:
    """z-score of each channel within the bounding box of the tumour and its margin."""
    box = bounding_box(region_of(images.tumour, config))
    return _each(
        images,
        lambda name, volume: replace(volume, array=zscore(volume.array, box, source=images.sources[name])),
    )


def hide_surroundings(images: PatientImages, config: Imaging) -> PatientImages:
    """NaN for everything beyond the tumour and its margin."""
    region = region_of(images.tumour, config)
    return _each(images, lambda _, volume: replace(volume, array=np.where(region, volume.array, np.float32(np.nan))))


STEP_FUNCTIONS: Mapping[Step, Callable[[PatientImages, Imaging], PatientImages]] = {
    "bias_correction": correct_biases,
    "registration": register_channels,
    "resampling": onto_tumour_grid,
    "zscore": standardise,
    "masking": hide_surroundings,
}


def _each(images: PatientImages, change: Callable[[str, Volume], Volume]) -> PatientImages:
    """The images with each channel changed; an error that names no file gets the channel's."""
    changed: dict[str, Volume] = {}
    for name, volume in images.channels.items():
        try:
            changed[name] = change(name, volume)
        except CohortError as error:
            source = str(images.sources[name])
            named = str(error).startswith((source, str(images.sources["mask"])))
            raise CohortError(str(error) if named else f"{source}: {error}") from None
    return replace(images, channels=changed)


def region_of(tumour: Volume, config: Imaging) -> NDArray[np.bool_]:
    """The tumour and its perilesional margin on the tumour grid."""
    return perilesional_region(tumour.array > 0, spacing_mm=tumour.geometry.spacing_mm[0], margin_mm=config.margin_mm)


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

    Where those are left-handed the third one is reversed, so that no tensor shows mirrored anatomy. The spacing is the
    smallest with which `shape` (D, H, W) holds the tumour's voxels and `margin_mm` around them; the axes with room to
    spare are padded.
    """
    slices = ndimage.find_objects(tumour.array.astype(np.uint8))[0]
    corner = np.array([along.start for along in slices])[::-1]
    indices = np.argwhere(tumour.array[slices])[:, ::-1] + corner
    own = tumour.geometry
    centres = np.array(own.origin) + indices * np.array(own.spacing_mm) @ own.axes.T
    axes = reference.axes * (1, 1, np.sign(np.linalg.det(reference.axes)))
    # Along the reference's axes: how far the centres reach, and each voxel's own half width.
    along = centres @ axes
    half = np.abs(axes.T @ own.axes) @ np.array(own.spacing_mm) / 2
    lower, upper = along.min(axis=0) - half - margin_mm, along.max(axis=0) + half + margin_mm
    size = np.array(shape[::-1])
    spacing = float(((upper - lower) / size).max())
    x, y, z = (axes @ ((lower + upper) / 2 - spacing * (size - 1) / 2)).tolist()
    xx, xy, xz, yx, yy, yz, zx, zy, zz = axes.ravel().tolist()
    direction = (xx, xy, xz, yx, yy, yz, zx, zy, zz)
    return Geometry((shape[2], shape[1], shape[0]), (spacing,) * 3, (x, y, z), direction)


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
