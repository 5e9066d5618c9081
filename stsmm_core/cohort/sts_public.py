"""Importer of the public soft-tissue sarcoma collection (TCIA, McGill): T1 MRI, FDG-PET, masks and outcomes."""

import shutil
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from stsmm_core.cohort.cohort import IMAGES_FOLDER, write_cohort_tables
from stsmm_core.cohort.importing import SOURCE_FILE, map_histology, new_folder, read_source_table
from stsmm_core.cohort.manifest import Manifest
from stsmm_core.errors import CohortError

CHANNELS = ("t1", "pet")

# The sheet's own spelling on the left. MFH, the old name, is the WHO's undifferentiated pleomorphic sarcoma since 2002;
# round-cell liposarcoma is high-grade myxoid liposarcoma. A liposarcoma of unstated subtype is left unknown.
HISTOLOGY = {
    "leiomyosarcoma": "leiomyosarcoma",
    "pleiomorphic leiomyosarcoma": "leiomyosarcoma",
    "pleomorphic leiomyosarcoma": "leiomyosarcoma",
    "dedifferentiated liposarcoma": "dedifferentiated_liposarcoma",
    "pleiomorphic liposarcoma": "pleomorphic_liposarcoma",
    "spindle cell suggestive of pleomorphic liposarcoma": "pleomorphic_liposarcoma",
    "mixoid liposarcoma": "myxoid_liposarcoma",
    "liposarcoma - round cell": "myxoid_liposarcoma",
    "liposarcoma, well diferentiated": "other",
    "liposarcoma": "",
    "myxofibrosarcoma": "myxofibrosarcoma",
    "myxofibrosarcoma - undifferentiated": "myxofibrosarcoma",
    "myxoid fibrosarcoma": "myxofibrosarcoma",
    "spindle cell suggestive of myxofibrosarcoma": "myxofibrosarcoma",
    "synovial sarcoma": "synovial_sarcoma",
    "poorly differentiated synovial sarcoma": "synovial_sarcoma",
    "malignant fibrous histiocytoma": "undifferentiated_pleomorphic_sarcoma",
    "pleomorphic sarcoma": "undifferentiated_pleomorphic_sarcoma",
    "pleiomorphic undifferentiated sarcoma": "undifferentiated_pleomorphic_sarcoma",
    "pleiomorphic spindle cell undifferentiated": "undifferentiated_pleomorphic_sarcoma",
    "undifferentiated - high grade": "undifferentiated_pleomorphic_sarcoma",
    "undifferentiated - pleiomorphic": "undifferentiated_pleomorphic_sarcoma",
    "epithelioid sarcoma with vascular differentiation": "other",
    "extraskeletal osteosarcoma": "other",
    "malignant solitary fibrous tumor": "other",
    "sclerosing epithelioid fibrosarcoma": "other",
}

_COPIED = {
    "age": "age",
    "sex": "sex",
    "size_cm": "tumor_diameter_cm",
    "grade": "grade",
    "location": "location",
    "volume_cm3": "tumor_volume_cm3",
    "os_days": "os_days",
    "os_event": "os_event",
    "dm_days": "dm_days",
    "dm_event": "dm_event",
    "location_girdle": "location_girdle",
}

LICENCE = """\
Licence: Creative Commons Attribution 3.0 Unported (CC BY 3.0), https://creativecommons.org/licenses/by/3.0/
Keep this file with the data when you pass them on. Please cite:

- Vallières M, Freeman CR, Skamene SR, El Naqa I (2015). A radiomics model from joint FDG-PET and MRI texture features
  for the prediction of lung metastases in soft-tissue sarcomas of the extremities. The Cancer Imaging Archive.
  https://doi.org/10.7937/K9/TCIA.2015.7GO2GSKS
- the same authors (2015), Physics in Medicine and Biology 60(14):5471-5496. https://doi.org/10.1088/0031-9155/60/14/5471
- Clark K et al. (2013). The Cancer Imaging Archive (TCIA). J Digit Imaging 26:1045-1057.
  https://doi.org/10.1007/s10278-013-9622-7
- Image preparation: A. Zwanenburg, Image Biomarker Standardisation Initiative (IBSI), "IBSI validation dataset".
"""
"""Licence and citations of the collection, however it was obtained."""

