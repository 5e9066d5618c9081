"""Writing the cohort that a plan describes: volumes, masks, tables, and nothing that names a patient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import SimpleITK as sitk

from stsmm_core.cohort.acquisition import ACQUISITION_FILE, CHANNEL, CONTOUR_CM3
from stsmm_core.cohort.cohort import IMAGES_FOLDER, write_cohort_tables
from stsmm_core.cohort.dicom.clinical import ClinicalTable
from stsmm_core.cohort.dicom.masks import read_mask
from stsmm_core.cohort.dicom.oddities import series_notes
from stsmm_core.cohort.dicom.plan import Fault, PatientPlan, Plan
from stsmm_core.cohort.dicom.pseudonyms import cleaned, identifiers_of
from stsmm_core.cohort.dicom.rules import Modality
from stsmm_core.cohort.dicom.scan import Series, read_object, text
from stsmm_core.cohort.dicom.series import FileError, is_multiframe, read_series, stack_slices
from stsmm_core.cohort.dictionary import PATIENT_ID
from stsmm_core.cohort.importing import new_folder
from stsmm_core.cohort.manifest import Manifest
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Volume, to_image

FREE_TEXT = ("Manufacturer", "ManufacturerModelName")
TERMS = {
    "Modality": set(get_args(Modality)),
    "ScanningSequence": {"SE", "IR", "GR", "EP", "RM"},
    "SequenceVariant": {"SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"},
    "MRAcquisitionType": {"2D", "3D"},
    "Units": {"GML", "BQML", "CNTS", "CPS", "NONE", "CM2", "PCNT", "PROPCNTS", "PROPCPS", "STDDEV"},
    "SUVType": {"BW", "LBM", "LBMJANMA", "LBMJAMES128", "BSA", "IBW"},
    "BurnedInAnnotation": {"YES", "NO"},
    "LossyImageCompression": {"00", "01"},
}
"""What the standard defines for the coded tags: any other word there is somebody's own, and may be a name."""
QUANTITIES = (
    "MagneticFieldStrength",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "SliceThickness",
)
LARGEST_QUANTITY = 1e5
"""In the standard's units (T, ms, degrees, mm) no quantity is as large; a number or a date of a patient is."""
ACQUISITION = (*TERMS, *FREE_TEXT, *QUANTITIES)
"""The allow-list: machine and sequence. No date, no description, no identifier, no private tag."""


class FaultyPatientsError(CohortError):
    """Patients whose images cannot be imported, while none may be left out."""

    def __init__(self, faults: Sequence[Fault], message: str) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


@dataclass(frozen=True)
class ImportReport:
    """What an import left to say, without identifiers.

    Attributes:
        faults: patients whose images were left out, and why.
        notes: what to look at: burned-in annotations, slices left out, stray contours, and the like.
    """

    faults: tuple[Fault, ...]
    notes: tuple[str, ...]


def import_dicom(
    plan: Plan,
    manifest: Manifest,
    clinical: ClinicalTable,
    out: Path,
    *,
    leave_out_faulty: bool,
    advance: Callable[[], None] = lambda: None,
) -> ImportReport:
    """Read the planned series and outlines and write the cohort folder.

    Args:
        out: the new folder; it appears whole or not at all.
        leave_out_faulty: import a patient with a fault without images, instead of nobody.
        advance: called once a patient, for a progress bar.

    Raises:
        CohortError: with every fault of every patient, when there is one and it may not be left out; when a file that
            may be anyone's cannot be read.
    """
    if plan.lost and not leave_out_faulty:
        raise CohortError(
            f"{plan.lost} DICOM file(s) cannot be read, and no folder tells whose: a slice may be missing; export them "
            "again (--dry-run --show-sources names them), or use --leave-out-faulty; nothing was written"
        )
    if plan.nothing and not leave_out_faulty:
        raise CohortError(f"{plan.nothing}\nNothing was written; --leave-out-faulty makes the cohort without any image")
    faults, notes = list(plan.faults), []
    volumes: list[dict[str, str]] = []
    with new_folder(out) as building:
        keys = {planned.patient.identifier: planned.patient.key for planned in plan.patients}
        table = clinical.rows.rename(index=keys).sort_index()
        write_cohort_tables(building, manifest, table.reset_index(names=PATIENT_ID))
        # In the order of the keys: that of the hospital's table would tell who is who.
        for planned in sorted(plan.patients, key=lambda planned: planned.patient.key):
            try:
                written, said = _write_patient(planned, building / IMAGES_FOLDER / planned.patient.key)
                volumes += written
                notes += said
            except CohortError as error:
                faults.append(Fault(planned.patient, str(error), error.path if isinstance(error, FileError) else None))
            advance()
        if faults and not leave_out_faulty:
            raise FaultyPatientsError(
                faults,
                f"{len({fault.patient for fault in faults})} of {len(plan.patients)} patients have a fault; "
                "nothing was written\n" + "\n".join(f"  {fault}" for fault in faults),
            )
        acquisition = pd.DataFrame(volumes, columns=[PATIENT_ID, CHANNEL, CONTOUR_CM3, *ACQUISITION])
        acquisition.to_csv(building / ACQUISITION_FILE, index=False, lineterminator="\n")
    return ImportReport(tuple(faults), tuple(notes))


