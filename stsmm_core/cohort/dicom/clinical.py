"""The hospital's clinical table: by its own identifiers, checked before any image is read, named by line alone."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from stsmm_core.cohort.cohort import Finding, write_cohort_tables
from stsmm_core.cohort.dictionary import ENDPOINTS, PATIENT_ID, VARIABLES, Number, endpoint_columns
from stsmm_core.cohort.manifest import Manifest
from stsmm_core.cohort.reading import parse_cohort
from stsmm_core.errors import CohortError


@dataclass(frozen=True)
class ClinicalTable:
    """A clinical table as text.

    Attributes:
        rows: by the hospital's identifiers, which must not be written or printed anywhere.
        lines: line of each patient in the file.
        dropped: columns that the cohort does not get: they might identify a patient.
    """

    rows: pd.DataFrame
    lines: Mapping[str, int]
    dropped: tuple[str, ...] = ()


def read_clinical(path: Path, manifest: Manifest, rules_file: Path | None = None) -> ClinicalTable:
    """Read a clinical table; only the columns that the data dictionary knows: others might identify a patient.

    Args:
        rules_file: where the endpoints of the manifest can be changed, for the messages.

    Raises:
        CohortError: when the file cannot be read, a patient has several rows, or a value is not right.
    """
    header, rows = _read_rows(path)
    lines = _lines(path, rows)
    known = [*VARIABLES, *(column for endpoint in ENDPOINTS for column in endpoint_columns(endpoint))]
    cells = [{name: "" if row[name] == "NA" else row[name] for name in known if name in row} for _, row in rows]
    table = pd.DataFrame(cells, index=list(lines), columns=[name for name in known if name in header], dtype=str)
    _check_values(path, table, lines, manifest, rules_file)
    return ClinicalTable(table, lines, tuple(name for name in header if name not in ("", PATIENT_ID, *known)))


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The names in the first line, and the line and cells of every row that is not empty.

    Raises:
        CohortError: when cells have no sure column; by line, not by what they hold.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except OSError as error:
        raise CohortError(f"{path}: cannot be read ({error.strerror}); is this the clinical table?") from None
    except (UnicodeDecodeError, csv.Error):
        raise CohortError(f"{path}: cannot be read as a table; save it as CSV UTF-8") from None
    lines = [(line, cells) for line, cells in lines if any(cells)]
    header = lines[0][1] if lines else []
    if PATIENT_ID not in header:
        raise CohortError(f"{path}: has no column {PATIENT_ID} (comma-separated, names in the first line)")
    named = [name for name in header if name]
    if len(set(named)) < len(named):
        raise CohortError(f"{path}: has a column twice; keep one")
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise CohortError(
                f"{path}: line {line} has {len(cells)} cells, the header {len(header)}; write decimals with a point "
                "(12.5), put a text that holds a comma in double quotes, and end no line with a comma"
            )
    return header, [(line, dict(zip(header, cells, strict=True))) for line, cells in lines[1:]]


def _lines(path: Path, rows: list[tuple[int, dict[str, str]]]) -> dict[str, int]:
    """The line of each patient.

    Raises:
        CohortError: when one has no identifier, or two have the same but for capitals; by line, not by name.
    """
    lines: dict[str, int] = {}
    seen: dict[str, int] = {}
    for line, row in rows:
        identifier = row[PATIENT_ID]
        if not identifier:
            raise CohortError(f"{path}: line {line} has no {PATIENT_ID}; complete or remove it")
        first = seen.setdefault(identifier.casefold(), line)
        if first != line:
            raise CohortError(f"{path}: lines {first} and {line} have the same {PATIENT_ID}; keep one row a patient")
        lines[identifier] = line
    return lines


def _check_values(
    path: Path, table: pd.DataFrame, lines: Mapping[str, int], manifest: Manifest, rules_file: Path | None
) -> None:
    """The checks of a cohort's table, told by line and column, without what a cell holds: it may name a patient.

    Raises:
        CohortError: with every fault.
    """
    numbered = table.rename(index={identifier: f"line-{line}" for identifier, line in lines.items()})
    with TemporaryDirectory() as scratch:
        without_images = manifest.model_copy(update={"channels": ()})
        write_cohort_tables(Path(scratch), without_images, numbered.reset_index(names=PATIENT_ID))
        _, findings = parse_cohort(Path(scratch))
    faults = [_told(finding, numbered, rules_file) for finding in findings if finding.severity == "fault"]
    if faults:
        raise CohortError("\n".join([f"{path}: faults in the clinical table: {len(faults)}", *faults]))


def _told(fault: Finding, numbered: pd.DataFrame, rules_file: Path | None) -> str:
    """A fault of the table by line and column, saying what belongs into a cell instead of what is there."""
    if fault.column is None:
        return f"  {fault.message}"
    if fault.patient is None:
        remedy = f", or change endpoints in {rules_file}" if rules_file else ""
        return f"  column {fault.column}: is missing; add it{remedy}"
    place = f"  {fault.patient.replace('line-', 'line ')}, column {fault.column}: "
    cell = str(numbered.loc[fault.patient, fault.column])
    return place + (_wanted(fault.column) if cell and cell in fault.message else fault.message)


def _wanted(column: str) -> str:
    """What a cell of a column must hold."""
    variable = VARIABLES.get(column)
    if isinstance(variable, Number):
        return f"is no number from {variable.low:g} to {variable.high:g} ({variable.unit}); mend it or leave it empty"
    if variable is not None:
        return f"is none of its levels; write one of {', '.join(variable.levels)} or leave it empty"
    if column.endswith("_event"):
        return "is no event; write 1 (event) or 0 (censored)"
    return "is no number of days from time zero, 0 or more"
