"""A DICOM image series as one volume: geometry from its slices, pixel values in the unit of the modality."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from stsmm_core.cohort.dicom.scan import Instance, Series, read_object, text
from stsmm_core.cohort.dicom.suv import first_acquisition, suv_per_unit
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Geometry, Volume

ORIENTATION_TOLERANCE = 1e-4
"""Largest difference of direction cosines within one volume: the rounding of decimal strings, well below a degree."""
SHEAR_TOLERANCE = 1e-3
"""Sideways drift from slice to slice, relative to their distance: above it the gantry was tilted."""
SPACING_TOLERANCE = 0.02
"""Relative difference of slice distances within one volume."""
OFF_STACK = 0.25
"""Largest distance of a slice from its place in an even stack, in slice distances: small steps add up to it."""
PIXEL_TOLERANCE = 1e-4
"""Relative difference of pixel distances within one volume: the rounding of decimal strings."""
SAME_PLACE_MM = 1e-3


class FileError(CohortError):
    """A slice that cannot be used; `path` may name the patient, and is for the terminal of who asks for it."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class Stack:
    """The single-frame slices of a volume, sorted along its normal, and their grid.

    Attributes:
        instances: from the first to the last slice of `geometry`.
        frame_of_reference: FrameOfReferenceUID; empty where the files do not say.
    """

    instances: tuple[Instance, ...]
    geometry: Geometry
    frame_of_reference: str


def stack_slices(series: Series) -> Stack:
    """Order a series' slices by position and find their grid; the number of a slice plays no part.

    Raises:
        CohortError: when the slices are no evenly spaced stack, saying at which position; without the files' names.
    """
    if len(series.instances) < 2:
        raise CohortError("has a single slice; export the whole series")
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
        lacking = sum(not text(instance.header, keyword) for instance in series.instances)
        if lacking:
            raise CohortError(
                f"{lacking} of {len(series.instances)} files have no {keyword}; export the original images"
            )
    for keyword in ("Rows", "Columns", "FrameOfReferenceUID"):
        values = {text(instance.header, keyword) for instance in series.instances}
        if len(values) > 1:
            raise CohortError(
                f"its slices have {len(values)} different values of {keyword}: not one volume; export them apart"
            )
    pixels = np.array([_numbers(instance.header, "PixelSpacing", 2) for instance in series.instances])
    if pixels.min() <= 0:
        raise CohortError("PixelSpacing is not above 0; export the original images")
    if not np.allclose(pixels, pixels[0], rtol=PIXEL_TOLERANCE, atol=0):
        raise CohortError("its slices differ in PixelSpacing: not one volume; export them apart")
    orientations = np.array([_numbers(instance.header, "ImageOrientationPatient", 6) for instance in series.instances])
    if np.abs(orientations - orientations[0]).max() > ORIENTATION_TOLERANCE:
        raise CohortError("its slices are turned against each other (a localiser?): they are not one volume")
    along_row, along_column = orientations[0, :3], orientations[0, 3:]
    if abs(np.dot(along_row, along_column)) > ORIENTATION_TOLERANCE or not np.allclose(
        [np.linalg.norm(along_row), np.linalg.norm(along_column)], 1, atol=ORIENTATION_TOLERANCE
    ):
        raise CohortError("ImageOrientationPatient holds no two perpendicular unit vectors; export the original images")
    along_row = along_row / np.linalg.norm(along_row)
    normal = np.cross(along_row, along_column)
    normal /= np.linalg.norm(normal)
    along_column = np.cross(normal, along_row)

    positions = np.array([_numbers(instance.header, "ImagePositionPatient", 3) for instance in series.instances])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    spacing = _slice_spacing(heights[order])
    expected = positions[order[0]] + np.outer(heights[order] - heights[order[0]], normal)
    drift = np.linalg.norm(positions[order] - expected, axis=1).max()
    if drift > max(SHEAR_TOLERANCE * np.ptp(heights), SAME_PLACE_MM * 10):
        raise CohortError(
            f"its slices are shifted sideways by up to {drift:.2f} mm (tilted gantry): resample them at the scanner"
        )
    between_rows, between_columns = pixels[0].tolist()
    geometry = Geometry(
        size=(int(series.header.Columns), int(series.header.Rows), len(order)),
        spacing_mm=(between_columns, between_rows, spacing),
        origin=tuple(positions[order[0]].tolist()),
        direction=tuple(np.stack([along_row, along_column, normal], axis=1).ravel().tolist()),
    )
    return Stack(
        tuple(series.instances[index] for index in order), geometry, text(series.header, "FrameOfReferenceUID")
    )


