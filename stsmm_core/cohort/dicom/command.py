"""`stsmm cohort import dicom`: the steps in order, and what the person at the terminal sees of them."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from stsmm_core.cohort.dicom.clinical import ClinicalTable, read_clinical
from stsmm_core.cohort.dicom.importer import FaultyPatientsError, header_faults, import_dicom
from stsmm_core.cohort.dicom.oddities import plan_notes
from stsmm_core.cohort.dicom.plan import Fault, Plan, make_plan
from stsmm_core.cohort.dicom.pseudonyms import name_patients, new_salt, read_salt, write_salt
from stsmm_core.cohort.dicom.rules import read_rules
from stsmm_core.cohort.dicom.scan import Export, files_below, scan_export
from stsmm_core.cohort.importing import check_new
from stsmm_core.errors import CohortError


def import_command(
    source: Path,
    out: Path,
    *,
    clinical: Path,
    rules_file: Path,
    salt: Path | None,
    keep_ids: bool,
    leave_out_faulty: bool,
    dry_run: bool,
    show_sources: bool,
) -> None:
    """Scan, plan, and either print the plan or carry it out.

    Raises:
        CohortError: as the steps do.
    """
    # Their warnings quote values and paths of the files.
    warnings.filterwarnings("ignore", module="pydicom|highdicom")
    for library in ("pydicom", "highdicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    if source.is_file():
        raise CohortError(f"{source}: is a file; name the folder of the DICOM export")
    if source.resolve() in (out.resolve(), *out.resolve().parents):
        raise CohortError(f"{out}: the new folder must lie outside the export; name another")
    if salt is not None and out.resolve() in (salt.resolve(), *salt.resolve().parents):
        raise CohortError(f"{salt}: the salt must lie outside {out}, for it must not be passed on; name another file")
    if not dry_run:
        check_new(out)
    rules = read_rules(rules_file)
    manifest = rules.manifest()
    table = read_clinical(clinical, manifest, rules_file)
    fresh = salt is None or not salt.exists()
    secret = new_salt() if salt is None or fresh else read_salt(salt)
    patients = name_patients(table.lines, None if keep_ids else secret)
    console, progress = Console(), Console(stderr=True)
    with Progress(console=progress, transient=True) as bars:
        task = bars.add_task("Reading headers", total=sum(1 for _ in files_below(source)))
        export = scan_export(source, rules.tags(), advance=lambda: bars.advance(task))
    plan = make_plan(source, export, rules, patients)
    for note in _notes(plan, export, table) + plan_notes(plan.patients):
        console.print(Text(f"note   {note}"), soft_wrap=True)
    if dry_run:
        console.print(_decisions(plan, show_sources=show_sources))
        for path in export.unreadable if show_sources else ():
            console.print(Text(f"unreadable  {path.relative_to(source)}"), soft_wrap=True)
        faults = [*plan.faults, *header_faults(plan)]
        for fault in faults:
            console.print(Text(f"fault  {fault}", style="red"), soft_wrap=True)
        if plan.nothing:
            console.print(Text(f"fault  {plan.nothing}", style="red"), soft_wrap=True)
        console.print("Pixels, contours and the times and doses of PET are not read in a dry run.", soft_wrap=True)
        if faults or plan.lost or plan.nothing:
            raise typer.Exit(1)
        return
    kept = salt if fresh and not keep_ids else None
    with _salt_if_well(kept, secret), Progress(console=progress, transient=True) as bars:
        task = bars.add_task("Writing volumes", total=len(plan.patients))
        try:
            report = import_dicom(
                plan, manifest, table, out, leave_out_faulty=leave_out_faulty, advance=lambda: bars.advance(task)
            )
        except FaultyPatientsError as error:
            _say_files(console, error.faults, source if show_sources else None)
            raise
    for note in report.notes:
        console.print(Text(f"note   {note}"), soft_wrap=True)
    for fault in report.faults:
        console.print(Text(f"left out  {fault}", style="red"), soft_wrap=True)
    _say_files(console, report.faults, source if show_sources else None)
    if salt is None and not keep_ids:
        console.print(
            Text("note   The keys were drawn with a salt that nobody kept; --salt FILE gives the same keys next time."),
            soft_wrap=True,
        )
    console.print(f"Wrote {out}\nCheck it with: stsmm cohort check {out}", soft_wrap=True)


def _say_files(console: Console, faults: Sequence[Fault], source: Path | None) -> None:
    """Name the files at fault below the export, for who asked for it."""
    for fault in faults if source else ():
        if source and fault.source:
            console.print(Text(f"file   {fault.source.relative_to(source)}: {fault.message}"), soft_wrap=True)


@contextmanager
def _salt_if_well(path: Path | None, secret: bytes) -> Iterator[None]:
    """Keep a new salt in a file, before there is a cohort that needs it; it goes again when the block fails."""
    if path is not None:
        write_salt(path, secret)
    try:
        yield
    except BaseException:
        if path is not None:
            path.unlink(missing_ok=True)
        raise


def _notes(plan: Plan, export: Export, table: ClinicalTable) -> list[str]:
    faulty = {fault.patient for fault in plan.faults}
    without = {planned.patient for planned in plan.patients if not planned.channels} - faulty
    unmatched = without & {decision.patient for decision in plan.decisions}
    masks = sum(outline.kind == "nifti" for patient in plan.patients for outline in patient.outlines.values())
    counts: Mapping[str, int] = {
        "patients of the export without a row in the clinical table, left out": plan.strangers,
        "patients of the clinical table who are not in the export": len(without - unmatched),
        "patients of the clinical table with no series that matches a channel": len(unmatched),
        "DICOM files that cannot be read, left out": len(export.unreadable),
        "files that are not DICOM by their content, not used": len(export.other_files) - masks,
    }
    notes = [f"{what}: {count}" for what, count in counts.items() if count]
    if table.dropped:
        notes.append(f"columns that are not in the data dictionary are left out: {', '.join(table.dropped)}")
    return notes


def _decisions(plan: Plan, *, show_sources: bool) -> Table:
    table = Table(title="What would be imported")
    for name in ("patient", "modality", "description", "files", "becomes", "why", *["source"] * show_sources):
        table.add_column(name, overflow="fold")
    for one in plan.decisions:
        cells = [str(one.patient), one.modality, one.description, str(one.files), one.becomes or "-", one.why]
        table.add_row(*(Text(cell) for cell in cells + [str(one.source)] * show_sources))
    return table
