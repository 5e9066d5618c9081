"""Outlines of an RT structure set as a mask: by geometry alone, whatever images the contours name."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from stsmm_core.cohort.dicom.scan import text
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Geometry, Volume

OFF_SLICE = 0.25
"""Largest distance of a contour from its slice, in slice distances; further off it was drawn on other images."""
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
CORNERS = 3
"""Fewer points than these enclose nothing."""
FINER = 8
"""Parts of a pixel's side by which the area of contours is measured."""


@dataclass(frozen=True)
class Contour:
    """One closed outline: patient coordinates in mm, shape (points, 3)."""

    points: NDArray[np.float64]


@dataclass(frozen=True)
class Structure:
    """A region of interest of a structure set.

    Attributes:
        name: ROIName.
        frame_of_reference: of its coordinates, as the region says.
        frames_of_set: frames of reference that the whole structure set names; on real files they can be right where
            the region's own is stale.
        contours: closed outlines of at least three points.
        stray: how many contours are points or lines, which enclose nothing.
    """

    name: str
    frame_of_reference: str
    frames_of_set: frozenset[str]
    contours: tuple[Contour, ...]
    stray: int


def referenced_series(header: Dataset) -> set[str]:
    """SeriesInstanceUIDs that a structure set says it was drawn on."""
    return {
        text(series, "SeriesInstanceUID")
        for frame in header.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    }


def read_structures(dataset: Dataset) -> list[Structure]:
    """Every region of interest of a structure set.

    Raises:
        CohortError: for contour data that are no list of points.
    """
    drawn = {text(item, "ReferencedROINumber"): item for item in dataset.get("ROIContourSequence") or ()}
    references = dataset.get("ReferencedFrameOfReferenceSequence") or ()
    frames = {text(dataset, "FrameOfReferenceUID"), *(text(item, "FrameOfReferenceUID") for item in references)} - {""}
    structures = []
    for region in dataset.get("StructureSetROISequence") or ():
        name = text(region, "ROIName")
        item = drawn.get(text(region, "ROINumber"))
        contours: list[Contour] = []
        stray = 0
        for number, contour in enumerate((item and item.get("ContourSequence")) or (), start=1):
            try:
                values = np.asarray(contour.get("ContourData") or (), dtype=np.float64)
            except ValueError:
                values = np.array([np.nan])
            if len(values) % 3 or not np.isfinite(values).all():
                raise CohortError(f"contour {number} of the region is no list of points; export the contours again")
            if text(contour, "ContourGeometricType") not in CLOSED or len(values) < 3 * CORNERS:
                stray += 1
                continue
            points = values.reshape(-1, 3)
            # Stored twice, a contour would cut itself out again.
            if not any(np.array_equal(points, other.points) for other in contours):
                contours.append(Contour(points))
        frame = text(region, "ReferencedFrameOfReferenceUID")
        structures.append(Structure(name, frame, frozenset(frames), tuple(contours), stray))
    return structures


def rasterise(structure: Structure, grid: Geometry) -> Volume:
    """The voxels whose centre lies inside the structure, as 0 and 1.

    Within a slice the contours are combined by exclusive or: a contour inside another cuts a hole.

    Raises:
        CohortError: for a contour that is not within a slice of the grid, naming it and its distance.
    """
    mask = np.zeros(grid.size[::-1], dtype=np.float32)
    for index, polygons in _polygons(structure, grid).items():
        mask[index] = inside_polygons(polygons, rows=grid.size[1], columns=grid.size[0])
    return Volume(mask, grid)


