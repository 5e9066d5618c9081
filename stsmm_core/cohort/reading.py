"""Reading a cohort folder: every fault in its manifest, table and file names, all at once."""

import csv
import io
import re
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stsmm_core.cohort.cohort import CLINICAL_FILE, IMAGES_FOLDER, MANIFEST_FILE, Cohort, Finding
from stsmm_core.cohort.dictionary import (
    ENDPOINTS,
    LONGEST_TIME_DAYS,
    PATIENT_ID,
    SCHEMA_VERSION,
    VARIABLES,
    Number,
    endpoint_columns,
)
from stsmm_core.cohort.manifest import Manifest
from stsmm_core.errors import CohortError

_fault = partial(Finding, "fault", CLINICAL_FILE)


def cohort_folders(folders: Sequence[Path]) -> list[Path]:
    """The cohort folders named; a folder that is none stands for those in it.

    Raises:
        CohortError: for a folder that does not exist.
    """
    roots: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise CohortError(f"{folder}: no such folder; name a cohort folder, or a folder of cohort folders")
        inside = sorted(entry.parent for entry in folder.glob(f"*/{MANIFEST_FILE}"))
        roots += [folder] if (folder / MANIFEST_FILE).exists() or not inside else inside
    return roots


def refuse_inside_cohorts(folder: Path | None, named: Sequence[Path], *, option: str) -> None:
    """Keep what is derived from cohorts out of their folders.

    Raises:
        CohortError: when `folder`, given as `option`, lies in a cohort folder named, or in one of those in it; also
            for a folder named that does not exist.
    """
    for root in cohort_folders(named):
        if folder is not None and folder.resolve().is_relative_to(root.resolve()):
            raise CohortError(f"{option} {folder}: lies inside the cohort folder {root}; name a folder outside it")


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
    if table is None:
        return None, findings
    clinical = _parse_variables(table, findings)
    if manifest is None:
        return None, findings
    endpoints = _parse_endpoints(table, manifest, clinical, findings)
    known = {PATIENT_ID, *VARIABLES, *(column for name in ENDPOINTS for column in endpoint_columns(name))}
    extra = tuple(column for column in table.columns if column not in known)
    for column in extra:
        findings.append(
            Finding("note", CLINICAL_FILE, "is not in the data dictionary: kept aside, not used", column=column)
        )
    _note_absent_variables(table, manifest, findings)
    cohort = Cohort(root, manifest, clinical.sort_index(), endpoints.sort_index(), extra)
    _check_events(cohort, findings)
    _check_image_files(cohort, findings)
    return cohort, findings


def _note_absent_variables(table: pd.DataFrame, manifest: Manifest, findings: list[Finding]) -> None:
    """A misspelt heading would otherwise only be found in the report."""
    measured = ("size_cm", "volume_cm3") if manifest.channels else ()  # of the tumour mask
    absent = [name for name in VARIABLES if name not in table.columns and name not in measured]
    if absent:
        findings.append(
            Finding("note", CLINICAL_FILE, f"has no column {', '.join(absent)}: unknown for every patient of this site")
        )


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
            findings.append(Finding("fault", MANIFEST_FILE, f"{key}: {_explain(fault)}"))
        return None


def _explain(fault: ErrorDetails) -> str:
    """What is wrong with a key of the manifest, and what may stand there."""
    match fault["type"]:
        case "extra_forbidden":
            return f"unknown key; choose from {', '.join(Manifest.model_fields)}"
        case "missing":
            return "is missing"
        case "too_short":
            return "must not be empty"
        case "literal_error":
            return f"{fault['input']!r} must be {fault['ctx']['expected']}"
        case "string_pattern_mismatch":
            return f"{fault['input']!r} must be a name of letters, digits, _ and -, the first a letter or digit"
        case _:
            return fault["msg"].removeprefix("Value error, ")


def _read_table(path: Path, findings: list[Finding]) -> pd.DataFrame | None:
    if not path.is_file():
        findings.append(_fault("is missing; every cohort needs its clinical table"))
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        findings.append(_fault(f"line {line} is not UTF-8 (a Latin-1 or Windows export?); save the table as CSV UTF-8"))
        return None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        findings.append(_fault(f"line {reader.line_num} cannot be read as CSV: {error}"))
        return None
    rows = [(line, cells) for line, cells in rows if any(cells)]
    header = rows[0][1] if rows else []
    if PATIENT_ID not in header:
        hint = "; it seems to be separated by ';': save it with commas" if ";" in text.partition("\n")[0] else ""
        findings.append(_fault(f"has no column {PATIENT_ID} (comma-separated, names in the first line){hint}"))
        return None
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        findings.append(_fault(f"has a column twice: {', '.join(map(repr, repeated))}"))
        return None
    return _tabulate(header, rows[1:], findings)


