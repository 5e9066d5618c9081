"""Reading a cohort folder: every fault in its manifest, table and file names, all at once."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from stsmm_core.cohort.cohort import CLINICAL_FILE, IMAGES_FOLDER, MANIFEST_FILE, Cohort, Finding, Manifest
from stsmm_core.cohort.dictionary import (
    ENDPOINTS,
    PATIENT_ID,
    SCHEMA_VERSION,
    VARIABLES,
    Number,
    endpoint_columns,
)
from stsmm_core.errors import CohortError


def load_cohort(root: Path) -> Cohort:
    """Read a cohort folder's manifest and table.

    Raises:
        CohortError: with every fault found in them.
    """
    cohort, findings = parse_cohort(root)
    faults = [finding for finding in findings if finding.severity == "fault"]
    if faults or cohort is None:
        raise CohortError(
            f"{root}: the cohort has {len(faults)} fault{'s' if len(faults) != 1 else ''}\n"
            + "\n".join(f"  {fault}" for fault in faults)
        )
    return cohort


def parse_cohort(root: Path) -> tuple[Cohort | None, list[Finding]]:
    """Read manifest, table and file names, collecting all findings; no cohort when a table is unreadable."""
    findings: list[Finding] = []
    manifest = _read_manifest(root, findings)
    table = _read_table(root / CLINICAL_FILE, findings)
    if manifest is None or table is None:
        return None, findings
    clinical = _parse_variables(table, findings)
    endpoints = _parse_endpoints(table, manifest, clinical, findings)
    known = {PATIENT_ID, *VARIABLES, *(column for name in ENDPOINTS for column in endpoint_columns(name))}
    extra = tuple(column for column in table.columns if column not in known)
    for column in extra:
        findings.append(
            Finding("note", CLINICAL_FILE, "is not in the data dictionary: kept aside, not used", column=column)
        )
    cohort = Cohort(root, manifest, clinical.sort_index(), endpoints.sort_index(), extra)
    _check_events(cohort, findings)
    _check_image_files(cohort, findings)
    return cohort, findings


def _read_manifest(root: Path, findings: list[Finding]) -> Manifest | None:
    path = root / MANIFEST_FILE
    if not path.is_file():
        findings.append(Finding("fault", MANIFEST_FILE, f"is missing from {root}; see docs/cohort.md for its keys"))
        return None
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        findings.append(Finding("fault", MANIFEST_FILE, f"is not valid TOML: {error}"))
        return None
    if tree.get("schema_version") != SCHEMA_VERSION:
        findings.append(
            Finding("fault", MANIFEST_FILE, f"schema_version must be {SCHEMA_VERSION} for this version of stsmm")
        )
        return None
    try:
        return Manifest.model_validate(tree)
    except ValidationError as error:
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"])
            message = (
                f"unknown key; choose from {', '.join(Manifest.model_fields)}"
                if fault["type"] == "extra_forbidden"
                else fault["msg"]
            )
            findings.append(Finding("fault", MANIFEST_FILE, f"{key}: {message}"))
        return None


def _read_table(path: Path, findings: list[Finding]) -> pd.DataFrame | None:
    if not path.is_file():
        findings.append(Finding("fault", CLINICAL_FILE, "is missing; every cohort needs its clinical table"))
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        findings.append(
            Finding(
                "fault",
                CLINICAL_FILE,
                f"line {line} is not UTF-8 (a Latin-1 or Windows export?); save the table as CSV UTF-8",
            )
        )
        return None
    header = text.split("\n", 1)[0].strip().split(",")
    if PATIENT_ID not in header:
        findings.append(
            Finding("fault", CLINICAL_FILE, f"has no column {PATIENT_ID} (comma-separated, names in the first line)")
        )
        return None
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        findings.append(Finding("fault", CLINICAL_FILE, f"has a column twice: {', '.join(repeated)}"))
        return None
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        findings.append(Finding("fault", CLINICAL_FILE, f"cannot be read as CSV: {error}"))
        return None
    table = table.apply(lambda column: column.str.strip())
    if table.empty:
        findings.append(Finding("fault", CLINICAL_FILE, "has no patient"))
        return None
    return _index_by_patient(table, findings)


def _index_by_patient(table: pd.DataFrame, findings: list[Finding]) -> pd.DataFrame:
    identifiers = table[PATIENT_ID]
    for row in np.flatnonzero(~identifiers.map(lambda name: bool(re.fullmatch(r"[\w.-]*\w", name)))):
        findings.append(
            Finding(
                "fault",
                CLINICAL_FILE,
                f"line {row + 2}: '{identifiers.iloc[row]}' cannot name a patient; "
                "use letters, digits, '_', '-' and '.' (it is also the name of the image folder)",
                column=PATIENT_ID,
            )
        )
    for name in sorted(set(identifiers[identifiers.duplicated()])):
        findings.append(Finding("fault", CLINICAL_FILE, "appears more than once; keep one row a patient", patient=name))
    return table.drop_duplicates(PATIENT_ID).set_index(PATIENT_ID)


def _parse_variables(table: pd.DataFrame, findings: list[Finding]) -> pd.DataFrame:
    columns: dict[str, pd.Series] = {}
    for key, variable in VARIABLES.items():
        numeric = isinstance(variable, Number)
        if key not in table:
            columns[key] = pd.Series(np.nan, index=table.index, dtype=float if numeric else object)
            continue
        cells = table[key]
        bad = pd.Series(False, index=table.index)
        for patient, cell in zip(table.index, cells, strict=True):
            problem = variable.problem(cell) if cell else None
            if problem is not None:
                bad.loc[patient] = True
                findings.append(Finding("fault", CLINICAL_FILE, problem, patient=patient, column=key))
        values = cells.where(~bad & (cells != ""))
        columns[key] = pd.to_numeric(values) if numeric else values.astype(object)
    return pd.DataFrame(columns, index=table.index)


def _parse_endpoints(
    table: pd.DataFrame, manifest: Manifest, clinical: pd.DataFrame, findings: list[Finding]
) -> pd.DataFrame:
    parsed = pd.DataFrame(index=table.index)
    for endpoint in manifest.endpoints:
        names = endpoint_columns(endpoint)
        absent = [name for name in names if name not in table]
        if absent:
            for name in absent:
                findings.append(
                    Finding(
                        "fault",
                        CLINICAL_FILE,
                        f"is missing; add it, or take '{endpoint}' out of endpoints in {MANIFEST_FILE}",
                        column=name,
                    )
                )
            parsed[list(names)] = np.nan
            continue
        time_column, event_column = names
        for patient, time, event in zip(table.index, table[time_column], table[event_column], strict=True):
            problem = _endpoint_problem(time, event)
            if problem is not None:
                column, message = problem
                findings.append(Finding("fault", CLINICAL_FILE, message, patient=patient, column=names[column]))
        parsed[time_column] = pd.to_numeric(table[time_column], errors="coerce")
        parsed[event_column] = pd.to_numeric(table[event_column], errors="coerce")
        unused = int(parsed[time_column].isna().sum())
        if unused:
            findings.append(
                Finding(
                    "note",
                    CLINICAL_FILE,
                    f"empty for {unused} patients: they do not count for {endpoint}",
                    column=time_column,
                )
            )
    if "dm" in manifest.endpoints:
        metastatic = int((clinical["metastasis_at_presentation"] == "1").sum())
        if metastatic:
            findings.append(
                Finding("note", CLINICAL_FILE, f"{metastatic} patients metastatic at presentation: not at risk of dm")
            )
    if {"os_days", "dm_days"} <= set(parsed):
        for patient in parsed.index[(parsed["dm_event"] == 1) & (parsed["dm_days"] > parsed["os_days"])]:
            findings.append(
                Finding(
                    "fault",
                    CLINICAL_FILE,
                    "metastasis is dated after death or last follow-up (os_days); one of the two is wrong",
                    patient=patient,
                    column="dm_days",
                )
            )
    return parsed


def _endpoint_problem(time: str, event: str) -> tuple[int, str] | None:
    """What is wrong with an endpoint's cells: 0 for the time column or 1 for the event column, and the message."""
    if time == "" and event == "":
        return None
    if time == "" or event == "":
        return int(event == ""), "is empty although its partner is given; give both or neither"
    if event not in ("0", "1"):
        return 1, f"'{event}' is not an event; write 1 (event) or 0 (censored)"
    try:
        days = float(time)
    except ValueError:
        return 0, f"'{time}' is not a number of days"
    if not np.isfinite(days) or days < 0:
        return 0, f"{time} days: a time must be a number of days from time zero, not below 0"
    return None


