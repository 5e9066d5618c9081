"""The tumour mask of a channel, from whatever the outline was exported as, on the grid of that channel."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from stsmm_core.cohort.dicom.contours import enclosed_cm3, rasterise, read_structures
from stsmm_core.cohort.dicom.scan import Series, read_object
from stsmm_core.cohort.dicom.segmentations import read_segments
from stsmm_core.cohort.dicom.series import read_series
from stsmm_core.errors import CohortError
from stsmm_core.imaging.quality import volumes_differ
from stsmm_core.imaging.volume import Geometry, Volume, read_volume

OFF_GRID = 0.1
"""Two grids are one while no voxel centre is further off than this part of a voxel."""


@dataclass(frozen=True)
class Outline:
    """Where a tumour mask comes from.

    Attributes:
        kind: RT structure set, DICOM segmentation, series of 0/255 images, or NIfTI file.
        path: of the DICOM object or the NIfTI file.
        series: the series of 0/255 images.
        regions: names of the structures or segments to unite.
    """

    kind: Literal["structures", "segmentation", "images", "nifti"]
    path: Path
    series: Series | None = None
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mask:
    """A tumour mask (0 and 1), and what is odd about its outline.

    Attributes:
        contour_cm3: volume within the contours; None where the outline was made of voxels.
    """

    volume: Volume
    notes: tuple[str, ...] = ()
    contour_cm3: float | None = None


def read_mask(outline: Outline, grid: Geometry, frame_of_reference: str) -> Mask:
    """Read an outline as a mask on the grid of the images that it was drawn on.

    Raises:
        CohortError: when it cannot be read, is empty, or was drawn on other images; without the files' names.
    """
    match outline.kind:
        case "structures":
            mask = _read_structures(outline, grid, frame_of_reference)
        case "segmentation":
            segments, frame = read_segments(outline.path, outline.regions, grid)
            _check_frame({frame}, frame_of_reference, "the segmentation")
            mask = Mask(onto_grid(segments, grid))
        case "images":
            assert outline.series is not None
            images, frame = read_series(outline.series)
            _check_frame({frame}, frame_of_reference, "the mask series")
            mask = Mask(onto_grid(_binary(images), grid))
        case "nifti":
            mask = Mask(onto_grid(_binary(_read_nifti(outline.path)), grid))
    if not mask.volume.array.any():
        raise CohortError("no pixel centre lies inside the outline: the mask would be empty; draw it again")
    return mask


def onto_grid(mask: Volume, grid: Geometry) -> Volume:
    """A mask on a grid that has the same voxels, perhaps more of them, or the axes in another order or direction.

    Raises:
        CohortError: when the voxels are not those of the grid.
    """
    own = mask.geometry
    # Steps along the mask's axes, in voxels of the grid, one a column: each must go to a neighbour.
    steps = grid.axes.T @ own.axes * np.array(own.spacing_mm) / np.array(grid.spacing_mm)[:, None]
    whole = np.round(steps)
    drift = np.abs(steps - whole) * (np.array(own.size) - 1)
    if drift.max() > OFF_GRID or not np.array_equal(np.abs(whole).sum(axis=0), [1, 1, 1]):
        raise CohortError("its voxels are not those of the images: it was drawn on other images")
    start = grid.axes.T @ (np.array(own.origin) - np.array(grid.origin)) / np.array(grid.spacing_mm)
    off = np.abs(start - np.round(start)).max()
    if off > OFF_GRID:
        raise CohortError(f"lies {off:.2f} voxels off the grid of the images: it was drawn on other images")
    voxels = (np.round(start) + np.argwhere(mask.array)[:, ::-1] @ whole.T).astype(int)
    if ((voxels < 0) | (voxels >= np.array(grid.size))).any():
        raise CohortError("reaches beyond the images: slices are missing, or it was drawn on other images")
    array = np.zeros(grid.size[::-1], dtype=np.float32)
    array[voxels[:, 2], voxels[:, 1], voxels[:, 0]] = 1
    return Volume(array, grid)


def _read_structures(outline: Outline, grid: Geometry, frame_of_reference: str) -> Mask:
    structures = [one for one in read_structures(read_object(outline.path)) if one.name in outline.regions]
    inside = np.zeros(grid.size[::-1], dtype=bool)
    notes = []
    for structure in structures:
        own = structure.frame_of_reference
        # A frame that the set does not know is stale, and the set's own counts; one that it knows is meant.
        meant = {own} if own and own in structure.frames_of_set else structure.frames_of_set or {own}
        _check_frame(meant, frame_of_reference, "the region")
        if frame_of_reference and own not in ("", frame_of_reference):
            notes.append("the region names another frame of reference than its structure set, whose is the images'")
        if structure.stray:
            notes.append(f"{structure.stray} contours are points or lines: not used")
        drawn = rasterise(structure, grid).array > 0
        slices = np.flatnonzero(drawn.any(axis=(1, 2)))
        if len(slices) and len(slices) < np.ptp(slices) + 1:
            notes.append(f"{np.ptp(slices) + 1 - len(slices)} slices within the outline have no contour: empty there")
        inside |= drawn
    mask_cm3 = float(inside.sum() * np.prod(grid.spacing_mm) / 1000)
    contour_cm3 = enclosed_cm3(structures, grid)
    if volumes_differ(mask_cm3, contour_cm3):
        notes.append(
            f"has {mask_cm3:.2f} cm³, but its contours enclose {contour_cm3:.2f} cm³: pixels too coarse for it"
        )
    return Mask(Volume(inside.astype(np.float32), grid), tuple(notes), contour_cm3)


def _check_frame(frames: Collection[str], images: str, what: str) -> None:
    """Refuse an outline whose frames of reference do not hold the images'; unknown ones ('') refuse nothing."""
    if images and any(frames) and images not in frames:
        raise CohortError(f"{what} has another frame of reference than the images: its coordinates are not theirs")


def _read_nifti(path: Path) -> Volume:
    try:
        return read_volume(path)
    except CohortError as error:  # the path may name the patient
        raise CohortError(str(error).replace(str(path), "the NIfTI mask")) from None


def _binary(mask: Volume) -> Volume:
    """0 and 1 from a mask that is 0 outside and one positive value inside.

    Raises:
        CohortError: when it has other values.
    """
    values = np.unique(mask.array)
    if len(values[values != 0]) > 1 or values.min() < 0:
        raise CohortError(f"has {len(values)} different values; a mask is 0 outside and 1 or 255 inside the tumour")
    return Volume((mask.array != 0).astype(np.float32), mask.geometry)
