"""Writers of small DICOM exports, as a hospital's systems make them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from contourpy import contour_generator
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

MR, PET, RTSTRUCT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.481.3"
STUDY = generate_uid()


@dataclass(frozen=True)
class Grid:
    """A grid as DICOM describes it; the columns of `axes` are the directions of x, y, z."""

    size: tuple[int, int, int] = (12, 10, 6)
    spacing: tuple[float, float, float] = (0.8, 0.8, 3.0)
    origin: tuple[float, float, float] = (-20.0, 15.0, 40.0)
    axes: np.ndarray = field(default_factory=lambda: np.eye(3))

    def points(self, indices):
        """Physical coordinates of voxel indices (n, 3) in the order x, y, z."""
        return np.array(self.origin) + np.asarray(indices) * np.array(self.spacing) @ self.axes.T


def oblique(**changes) -> Grid:
    """A grid turned about all three axes."""
    return Grid(axes=Rotation.from_euler("xyz", [25, -40, 10], degrees=True).as_matrix(), **changes)


@dataclass(frozen=True)
class Written:
    """A series on disk."""

    uid: str
    frame: str
    paths: list[Path]
    datasets: list[FileDataset]


def _file(path: Path, sop_class: str, patient: str, series: str, tags: Mapping[str, object]) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    file.PatientID, file.PatientName, file.PatientBirthDate = patient, "", ""
    file.PatientSex, file.StudyID, file.AccessionNumber = "", "", ""
    file.StudyInstanceUID, file.SeriesInstanceUID = STUDY, series
    file.StudyDate, file.StudyTime, file.SeriesNumber, file.ReferringPhysicianName = "", "", 1, ""
    for keyword, value in tags.items():
        setattr(file, keyword, value)
    return file


def write_series(
    folder: Path,
    array,
    grid: Grid,
    *,
    patient="P1",
    modality="MR",
    uid=None,
    frame=None,
    tags: Mapping[str, object] | None = None,
) -> Written:
    """Write `array` (z, y, x) as one file a slice, named in no order, InstanceNumber running backwards."""
    uid, frame = uid or generate_uid(), frame or generate_uid()
    folder.mkdir(parents=True, exist_ok=True)
    paths, datasets = [], []
    names = np.random.default_rng(0).permutation(len(array))
    for index, pixels in enumerate(np.asarray(array, dtype=np.int16)):
        path = folder / f"{names[index]:04d}.dcm"
        defaults = {
            "Modality": modality,
            "SeriesDescription": "T1 post",
            "FrameOfReferenceUID": frame,
            "ImagePositionPatient": grid.points([[0, 0, index]])[0].tolist(),
            "ImageOrientationPatient": [*grid.axes[:, 0], *grid.axes[:, 1]],
            "PixelSpacing": [grid.spacing[1], grid.spacing[0]],
            "SliceThickness": grid.spacing[2],
            "InstanceNumber": len(array) - index,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "PixelData": pixels.tobytes(),
        }
        file = _file(path, PET if modality == "PT" else MR, patient, uid, defaults | dict(tags or {}))
        file.save_as(path)
        paths.append(path)
        datasets.append(file)
    return Written(uid, frame, paths, datasets)


def write_structures(
    path: Path,
    regions: Mapping[str, Sequence[np.ndarray]],
    drawn_on: Written,
    *,
    patient="P1",
    frame=None,
    kind="CLOSED_PLANAR",
) -> Path:
    """Write an RT structure set; each region is a list of contours (points, 3) in mm."""
    frame = frame or drawn_on.frame
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _file(path, RTSTRUCT, patient, generate_uid(), {"Modality": "RTSTRUCT", "SeriesDescription": "contours"})
    series = Dataset()
    series.SeriesInstanceUID = drawn_on.uid
    study = Dataset()
    study.RTReferencedSeriesSequence = [series]
    reference = Dataset()
    reference.FrameOfReferenceUID, reference.RTReferencedStudySequence = frame, [study]
    file.ReferencedFrameOfReferenceSequence = [reference]
    file.StructureSetROISequence, file.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), start=1):
        region = Dataset()
        region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = number, name, frame
        drawn = Dataset()
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType = kind if len(points) > 1 else "POINT"
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [f"{value:.6f}" for value in np.asarray(points).ravel()]
            drawn.ContourSequence.append(contour)
        file.StructureSetROISequence.append(region)
        file.ROIContourSequence.append(drawn)
    file.save_as(path)
    return path


def outline(mask, grid: Grid) -> list[np.ndarray]:
    """Contours (points, 3) around the voxels of a mask (z, y, x), holes included, half a voxel outside the centres."""
    contours = []
    for index, plane in enumerate(np.pad(np.asarray(mask, dtype=float), ((0, 0), (1, 1), (1, 1)))):
        for line in contour_generator(z=plane).lines(0.5):
            corners = np.column_stack([line[:-1] - 1, np.full(len(line) - 1, index)])
            contours.append(grid.points(corners))
    return contours


def textured(grid: Grid) -> np.ndarray:
    """Pixels that differ from voxel to voxel, along every axis by another amount."""
    x, y, z = np.meshgrid(*(np.arange(count) for count in grid.size), indexing="ij")
    return (100 + x + 20 * y + 300 * z).transpose(2, 1, 0).astype(np.int16)


def blob(grid: Grid, *, hole: bool = False) -> np.ndarray:
    """A mask (z, y, x) around the middle of the grid."""
    z, y, x = np.indices(grid.size[::-1])
    along = zip((x, y, z), grid.size, strict=True)
    radius = np.sqrt(sum(((axis - (count - 1) / 2) / (count / 3)) ** 2 for axis, count in along))
    return (radius < 1) & ~((radius < 0.45) & hole)


MAP = """
name = "north"
site = "north"
time_zero = "diagnosis"

[[channels]]
name = "t1"
modality = "MR"
description = "t1"

[masks]
roi = "gtv"
"""


def rewrite(path: Path, **tags) -> None:
    """Change header elements of a file in place."""
    file = pydicom.dcmread(path)
    for keyword, value in tags.items():
        setattr(file, keyword, value)
    file.save_as(path)