def header_faults(plan: Plan) -> list[Fault]:
    """What can be said without a pixel: series that are no evenly spaced stack, of the patients without a fault."""
    faults = []
    for planned in plan.patients:
        for channel, series in planned.channels.items():
            try:
                if not is_multiframe(series):
                    stack_slices(series)
            except CohortError as error:
                secrets = identifiers_of(planned.patient.identifier, [series.header])
                faults.append(Fault(planned.patient, f"channel {channel}: {cleaned(str(error), secrets)}"))
            except Exception:  # whatever damaged bytes lead pydicom to; its text quotes them
                faults.append(Fault(planned.patient, f"channel {channel}: cannot be read; export it again"))
    return faults


def _write_patient(planned: PatientPlan, folder: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Write a patient's volumes and masks; says how they were acquired and what is odd about them.

    Raises:
        CohortError: after which the folder is not there.
    """
    secrets = identifiers_of(planned.patient.identifier, [series.header for series in planned.channels.values()])
    prepared: dict[str, Volume] = {}
    acquired: list[dict[str, str]] = []
    notes: list[str] = []
    try:
        for channel, series in planned.channels.items():
            place = f"channel {channel}"
            volume, frame = read_series(series)
            prepared[channel] = volume
            row = {PATIENT_ID: planned.patient.key, CHANNEL: channel} | _acquisition(series, secrets)
            acquired.append(row)
            odd = series_notes(series, slices_apart_mm=volume.geometry.spacing_mm[2])
            notes += [f"patient {planned.patient}: {place} {note}" for note in odd]
            if channel in planned.outlines:
                place = f"{channel}_mask"
                mask = read_mask(planned.outlines[channel], volume.geometry, frame)
                notes += [f"patient {planned.patient}: {place}: {note}" for note in mask.notes]
                prepared[f"{channel}_mask"] = mask.volume
                if mask.contour_cm3 is not None:
                    row[CONTOUR_CM3] = f"{mask.contour_cm3:.4f}"
    except CohortError as error:
        message = f"{place}: {cleaned(str(error), secrets)}"
        raise (FileError(message, error.path) if isinstance(error, FileError) else CohortError(message)) from None
    except Exception:  # whatever damaged bytes lead the libraries to; its text may name a file
        raise CohortError(f"{place}: cannot be read; export it again") from None
    for name, volume in prepared.items():
        folder.mkdir(parents=True, exist_ok=True)
        _write_nifti(volume, folder / f"{name}.nii.gz", np.uint8 if name.endswith("_mask") else np.float32)
    return acquired, notes


def _acquisition(series: Series, secrets: set[str]) -> dict[str, str]:
    """The allowed tags of a series' first file: text cleaned of identifiers, terms of the standard, and quantities."""
    header = read_object(series.instances[0].path, stop_before_pixels=True, specific_tags=list(ACQUISITION))
    values = {keyword: text(header, keyword) for keyword in ACQUISITION}
    return (
        {
            keyword: "\\".join(part for part in values[keyword].split("\\") if part in TERMS[keyword])
            for keyword in TERMS
        }
        | {keyword: cleaned(values[keyword], secrets) for keyword in FREE_TEXT}
        | {keyword: _quantity(values[keyword]) for keyword in QUANTITIES}
    )


def _quantity(value: str) -> str:
    """A number from a header; empty for what is none, or too large to be one of its kind."""
    try:
        number = float(value)
    except ValueError:
        return ""
    return f"{number:g}" if 0 <= number < LARGEST_QUANTITY else ""


def _write_nifti(volume: Volume, path: Path, voxels: type[np.generic]) -> None:
    array = volume.array.astype(voxels)
    sitk.WriteImage(to_image(Volume(array, volume.geometry)), str(path), useCompression=True)