def _tabulate(header: list[str], rows: list[tuple[int, list[str]]], findings: list[Finding]) -> pd.DataFrame | None:
    """The rows (line number, cells) as a table of text by patient, or None when their cells have no sure column."""
    if not rows:
        findings.append(_fault("has no patient"))
        return None
    uneven = [(line, len(cells)) for line, cells in rows if len(cells) != len(header)]
    for line, count in uneven:
        findings.append(
            _fault(
                f"line {line} has {count} cells, the header {len(header)}; write decimals with a point (12.5) "
                "and put a text that holds a comma in double quotes"
            )
        )
    if uneven:
        return None
    identifier = header.index(PATIENT_ID)
    for line, cells in rows:
        if not re.fullmatch(r"[\w.-]*\w", cells[identifier]):
            findings.append(
                _fault(
                    f"line {line}: '{cells[identifier]}' cannot name a patient; "
                    "use letters, digits, '_', '-' and '.' (it is also the name of the image folder)",
                    column=PATIENT_ID,
                )
            )
    table = pd.DataFrame([cells for _, cells in rows], columns=header, dtype=str)
    identifiers = table[PATIENT_ID]
    for name in sorted(set(identifiers[identifiers.duplicated()])):
        findings.append(_fault("appears more than once; keep one row a patient", patient=name))
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
                findings.append(_fault(problem, patient=patient, column=key))
        values = cells.where(~bad & (cells != ""))
        columns[key] = values.map(float, na_action="ignore").astype(float) if numeric else values.astype(object)
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
                    _fault(f"is missing; add it, or take '{endpoint}' out of endpoints in {MANIFEST_FILE}", column=name)
                )
            parsed[list(names)] = np.nan
            continue
        time_column, event_column = names
        parsed[[time_column, event_column]] = np.nan
        for patient, time, event in zip(table.index, table[time_column], table[event_column], strict=True):
            problems = (_time_problem(time, event), _event_problem(time, event))
            for column, problem in zip(names, problems, strict=True):
                if problem is not None:
                    findings.append(_fault(problem, patient=patient, column=column))
            if time and event and problems == (None, None):
                parsed.loc[patient, list(names)] = float(time), float(event)
        unused = int((table[time_column] == "").sum())
        if unused:
            message = f"empty for {unused} of {len(table)} patients: they do not count for {endpoint}"
            findings.append(Finding("note", CLINICAL_FILE, message, column=time_column))
    if "dm" in manifest.endpoints:
        metastatic = int((clinical["metastasis_at_presentation"] == "1").sum())
        if metastatic:
            message = f"{metastatic} of {len(table)} patients metastatic at presentation: not at risk of dm"
            findings.append(Finding("note", CLINICAL_FILE, message))
    if {"os_days", "dm_days"} <= set(parsed):
        for patient in parsed.index[(parsed["dm_event"] == 1) & (parsed["dm_days"] > parsed["os_days"])]:
            findings.append(
                _fault(
                    "metastasis is dated after death or last follow-up (os_days); one of the two is wrong",
                    patient=patient,
                    column="dm_days",
                )
            )
    return parsed


def _time_problem(time: str, event: str) -> str | None:
    """What is wrong with an endpoint's time cell, given its event cell."""
    if time == "":
        return "is empty although its event is given; give both or neither" if event else None
    try:
        days = float(time)
    except ValueError:
        return f"'{time}' is not a number of days"
    if not np.isfinite(days) or days < 0:
        return f"{time} days: a time must be a number of days from time zero, not below 0"
    if days > LONGEST_TIME_DAYS:
        return f"{time} days are more than 150 years: give days from time zero, no date and no smaller unit"
    return None


def _event_problem(time: str, event: str) -> str | None:
    """What is wrong with an endpoint's event cell, given its time cell."""
    if event == "":
        return "is empty although its time is given; give both or neither" if time else None
    return None if event in ("0", "1") else f"'{event}' is not an event; write 1 (event) or 0 (censored)"


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
    imaged = [patient for patient in cohort.patients if cohort.has_image(patient)]
    for patient in imaged:
        if not cohort.mask_path(patient).exists():
            findings.append(_missing_mask(cohort, patient))
    without = len(cohort.patients) - len(imaged)
    if without:
        message = f"{without} of {len(cohort.patients)} patients have no image: they train without it"
        findings.append(Finding("note", IMAGES_FOLDER, message))
    for name, lacking in cohort.lacking_channel().items():
        if lacking:
            message = f"{lacking} of {len(imaged)} patients with images have no {name}: the network sees 0 in its place"
            findings.append(Finding("note", IMAGES_FOLDER, message))


def _missing_mask(cohort: Cohort, patient: str) -> Finding:
    """A mask on the grid of a channel that the patient lacks cannot be checked, so it does not stand in."""
    first = cohort.first_channel(patient)
    folder = cohort.root / IMAGES_FOLDER / patient
    present = cohort.channel_files(patient)
    message = "is missing (mask.nii.gz would do too)"
    for name in cohort.manifest.channels:
        if name not in present and (folder / f"{name}_mask.nii.gz").exists():
            message += f"; {name}_mask.nii.gz is not used: the patient has no {name}.nii.gz"
    return Finding("fault", f"{IMAGES_FOLDER}/{patient}/{first}_mask.nii.gz", message, patient=patient)
