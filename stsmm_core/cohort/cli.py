"""Commands on cohort folders: check, describe, import, synth."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stsmm_core.cohort.cohort import Finding
from stsmm_core.errors import CohortError

if TYPE_CHECKING:
    from stsmm_core.imaging.agreement import Estimate

app = typer.Typer(help="Check, describe, import and make cohort folders.", no_args_is_help=True)
import_app = typer.Typer(
    help="Turn a hospital's export or a public data set into cohort folders.", no_args_is_help=True
)
fetch_app = typer.Typer(help="Fetch a public data set over the internet and import it.", no_args_is_help=True)
app.add_typer(import_app, name="import")
app.add_typer(fetch_app, name="fetch")

CohortFolder = Annotated[Path, typer.Argument(help="The cohort folder (with cohort.toml and clinical.csv).")]
CohortFolders = Annotated[list[Path], typer.Argument(help="Cohort folders, or folders of cohort folders.")]
SourceFolder = Annotated[Path, typer.Argument(help="The folder of the data set, as it was prepared.")]
NewFolder = Annotated[Path, typer.Argument(help="The folder to make; must not exist or be empty.")]


@app.command()
def check(
    folders: CohortFolders,
    images: Annotated[
        bool, typer.Option("--images", help="Also preprocess every patient, and say what is odd about the images.")
    ] = False,
    pages: Annotated[
        Path | None, typer.Option("--pages", help="With --images: folder for a page a patient to look at.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help=r"With --images: experiment file whose \[imaging] counts.")
    ] = None,
) -> None:
    """Say everything that is wrong with cohort folders; exit code 1 when there is a fault."""
    from stsmm_core.cohort.check import check_cohort
    from stsmm_core.cohort.reading import cohort_folders, refuse_inside_cohorts

    if (pages or config) and not images:
        raise CohortError("--pages and --config are for --images; add it, or leave them out")
    refuse_inside_cohorts(pages, folders, option="--pages")
    faulty = False
    for root in cohort_folders(folders):
        findings = check_cohort(root)
        if not images:
            faulty |= _print_findings(root, findings)
        elif any(finding.severity == "fault" for finding in findings):
            faulty |= _print_findings(root, findings)
            typer.echo("Images not looked at yet.")
        else:
            from rich.console import Console

            from stsmm_core.report.image_check import check_images_command, print_image_check

            folder = pages and pages / root.name
            looked = check_images_command(root, config, folder)
            faulty |= _print_findings(root, findings + looked.findings)
            print_image_check(Console(), looked, folder)
    if faulty:
        raise typer.Exit(1)


@app.command()
def describe(root: CohortFolder) -> None:
    """Print a cohort's patients, follow-up, outcomes and variables as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from stsmm_core.cohort.description import describe_cohort
    from stsmm_core.cohort.reading import load_cohort

    cohort = load_cohort(root)
    table = Table(title=f"Cohort {cohort.manifest.name}, site {cohort.manifest.site}")
    table.add_column("", overflow="fold")
    table.add_column("Value", overflow="fold")
    table.add_column("Missing", justify="right")
    for row in describe_cohort(cohort):
        table.add_row(Text(row.label), Text(row.value), "" if row.missing is None else str(row.missing))
    Console().print(table)


@app.command()
def agreement(
    first: Annotated[Path, typer.Argument(help="Cohort folder with the first reader's masks.", metavar="A")],
    second: Annotated[Path, typer.Argument(help="The same patients with the second reader's masks.", metavar="B")],
    out: Annotated[Path | None, typer.Option(help="Also write one row a patient into this CSV file.")] = None,
) -> None:
    """How far two readers agree: Dice, surface distance, and ICC of the volume, with 95 % intervals."""
    from rich.console import Console
    from rich.table import Table

    from stsmm_core.cohort.agreement import compare_readers
    from stsmm_core.files import write_text_atomically

    found = compare_readers(first, second)
    table = Table(title=f"Agreement of two readers on {_count(len(found.patients), 'tumour')}")
    for column in ("", "value", "95 % CI"):
        table.add_column(column)
    for label, estimate in (
        ("Dice", found.dice),
        ("mean surface distance, mm", found.mean_surface_mm),
        ("95th percentile of surface distances, mm", found.hausdorff95_mm),
        ("ICC(A,1) of the volume", found.volume_icc),
    ):
        table.add_row(label, *_figures(estimate, len(found.patients)))
    Console().print(table)
    if found.only_one:
        typer.echo(f"Outlined by one reader only, not counted: {', '.join(found.only_one)}")
    if out is not None:
        instead = ", in place of the file that was there" if out.exists() else ""
        write_text_atomically(out, found.table().to_csv(lineterminator="\n"))
        typer.echo(f"Wrote {out}{instead}")


def _figures(estimate: "Estimate", patients: int) -> tuple[str, str]:
    """The value and its interval, or why there is none."""
    missing = "needs at least 2 patients" if patients < 2 else "the volumes do not differ between patients"
    return (
        "-" if math.isnan(estimate.value) else f"{estimate.value:.3f}",
        missing if math.isnan(estimate.low) else f"{estimate.low:.3f} to {estimate.high:.3f}",
    )


