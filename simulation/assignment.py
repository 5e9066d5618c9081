"""Which patient went to which virtual centre, and how the centres differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simulation.partition import ByColumn, Dirichlet, Partition
from simulation.sheet import labels_of
from stsmm_core.cohort.cohort import Cohort
from stsmm_core.cohort.dictionary import PATIENT_ID
from stsmm_core.files import write_atomically

ASSIGNMENT_FILE = "centres.csv"
"""Names patients: it lies among the site files and stays with them."""


def write_assignment(centres: Sequence[Cohort], folder: Path) -> None:
    """Write centres.csv: a row a patient with its centre."""
    rows = [(patient, centre.manifest.site) for centre in centres for patient in centre.patients]
    table = pd.DataFrame(rows, columns=[PATIENT_ID, "centre"])
    write_atomically(folder / ASSIGNMENT_FILE, lambda path: table.to_csv(path, index=False))


def mix_by_centre(
    centres: Sequence[Cohort], endpoints: Sequence[str], partition: Partition | None
) -> list[dict[str, Any]]:
    """Patients, events and, where the partition looks at a label, how many have each, a row a centre."""
    by = partition.by if isinstance(partition, ByColumn | Dirichlet) else None
    labels = [None if by is None else labels_of(centre, by) for centre in centres]
    levels = sorted({value for each in labels if each is not None for value in each})
    return [
        {
            "site": centre.manifest.site,
            "patients": len(centre.patients),
            "events": dict(zip(endpoints, map(int, centre.outcomes(endpoints).events()), strict=True)),
            "mix": {} if own is None else {value: int((own == value).sum()) for value in levels},
        }
        for centre, own in zip(centres, labels, strict=True)
    ]


def print_mix(console: Console, rows: Sequence[dict[str, Any]], partition: Partition | None) -> None:
    """Print `mix_by_centre`."""
    by = partition.by if isinstance(partition, ByColumn | Dirichlet) else None
    table = Table(title="Virtual centres" if by is None else f"Virtual centres, by {escape(by)}")
    for column in ("centre", "patients", *(f"{endpoint} events" for endpoint in rows[0]["events"])):
        table.add_column(column)
    for level in rows[0]["mix"]:
        table.add_column(escape(level))
    for row in rows:
        counts = [row["patients"], *row["events"].values(), *row["mix"].values()]
        table.add_row(row["site"], *map(str, counts))
    console.print(table)
