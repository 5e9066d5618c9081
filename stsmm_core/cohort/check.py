"""Checking a whole cohort folder: its tables, its file names and every voxel of its images."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stsmm_core.cohort.cohort import CLINICAL_FILE, IMAGES_FOLDER, Cohort, Finding
from stsmm_core.cohort.reading import parse_cohort
from stsmm_core.imaging.quality import touches_border
from stsmm_core.imaging.volume import Geometry, Volume, inspect_volume

# Two grids are one within these: above the rounding of a NIfTI header's 32-bit floats, below half a voxel.
ORIGIN_TOLERANCE_MM = 1e-2
SPACING_TOLERANCE_MM = 1e-3
DIRECTION_TOLERANCE = 1e-3

FEW_PATIENTS = 10
"""Below this, a test part of 15 % holds a single patient."""


def check_cohort(root: Path) -> list[Finding]:
    """Everything that is wrong with a cohort folder, or worth knowing before it trains.

    Reads every image in full. A fault must be mended before the cohort can be used; a note says what will happen.
    """
    cohort, findings = parse_cohort(root)
    if cohort is None:
        if (root / IMAGES_FOLDER).is_dir():
            findings.append(Finding("note", IMAGES_FOLDER, "not checked yet: mend the faults above first"))
        return findings
    if len(cohort.patients) < FEW_PATIENTS:
        findings.append(
            Finding("note", CLINICAL_FILE, f"only {len(cohort.patients)} patients: a test on them alone says little")
        )
    for patient in cohort.patients:
        findings.extend(_check_images(cohort, patient))
    findings.extend(_computed_from_mask(cohort))
    return findings


def _check_images(cohort: Cohort, patient: str) -> list[Finding]:
    """Findings in a patient's image folder, file by file."""
    channels = cohort.manifest.channels
    if not channels or not (cohort.root / IMAGES_FOLDER / patient).is_dir():
        return []
    findings = _check_file_names(cohort, patient)
    volumes = _read_channels(cohort, patient, findings)
    masks = _read_masks(cohort, patient, volumes, findings)
    for channel, volume in volumes.items():
        # A channel without a mask of its own may share the grid, and so the mask, of the patient's first.
        first = cohort.first_channel(patient)
        shared = first in volumes and not _grid_faults(volume.geometry, volumes[first].geometry, first)
        tumour = masks.get(channel, masks.get(first) if shared else None)
        for message in _contrast_faults(volume.array, tumour):
            findings.append(_finding("fault", cohort.channel_path(patient, channel), message))
    return findings


def _read_channels(cohort: Cohort, patient: str, findings: list[Finding]) -> dict[str, Volume]:
    """The volumes that can be read in full, by channel."""
    volumes: dict[str, Volume] = {}
    for channel, path in cohort.channel_files(patient).items():
        volume, faults = inspect_volume(path)
        findings.extend(_finding("fault", path, message) for message in faults)
        if volume is not None:
            volumes[channel] = volume
    return volumes


def _read_masks(
    cohort: Cohort, patient: str, volumes: dict[str, Volume], findings: list[Finding]
) -> dict[str, NDArray[np.bool_]]:
    """The faultless masks, by the channel on whose grid they lie."""
    masks: dict[str, NDArray[np.bool_]] = {}
    for path, channel in _mask_files(cohort, patient):
        mask, faults = inspect_volume(path)
        if mask is not None:
            faults += _mask_faults(mask.array)
            if channel in volumes:
                faults += _grid_faults(mask.geometry, volumes[channel].geometry, channel)
        findings.extend(_finding("fault", path, message) for message in faults)
        if mask is None:
            continue
        inside = mask.array != 0
        if touches_border(inside):
            findings.append(_finding("note", path, "touches the border of the image: the tumour may be cut off"))
        if not faults and channel in volumes:
            masks.setdefault(channel, inside)
    return masks


def _finding(severity: Literal["fault", "note"], path: Path, message: str) -> Finding:
    patient = path.parent.name
    return Finding(severity, f"{IMAGES_FOLDER}/{patient}/{path.name}", message, patient=patient)


def _mask_files(cohort: Cohort, patient: str) -> list[tuple[Path, str]]:
    """The masks that a patient has, each with the channel on whose grid it lies, the preferred ones first."""
    folder = cohort.root / IMAGES_FOLDER / patient
    channels = cohort.manifest.channels
    files = [(folder / f"{channel}_mask.nii.gz", channel) for channel in channels]
    files.append((folder / "mask.nii.gz", cohort.first_channel(patient)))
    return [(path, channel) for path, channel in files if path.is_file()]