@import_app.command("sts-public")
def sts_public(source: SourceFolder, out: NewFolder) -> None:
    """TCIA soft-tissue sarcoma (McGill): T1 MRI, FDG-PET and outcomes of 36 patients."""
    from stsmm_core.cohort.sts_public import import_sts_public

    _say_written([import_sts_public(source, out)])


@import_app.command("tcga-sarc")
def tcga_sarc(source: SourceFolder, out: NewFolder) -> None:
    """TCGA-SARC: clinical variables and outcomes, one cohort for each of four federated sites."""
    from stsmm_core.cohort.tcga_sarc import import_tcga_sarc

    _say_written(import_tcga_sarc(source, out))


@import_app.command("dicom")
def dicom(
    source: Annotated[Path, typer.Argument(help="The folder of the DICOM export, however nested.")],
    out: NewFolder,
    clinical: Annotated[Path, typer.Option(help="Clinical table, with the hospital's own keys in patient_id.")],
    map: Annotated[Path, typer.Option(help="MAP.toml: which series is which channel (docs/dicom.md).")],
    salt: Annotated[
        Path | None,
        typer.Option(help="File with this site's secret, made when absent: the same patient keeps the same key."),
    ] = None,
    keep_ids: Annotated[bool, typer.Option("--keep-ids", help="Keep patient_id as it is, instead of a hash.")] = False,
    leave_out_faulty: Annotated[
        bool, typer.Option("--leave-out-faulty", help="Import a patient with a fault without images.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be taken and why; write nothing.")] = False,
    show_sources: Annotated[
        bool, typer.Option("--show-sources", help="Name folders and files at fault too (they may name patients).")
    ] = False,
) -> None:
    """A hospital's DICOM export: series, and outlines as RTSTRUCT, SEG, NIfTI or 0/255 images."""
    from stsmm_core.cohort.dicom.command import import_command

    import_command(
        source,
        out,
        clinical=clinical,
        rules_file=map,
        salt=salt,
        keep_ids=keep_ids,
        leave_out_faulty=leave_out_faulty,
        dry_run=dry_run,
        show_sources=show_sources,
    )


@fetch_app.command("sts-public")
def fetch_sts_public(
    out: NewFolder,
    clinical: Annotated[
        Path | None,
        typer.Option(help="Clinical table of the collection's patients.", show_default="all of them, without outcomes"),
    ] = None,
    mirror: Annotated[str | None, typer.Option("--from", help="Another place of the same git repository.")] = None,
) -> None:
    """T1 MRI, FDG-PET and contours of the 51 patients of TCIA's soft-tissue sarcoma collection (about 300 MB)."""
    from rich.console import Console

    from stsmm_core.cohort import fetching

    with Console(stderr=True).status("Fetching and importing"):
        report = fetching.fetch_sts_public(out, clinical=clinical, repository=mirror or fetching.REPOSITORY)
    for note in report.notes:
        typer.echo(f"note   {note}")
    _say_written([out])


@app.command()
def synth(
    out: NewFolder,
    sites: Annotated[int, typer.Option(min=1, help="Number of sites, one cohort folder each.")] = 3,
    patients: Annotated[int, typer.Option(min=1, help="Patients over all sites together.")] = 120,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same cohorts.")] = 0,
    shift: Annotated[float, typer.Option(help="How far sites differ: 0 alike, 1 as a rule, 3 far apart.")] = 1.0,
    images: Annotated[bool, typer.Option(help="Without images the sites are clinical-only.")] = True,
) -> None:
    """Make synthetic cohorts with a known hazard, for tests and the demo."""
    from stsmm_core.cohort.synthetic import write_synthetic_cohorts

    _say_written(write_synthetic_cohorts(out, sites=sites, patients=patients, seed=seed, shift=shift, images=images))


def _print_findings(root: Path, findings: list[Finding]) -> bool:
    """Print faults, notes and a verdict; whether there was a fault."""
    from rich.console import Console
    from rich.text import Text

    faults = [finding for finding in findings if finding.severity == "fault"]
    notes = [finding for finding in findings if finding.severity == "note"]
    console = Console()
    for finding in faults:
        console.print(Text(f"fault  {finding}", style="red"), soft_wrap=True)
    for finding in notes:
        console.print(Text(f"note   {finding}"), soft_wrap=True)
    counts = f"{_count(len(faults), 'fault')}, {_count(len(notes), 'note')}"
    if faults:
        console.print(Text(f"{root}: {counts}. Mend the faults, then check again.", style="bold red"), soft_wrap=True)
    else:
        console.print(Text(f"{root}: {counts}. The cohort can be used.", style="bold green"), soft_wrap=True)
    return bool(faults)


def _say_written(roots: list[Path]) -> None:
    for root in roots:
        typer.echo(f"Wrote {root}")
    typer.echo("Check them with: stsmm cohort check FOLDER")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