SOURCE_TEXT = f"""\
# Source of this cohort

36 patients of the TCIA collection *Soft-tissue-Sarcoma* (McGill University Health Centre), as prepared for the Image
Biomarker Standardisation Initiative. Real, de-identified patient data: do not try to re-identify anyone.

{LICENCE}
## Changes

Before this import, by the IBSI: PET as body-weight SUV; T1 bias-field corrected (N4) and normalised to subcutaneous
fat; the mass without oedema (GTV_Mass) kept as the contour; images cropped to about 5 cm around it; masks rasterised.
The prepared set renamed the files, rebuilt the T1 of STS_009 and STS_020 from the published DICOM, tidied the tables
and computed diameter and volume from the T1 mask.

By this import:

- images and masks copied byte for byte, one folder a patient;
- histology translated to the levels of the data dictionary (a liposarcoma of unstated subtype is empty);
- size_cm = tumor_diameter_cm (3D, T1 mask), volume_cm3 = tumor_volume_cm3 (T1 mask);
- grade NA is empty; the source does not name its grading system;
- depth and metastasis_at_presentation are empty: the source does not state them;
- neoadjuvant_chemo and radiotherapy are empty: the source has no dates, may include treatment given after relapse, and
  so leaks the outcome;
- location counts buttock, groin and parascapular as axial; the extra column location_girdle counts them as limb;
- mr_group, the MRI scanner, is kept as an extra column: the only natural division into centres (PET is one machine).

## Cautions

Time zero is the biopsy. One outcome a patient is recorded: a metastasis after a local or regional recurrence would not
be in the sheet. Death without recorded metastasis is censored for dm. The T1 is not raw multi-vendor MRI.
"""


def import_sts_public(source: Path, out: Path) -> Path:
    """Turn the prepared public collection into a cohort folder with the channels t1 and pet.

    Args:
        source: folder with clinical.csv, scanner.csv and one image folder a patient.
        out: the new cohort folder; must not exist or be empty.

    Returns:
        `out`.

    Raises:
        CohortError: naming the file, column or patient that the source lacks, or `out` when it is in use.
    """
    clinical_path, scanner_path = source / "clinical.csv", source / "scanner.csv"
    sheet = read_source_table(clinical_path, [*_COPIED.values(), "histology"])
    scanner = read_source_table(scanner_path, ["mr_group"])
    without_scanner = sorted(set(sheet.index) - set(scanner.index))
    if without_scanner:
        raise CohortError(f"{scanner_path}: has no row for patient {', '.join(without_scanner)}")
    clinical = pd.DataFrame({name: sheet[column] for name, column in _COPIED.items()})
    clinical["histology"] = map_histology(sheet, "histology", HISTOLOGY, clinical_path)
    clinical["mr_group"] = scanner["mr_group"].reindex(sheet.index)
    names = [name for channel in CHANNELS for name in (f"{channel}.nii.gz", f"{channel}_mask.nii.gz")]
    absent = [str(source / patient / name) for patient in sheet.index for name in names]
    absent = [path for path in absent if not Path(path).is_file()]
    if absent:
        raise CohortError("image files are missing:\n" + "\n".join(f"  {path}" for path in absent))
    manifest = Manifest(
        schema_version=1,
        name="sts_public",
        site="mcgill",
        channels=CHANNELS,
        endpoints=("os", "dm"),
        time_zero="diagnosis",
    )
    with new_folder(out) as building:
        write_cohort_tables(building, manifest, clinical.reset_index())
        (building / SOURCE_FILE).write_text(SOURCE_TEXT, encoding="utf-8")
        for patient in track(clinical.index, "Copying images", console=Console(stderr=True), transient=True):
            folder = building / IMAGES_FOLDER / patient
            folder.mkdir(parents=True)
            for name in names:
                shutil.copyfile(source / patient / name, folder / name)
    return out