def _check_file_names(cohort: Cohort, patient: str) -> list[Finding]:
    """Files that no channel or mask is named after.

    A folder of nothing else is a mistake, not a missing modality; where a channel is missing, such a file may be it.
    """
    where = f"{IMAGES_FOLDER}/{patient}"
    channels = cohort.manifest.channels
    present = {entry.name for entry in (cohort.root / where).iterdir() if not entry.name.startswith(".")}
    volumes = {f"{channel}.nii.gz" for channel in channels}
    masks = {path.name for path, _ in _mask_files(cohort, patient)}
    strays = sorted(present - volumes - masks)
    if present and not present & volumes:
        message = f"holds {', '.join(sorted(present))} but no {' or '.join(sorted(volumes))}; rename or remove them"
        return [Finding("fault", where, message, patient=patient)]
    lacking = [channel for channel in channels if f"{channel}.nii.gz" not in present]
    if not lacking:
        return [
            _finding("note", cohort.root / where / name, "is no channel or mask of this cohort: not used")
            for name in strays
        ]
    message = f"is no channel or mask of this cohort, and the patient has no {' and no '.join(lacking)}; "
    message += "rename it if it is that channel, or remove it"
    misnamed = [_finding("fault", cohort.root / where / name, message) for name in strays]
    idle = [
        _finding("note", path, f"is not used: the patient has no {channel}.nii.gz")
        for path, channel in _mask_files(cohort, patient)
        if channel in lacking
    ]
    return misnamed + idle


def _mask_faults(voxels: NDArray[np.float32]) -> list[str]:
    """What is wrong with a mask's values: 0 outside and one positive value inside (1 or 255, say) are right."""
    values = np.unique(voxels)
    inside = values[values != 0]
    if inside.size == 0:
        return ["is empty: no voxel is marked as tumour; outline the tumour or remove the patient's images"]
    if inside.size == 1 and inside[0] > 0:
        return []
    listed = ", ".join(f"{value:g}" for value in values[:5]) + (", …" if values.size > 5 else "")
    return [f"has {values.size} different values ({listed}); write 0 outside and 1 inside the tumour"]


def _grid_faults(mask: Geometry, volume: Geometry, channel: str) -> list[str]:
    """How the grid of a mask differs from that of its channel: one message that names every difference, or none."""
    differences = []
    if mask.size != volume.size:
        differences.append(f"size {mask.size} instead of {volume.size}")
    for name, got, wanted, tolerance in (
        ("spacing (mm)", mask.spacing_mm, volume.spacing_mm, SPACING_TOLERANCE_MM),
        ("origin (mm)", mask.origin, volume.origin, ORIGIN_TOLERANCE_MM),
        ("direction", mask.direction, volume.direction, DIRECTION_TOLERANCE),
    ):
        if not np.allclose(got, wanted, rtol=0, atol=tolerance):
            differences.append(f"{name} {_rounded(got)} instead of {_rounded(wanted)}")
    if not differences:
        return []
    return [f"is not on the grid of {channel}.nii.gz: {'; '.join(differences)}; resample the mask onto it"]


def _rounded(numbers: tuple[float, ...]) -> str:
    return f"({', '.join(f'{number:.6g}' for number in numbers)})"


def _contrast_faults(voxels: NDArray[np.float32], tumour: NDArray[np.bool_] | None) -> list[str]:
    """A channel without contrast cannot be z-scored; `tumour` is None where no mask lies on its grid."""
    values = (voxels if tumour is None else voxels[tumour]).ravel()
    if (values != values[0]).any():
        return []
    place = "everywhere" if tumour is None else "inside the mask"
    return [f"is {values[0]:g} {place}: no contrast to learn from; export the volume again"]


def _computed_from_mask(cohort: Cohort) -> list[Finding]:
    """Which variables of the sheet the tumour mask fills in."""
    outlined = [name for name in cohort.patients if cohort.has_image(name) and cohort.mask_path(name).is_file()]
    findings = []
    for column in ("size_cm", "volume_cm3"):
        missing = int(cohort.clinical.loc[outlined, column].isna().sum())
        if missing:
            message = f"empty for {missing} of {len(outlined)} patients with a mask: computed from the mask"
            findings.append(Finding("note", CLINICAL_FILE, message, column=column))
    return findings
