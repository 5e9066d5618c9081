"""Fetching a public collection over the internet and importing it."""

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from stsmm_core.cohort.dicom.clinical import ClinicalTable, read_clinical
from stsmm_core.cohort.dicom.importer import ImportReport, import_dicom
from stsmm_core.cohort.dicom.plan import make_plan
from stsmm_core.cohort.dicom.pseudonyms import name_patients
from stsmm_core.cohort.dicom.rules import ChannelRule, ImportRules, MaskRule
from stsmm_core.cohort.dicom.scan import scan_export
from stsmm_core.cohort.dictionary import PATIENT_ID, endpoint_columns
from stsmm_core.cohort.importing import SOURCE_FILE, new_folder
from stsmm_core.cohort.sts_public import LICENCE
from stsmm_core.errors import CohortError

REPOSITORY = "https://github.com/theibsi/data_sets.git"
COMMIT = "6da96021bc91faf4c0cb7fd7fa56a4225d2064a8"
FOLDER = "ibsi_validation/dicom"

UPLOAD_PACK = "git -c uploadpack.allowFilter=true -c uploadpack.allowAnySHA1InWant=true upload-pack"
"""How a mirror on this machine is asked: a repository on disk does not allow a partial fetch by itself."""

RULES = ImportRules(
    name="sts_public",
    site="mcgill",
    time_zero="diagnosis",
    channels=(ChannelRule(name="t1", modality="MR"), ChannelRule(name="pet", modality="PT")),
    masks=MaskRule(roi="GTV_Mass"),
)

SOURCE_TEXT = """\
# Source of this cohort

The TCIA collection *Soft-tissue-Sarcoma* (McGill University Health Centre) as prepared by A. Zwanenburg for the Image
Biomarker Standardisation Initiative (IBSI), {folder} of {repository} at commit {commit}.
Real, de-identified patient data: do not try to re-identify anyone.

{licence}
Changes before this import, by the IBSI: PET as body-weight SUV; T1 bias-field corrected (N4) and normalised to
subcutaneous fat; the mass without oedema (GTV_Mass) kept as the contour; images cropped to about 5 cm around it.
By this import: series stacked, contours rasterised, headers dropped but for acquisition.csv. The T1 was registered to
the PET by the original authors.
"""


def fetch_sts_public(
    out: Path,
    *,
    clinical: Path | None,
    repository: str = REPOSITORY,
    commit: str = COMMIT,
) -> ImportReport:
    """Fetch the images of the public soft-tissue sarcoma collection and import them (channels t1 and pet).

    Args:
        out: the new cohort folder.
        clinical: clinical table of the collection; without one, all its patients with empty outcomes.
        repository: where to fetch from; also a path of a local mirror.

    Raises:
        CohortError: when the folder is there already, git or the network fails, or as the DICOM import does.
    """
    # All within the new folder's own making: nothing is fetched for a folder that cannot be, and the cohort is never
    # there without its licence.
    with new_folder(out) as building, TemporaryDirectory(dir=building.parent) as scratch:
        source = _checkout(repository, commit, Path(scratch))
        manifest = RULES.manifest()
        table = _without_outcomes(source) if clinical is None else read_clinical(clinical, manifest)
        plan = make_plan(source, scan_export(source, RULES.tags()), RULES, name_patients(table.lines, salt=None))
        report = import_dicom(plan, manifest, table, building, leave_out_faulty=False)
        text = SOURCE_TEXT.format(licence=LICENCE, folder=FOLDER, repository=repository, commit=commit)
        (building / SOURCE_FILE).write_text(text, encoding="utf-8")
    return report


def _checkout(repository: str, commit: str, scratch: Path) -> Path:
    """The collection's folder at its commit: nothing else of the repository is transferred."""
    if shutil.which("git") is None:
        raise CohortError("git is not installed; install it, or fetch the collection by hand and use import dicom")
    clone = scratch / "clone"
    clone.mkdir()
    for arguments in (
        ("init", "--quiet"),
        ("remote", "add", "origin", repository),
        ("config", "remote.origin.uploadpack", UPLOAD_PACK),
        ("sparse-checkout", "set", FOLDER),
        ("fetch", "--quiet", "--depth", "1", "--filter=blob:none", "origin", commit),
        ("checkout", "--quiet", commit),
    ):
        done = subprocess.run(
            ["git", *arguments],
            cwd=clone,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
        )
        if "does not appear to be a git repository" in done.stderr or "not found" in done.stderr:
            raise CohortError(f"{repository}: no such folder or repository; name a mirror by --from")
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise CohortError(
                f"{repository}: cannot be fetched ({reason}); check the network, or name a mirror by --from"
            )
    return clone / FOLDER


def _without_outcomes(source: Path) -> ClinicalTable:
    """A clinical table of the collection's patients, one a folder, with empty outcomes."""
    patients = sorted(entry.name for entry in source.iterdir() if entry.is_dir())
    columns = [column for endpoint in RULES.endpoints for column in endpoint_columns(endpoint)]
    table = pd.DataFrame("", index=pd.Index(patients, name=PATIENT_ID), columns=columns)
    return ClinicalTable(table, {patient: line for line, patient in enumerate(patients, start=1)})