def is_multiframe(series: Series) -> bool:
    """Whether the series is an enhanced object: one file with all slices."""
    return len(series.instances) == 1 and series.frames > 1


def read_series(series: Series) -> tuple[Volume, str]:
    """A series as a volume and its frame of reference; PET in SUV (body weight), the rest after its rescaling.

    Raises:
        CohortError: when the slices are no volume, or a file is cut short, compressed in a way that cannot be read, in
            colour or without a SUV; without the files' names.
    """
    if is_multiframe(series):
        return _read_multiframe(series.instances[0].path)
    stack = stack_slices(series)
    began = first_acquisition([instance.header for instance in stack.instances])
    slices = []
    for number, instance in enumerate(stack.instances, start=1):
        try:
            slices.append(_read_slice(instance, f"slice {number} of {len(stack.instances)}", began))
        except CohortError as error:
            raise FileError(str(error), instance.path) from None
    return Volume(np.stack(slices).astype(np.float32), stack.geometry), stack.frame_of_reference


def _read_slice(instance: Instance, place: str, began: dt.datetime | None) -> NDArray[np.float64]:
    """The values of a file, after RescaleSlope and RescaleIntercept, PET in SUV; `began`: when the series did."""
    dataset = _read_file(instance.path, place)
    _check_not_inverted(dataset)
    if int(text(dataset, "SamplesPerPixel") or 1) != 1 or text(dataset, "PhotometricInterpretation") != "MONOCHROME2":
        raise CohortError(f"{place} is in colour; export the original grey images")
    slope, intercept = (
        float(text(dataset, name) or default) for name, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise CohortError(f"{place} has a RescaleSlope of {slope} and RescaleIntercept of {intercept}; export it again")
    values = _pixels(dataset, place) * slope + intercept
    if text(dataset, "Modality") == "PT":
        values *= suv_per_unit(dataset, began)
    return values


def _check_not_inverted(header: Dataset) -> None:
    """Refuse images whose largest values are the darkest: to a network they would be upside down.

    Raises:
        CohortError: for MONOCHROME1.
    """
    if text(header, "PhotometricInterpretation") == "MONOCHROME1":
        raise CohortError(
            "is stored inverted (MONOCHROME1: the largest values are the darkest); export it as MONOCHROME2"
        )


def _read_file(path: Path, place: str) -> Dataset:
    try:
        return read_object(path)
    except Exception:  # pydicom raises what the damaged bytes lead it to
        raise CohortError(f"{place} cannot be read; export it again") from None


def _pixels(dataset: Dataset, place: str) -> NDArray[np.float64]:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if "PixelData" not in dataset:
        raise CohortError(f"{place} has no pixels: the file is cut short, or not an image; export it again")
    try:
        pixels = np.asarray(dataset.pixel_array, dtype=np.float64)
    except Exception:  # the decoders raise what the damaged bytes lead them to
        if syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed:
            raise CohortError(
                f"{place} is compressed ({syntax.name}) and cannot be decoded here; export it uncompressed "
                "(Explicit VR Little Endian)"
            ) from None
        raise CohortError(f"{place} is cut short or damaged; export it again") from None
    if pixels.shape != (dataset.Rows, dataset.Columns):
        raise CohortError(f"{place} has pixels of shape {pixels.shape}; export one slice a file")
    return pixels


def _read_multiframe(path: Path) -> tuple[Volume, str]:
    dataset = _read_file(path, "the file")
    _check_not_inverted(dataset)
    try:
        volume = highdicom.Image.from_dataset(dataset).get_volume(
            apply_real_world_transform=False,
            apply_presentation_lut=False,
            apply_voi_transform=False,
            dtype=np.float64,
        )
    except Exception:  # the library raises what the file leads it to, and its text quotes the file
        raise CohortError("its frames are no evenly spaced volume; export single slices") from None
    if text(dataset, "Modality") == "PT":
        raise CohortError("is an enhanced PET object, whose SUV is not read yet; export single slices")
    return from_highdicom(volume), text(dataset, "FrameOfReferenceUID")


def from_highdicom(volume: highdicom.Volume) -> Volume:
    """A highdicom volume, whose axes are (slice, row, column), on the grid that runs along (column, row, slice).

    The grid is right-handed, as that of single slices is, whichever way the library stacks the frames.
    """
    if np.linalg.det(np.array(volume.direction)[:, ::-1]) < 0:
        volume = volume.flip_spatial(0)
    slices, rows, columns = volume.spatial_shape
    x, y, z = volume.position
    directions = np.array(volume.direction)[:, ::-1]
    between_slices, between_rows, between_columns = volume.spacing
    geometry = Geometry(
        size=(columns, rows, slices),
        spacing_mm=(between_columns, between_rows, between_slices),
        origin=(x, y, z),
        direction=tuple(directions.ravel().tolist()),
    )
    return Volume(np.asarray(volume.array, dtype=np.float32), geometry)


def _slice_spacing(heights: NDArray[np.float64]) -> float:
    """Distance of neighbouring slices, given their sorted heights in mm.

    Raises:
        CohortError: naming the place of a missing, double or displaced slice.
    """
    steps = np.diff(heights)
    double = np.flatnonzero(steps < SAME_PLACE_MM)
    if len(double):
        raise CohortError(
            f"has {len(double)} slices twice, the first at {heights[double[0]]:.2f} mm along the stack: "
            "several volumes in one series (echoes, phases), or a copy; export one volume"
        )
    usual = float(np.median(steps))
    uneven = np.flatnonzero(np.abs(steps - usual) > SPACING_TOLERANCE * usual)
    if not len(uneven):
        mean = float(np.ptp(heights) / (len(heights) - 1))
        off = np.abs(heights - (heights[0] + mean * np.arange(len(heights))))
        worst = int(off.argmax())
        if off[worst] > OFF_STACK * mean:
            raise CohortError(
                f"is unevenly spaced: slice {worst + 1}, at {heights[worst]:.2f} mm along the stack, lies "
                f"{off[worst]:.2f} mm off its place among slices {mean:.2f} mm apart; export one evenly spaced volume"
            )
        return mean
    first = int(uneven[0])
    place = (
        f"between {heights[first]:.2f} and {heights[first + 1]:.2f} mm along the stack "
        f"(slices {first + 1} and {first + 2})"
    )
    ratio = steps[first] / usual
    if ratio > 1.5 and abs(ratio - round(ratio)) < SPACING_TOLERANCE * round(ratio):
        raise CohortError(f"lacks {round(ratio) - 1} slice(s) {place}; export the whole series")
    raise CohortError(
        f"is unevenly spaced: {steps[first]:.2f} mm instead of {usual:.2f} mm {place}; export one evenly spaced volume"
    )


def _numbers(header: Dataset, keyword: str, count: int) -> list[float]:
    value = header.get(keyword)
    numbers = [float(part) for part in value] if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise CohortError(f"{keyword} does not hold {count} numbers; export the original images")
    return numbers