def enclosed_cm3(structures: Sequence[Structure], grid: Geometry) -> float:
    """Volume that the contours of structures enclose together, cm³, however coarse the pixels of the grid are.

    Contours are combined as `rasterise` does, and each counts for one slice of the grid.

    Raises:
        CohortError: as `rasterise`.
    """
    drawn = [_polygons(structure, grid) for structure in structures]
    inside = 0
    for index in set().union(*drawn):
        here = [polygons[index] for polygons in drawn if index in polygons]
        points = np.concatenate([polygon for polygons in here for polygon in polygons])
        corner = points.min(axis=0)
        columns, rows = np.ceil((points.max(axis=0) - corner) * FINER).astype(int)
        fine = np.zeros((rows, columns), dtype=bool)
        for polygons in here:
            # The finer pixels begin at the corner, their centres half a pixel further.
            finer = [(polygon - corner) * FINER - 0.5 for polygon in polygons]
            fine |= inside_polygons(finer, rows=rows, columns=columns)
        inside += int(fine.sum())
    return float(inside * np.prod(grid.spacing_mm) / FINER**2 / 1000)


def _polygons(structure: Structure, grid: Geometry) -> dict[int, list[NDArray[np.float64]]]:
    """The contours of each slice as polygons (points, 2) of (column, row).

    Raises:
        CohortError: for a contour that is not within a slice of the grid, naming it and its distance.
    """
    by_slice: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for number, contour in enumerate(structure.contours, start=1):
        # Voxel coordinates: whole numbers are voxel centres.
        indices = (contour.points - np.array(grid.origin)) @ grid.axes / np.array(grid.spacing_mm)
        heights = indices[:, 2]
        index = round(float(np.median(heights)))
        off = float(np.abs(heights - index).max())
        what = f"contour {number} of {len(structure.contours)} of the region"
        if not 0 <= index < grid.size[2]:
            beyond = max(-float(np.median(heights)), float(np.median(heights)) - grid.size[2] + 1) * grid.spacing_mm[2]
            raise CohortError(
                f"{what} lies {beyond:.1f} mm beyond the last slice: slices are missing, "
                "or it was drawn on other images"
            )
        if off > OFF_SLICE:
            raise CohortError(
                f"{what} lies {off * grid.spacing_mm[2]:.1f} mm off its slice {index + 1} (slices are "
                f"{grid.spacing_mm[2]:.1f} mm apart): it was drawn on other images"
            )
        columns, rows = indices[:, 0], indices[:, 1]
        over = max(-columns.min(), columns.max() - grid.size[0] + 1, -rows.min(), rows.max() - grid.size[1] + 1) - 0.5
        if over > 0.5:
            raise CohortError(f"{what} reaches {over:.1f} pixels beyond the image: it was drawn on other images")
        by_slice[index].append(indices[:, :2])
    return by_slice


def inside_polygons(polygons: Sequence[NDArray[np.float64]], *, rows: int, columns: int) -> NDArray[np.bool_]:
    """Which pixel centres lie inside an odd number of the polygons, shape (rows, columns).

    Counts the edges that a ray from the centre towards smaller columns crosses. An edge holds its upper end but not its
    lower one, so that a vertex counts once; a centre exactly on an edge is inside on one side of a shape only, so that
    two shapes that share an edge share no pixel.

    Args:
        polygons: each of shape (points, 2), (column, row), closed by itself; whole numbers are pixel centres.
    """
    crossings = np.zeros((rows, columns + 1), dtype=np.int64)
    for polygon in polygons:
        following = np.roll(polygon, -1, axis=0)
        for (x0, y0), (x1, y1) in zip(polygon, following, strict=True):
            low, high = min(y0, y1), max(y0, y1)
            first, last = max(int(np.ceil(low)), 0), min(int(np.ceil(high)), rows)
            if first >= last:
                continue
            crossed = np.arange(first, last)
            x = x0 + (crossed - y0) * (x1 - x0) / (y1 - y0)
            # From the first centre at or beyond the edge on, each centre of the row has this crossing behind it.
            np.add.at(crossings, (crossed, np.clip(np.ceil(x).astype(int), 0, columns)), 1)
    return np.cumsum(crossings[:, :columns], axis=1) % 2 == 1
