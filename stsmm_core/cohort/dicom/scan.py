"""Finding the DICOM objects of an export, however its folders are nested."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from stsmm_core.errors import CohortError

PREAMBLE_BYTES, MAGIC = 128, b"DICM"
FIRST_GROUPS, FIRST_ELEMENTS, TAG_BYTES = (0x0002, 0x0008), range(0x0019), 4
"""A file without the preamble, as old archives write it, begins with one of these elements."""
DIRECTORY_STORAGE = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR: a table of contents, no image."""
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "FrameOfReferenceUID")
NAMES = (
    "PatientName",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "NameOfPhysiciansReadingStudy",
    "PhysiciansOfRecord",
    "RequestingPhysician",
    "OperatorsName",
)
PLACES = ("InstitutionName", "PatientAddress")
NUMBERS = (
    "PatientID",
    "OtherPatientIDs",
    "AccessionNumber",
    "PatientTelephoneNumbers",
    "ReferringPhysicianTelephoneNumbers",
)
OTHER_NUMBERS = "OtherPatientIDsSequence"
IDENTITY = (*NAMES, *PLACES, *NUMBERS, OTHER_NUMBERS, "PatientBirthDate")
"""What descriptions are cleaned of before anyone sees them; nothing else is done with it."""
DESCRIPTION = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "Modality",
    "SeriesDescription",
    "NumberOfFrames",
    "ImageType",
    "SpacingBetweenSlices",
    "AcquisitionDate",
    "AcquisitionTime",
    "PatientSex",
    "BurnedInAnnotation",
    "LossyImageCompression",
)
STRUCTURES, SEGMENTATION = "RTSTRUCT", "SEG"
CONTOURS = (STRUCTURES, SEGMENTATION)
"""Modalities of the objects that hold outlines."""


@dataclass(frozen=True)
class Instance:
    """A DICOM file and the part of its header that was asked for."""

    path: Path
    header: Dataset


@dataclass(frozen=True)
class Series:
    """The files with one PatientID and one SeriesInstanceUID.

    Attributes:
        uid: SeriesInstanceUID.
        instances: in the order of their paths.
    """

    uid: str
    instances: tuple[Instance, ...]

    @property
    def header(self) -> Dataset:
        """Header of the first file: what all files of a series have in common can be read there."""
        return self.instances[0].header

    @property
    def modality(self) -> str:
        """MR, PT, RTSTRUCT, SEG, …; empty where the files do not say."""
        return text(self.header, "Modality")

    @property
    def description(self) -> str:
        """SeriesDescription; empty where the files do not say."""
        return text(self.header, "SeriesDescription")

    @property
    def frames(self) -> int:
        """Frames of the first file: above 1 in an enhanced object.

        Raises:
            CohortError: when the header holds no number of them.
        """
        number = text(self.header, "NumberOfFrames") or "1"
        if not number.isdecimal():
            raise CohortError("NumberOfFrames holds no number; export the original images")
        return int(number)


@dataclass(frozen=True)
class Export:
    """What a folder holds.

    Attributes:
        series: in the order of PatientID and SeriesInstanceUID.
        unreadable: DICOM files whose header cannot be read, with the reason.
        other_files: files that are not DICOM by their content.
    """

    series: tuple[Series, ...]
    unreadable: Mapping[Path, str]
    other_files: tuple[Path, ...]


def scan_export(source: Path, tags: Collection[str], *, advance: Callable[[], None] = lambda: None) -> Export:
    """Read the header of every DICOM file below a folder.

    Args:
        tags: keywords to read beyond those that every import needs; a header in full would fill the memory.
        advance: called once a file, for a progress bar.

    Raises:
        CohortError: when the folder is missing or holds no DICOM file.
    """
    if not source.is_dir():
        raise CohortError(f"{source}: no such folder; name the folder of the DICOM export")
    instances: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    unreadable: dict[Path, str] = {}
    others: list[Path] = []
    wanted = sorted({*GEOMETRY, *IDENTITY, *DESCRIPTION, *tags})
    for path in files_below(source):
        advance()
        try:
            if not _is_dicom(path):
                others.append(path)
                continue
            header = read_object(path, stop_before_pixels=True, specific_tags=wanted)
            if header.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY_STORAGE:
                continue
            if not text(header, "SeriesInstanceUID"):
                unreadable[path] = "no SeriesInstanceUID"  # a file cut short reads as one with few elements
                continue
            instances[text(header, "PatientID"), text(header, "SeriesInstanceUID")].append(Instance(path, header))
        except Exception as error:  # pydicom raises what the damaged bytes lead it to
            unreadable[path] = type(error).__name__
    if not instances and not unreadable:
        raise CohortError(f"{source}: holds no DICOM file in {len(others)} files; name the folder of the DICOM export")
    series = tuple(Series(uid, tuple(found)) for (_, uid), found in sorted(instances.items()))
    return Export(series, unreadable, tuple(others))


def files_below(source: Path) -> Iterator[Path]:
    """Every file below a folder in a fixed order; hidden ones (`.DS_Store`, `._copy`) are nobody's export."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(source).parts):
            yield path


def text(header: Dataset, keyword: str) -> str:
    """A header element as text without padding; several values joined by a backslash, absent or empty as ''.

    Raises:
        CohortError: when it does not hold what the standard says, as letters in a number; without the value.
    """
    try:
        value = header.get(keyword)
    except Exception:  # pydicom raises what the damaged bytes lead it to, and its text quotes them
        raise CohortError(f"{keyword} does not hold what it should; export the original images") from None
    if value is None:
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\\".join(str(part).strip() for part in value)
    return str(value).strip()


def read_object(path: Path, **options: Any) -> FileDataset:
    """A DICOM file, with or without the preamble; options as of `pydicom.dcmread`.

    Raises:
        Exception: whatever the damaged bytes lead pydicom to.
    """
    dataset = pydicom.dcmread(path, force=True, **options)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(PREAMBLE_BYTES + len(MAGIC))
    if start[PREAMBLE_BYTES:] == MAGIC:
        return True
    group, element = (int.from_bytes(part, "little") for part in (start[:2], start[2:TAG_BYTES]))
    return len(start) > TAG_BYTES and group in FIRST_GROUPS and element in FIRST_ELEMENTS