def _check_events(cohort: Cohort, findings: list[Finding]) -> None:
    names = cohort.manifest.endpoints
    for endpoint, count in zip(names, cohort.outcomes(names).events(), strict=True):
        if count == 0:
            findings.append(
                Finding("note", CLINICAL_FILE, f"no event of {endpoint}: this cohort adds nothing to its loss")
            )


def _check_image_files(cohort: Cohort, findings: list[Finding]) -> None:
    channels = cohort.manifest.channels
    folder = cohort.root / IMAGES_FOLDER
    known = set(cohort.patients)
    for stray in sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []:
        if stray not in known:
            findings.append(
                Finding("fault", f"{IMAGES_FOLDER}/{stray}", f"has no row in {CLINICAL_FILE}; add the row or remove it")
            )
    if not channels:
        return
    without = 0
    for patient in cohort.patients:
        present = [name for name in channels if cohort.channel_path(patient, name).exists()]
        if not present:
            without += 1
            continue
        where = f"{IMAGES_FOLDER}/{patient}"
        for name in channels:
            if name not in present:
                findings.append(
                    Finding(
                        "fault",
                        f"{where}/{name}.nii.gz",
                        "is missing although the patient has other channels; give every channel of the cohort or none",
                        patient=patient,
                    )
                )
        if not cohort.mask_path(patient).exists():
            findings.append(
                Finding(
                    "fault",
                    f"{where}/{channels[0]}_mask.nii.gz",
                    "is missing (mask.nii.gz would do too)",
                    patient=patient,
                )
            )
    if without:
        findings.append(
            Finding("note", IMAGES_FOLDER, f"{without} patients have no image: they train without that modality")
        )
