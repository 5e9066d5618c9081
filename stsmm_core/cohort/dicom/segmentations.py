"""Segments of a DICOM SEG as a mask."""

from collections.abc import Collection
from pathlib import Path

import highdicom
import numpy as np
from pydicom.dataset import Dataset

from stsmm_core.cohort.dicom.scan import read_object, text
from stsmm_core.cohort.dicom.series import from_highdicom
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Geometry, Volume

HALF = 0.5
"""A fractional segment is inside where at least half of the voxel is."""


def segment_labels(header: Dataset) -> list[str]:
    """Names of the segments, in the order of their numbers."""
    return [text(segment, "SegmentLabel") for segment in header.get("SegmentSequence") or ()]


def referenced_series(header: Dataset) -> set[str]:
    """SeriesInstanceUIDs that a segmentation says it was drawn on."""
    return {text(series, "SeriesInstanceUID") for series in header.get("ReferencedSeriesSequence") or ()}


def read_segments(path: Path, labels: Collection[str], grid: Geometry) -> tuple[Volume, str]:
    """The union of the segments with these labels, as 0 and 1, and its frame of reference.

    The volume runs from the first slice to the last that is not empty.

    Args:
        grid: of the images; how far apart their slices are tells where empty ones were left out, if the file does not.

    Raises:
        CohortError: when the file cannot be read or its frames are no evenly spaced volume.
    """
    try:
        dataset = read_object(path)
        _complete_spacing(dataset, grid)
        segmentation = highdicom.seg.Segmentation.from_dataset(dataset, copy=False)
        chosen = [
            number
            for number in segmentation.segment_numbers
            if segmentation.get_segment_description(number).segment_label in labels
        ]
        volume = segmentation.get_volume(
            segment_numbers=chosen, combine_segments=False, rescale_fractional=True, allow_missing_positions=True
        )
    except Exception:  # the library raises whatever the file leads it to
        raise CohortError("the segmentation cannot be read; export it again") from None
    united = np.asarray((np.asarray(volume.array) >= HALF).any(axis=-1), dtype=np.float32)
    return from_highdicom(volume.with_array(united)), text(segmentation, "FrameOfReferenceUID")


def _complete_spacing(dataset: Dataset, grid: Geometry) -> None:
    """Give frames without SpacingBetweenSlices that of the images: slices drawn on need be no neighbours."""
    groups = [*dataset.get("SharedFunctionalGroupsSequence", ()), *dataset.get("PerFrameFunctionalGroupsSequence", ())]
    planes = [plane for group in groups for plane in group.get("PlaneOrientationSequence", ())]
    along_row, along_column = np.array(planes[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    across = np.abs(grid.axes.T @ np.cross(along_row, along_column)).argmax()
    for group in groups:
        for measures in group.get("PixelMeasuresSequence", ()):
            if not text(measures, "SpacingBetweenSlices"):
                measures.SpacingBetweenSlices = grid.spacing_mm[across]
