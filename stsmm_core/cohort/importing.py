"""What every importer needs: a source table with known columns, an output folder that is complete or not there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from stsmm_core.errors import CohortError

SOURCE_FILE = "SOURCE.md"
"""Licence, citation and list of changes, beside the imported data."""


def check_new(out: Path) -> None:
    """Refuse a folder that an import may not write.

    Raises:
        CohortError: when it is a file, or already there and not empty.
    """
    if out.exists() and not out.is_dir():
        raise CohortError(f"{out}: is a file; name a new folder")
    if out.exists() and any(out.iterdir()):
        raise CohortError(f"{out}: is already there and not empty; name a new folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A hidden sibling to build in; it becomes `out` when the block ends well and vanishes when it does not.

    Raises:
        CohortError: when `out` is already there and not an empty folder.
    """
    out = out.resolve()
    check_new(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CohortError(
            f"{out.parent}: cannot be made ({error.strerror}); name a folder where you can write"
        ) from None
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        building = Path(scratch) / out.name
        building.mkdir()
        yield building
        if out.exists():
            out.rmdir()
        building.rename(out)


def read_source_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a source's CSV as text, index patient_id, every cell as written except that NA becomes empty.

    Raises:
        CohortError: naming the missing file, the missing columns, or the patients with more than one row.
    """
    if not path.is_file():
        raise CohortError(f"{path}: is missing; is {path.parent} the right source folder?")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError):
        raise CohortError(
            f"{path}: cannot be read as a table: not UTF-8, empty, or a line has more cells than the first; "
            "save it as CSV UTF-8"
        ) from None
    missing = [name for name in ("patient_id", *columns) if name not in table]
    if missing:
        raise CohortError(f"{path}: has no column {', '.join(missing)}; is this another version of the source?")
    table = table.set_index("patient_id").replace("NA", "").sort_index()
    twice = sorted(set(table.index[table.index.duplicated()]))
    if twice:
        raise CohortError(f"{path}: patient {', '.join(twice)} has more than one row")
    return table


def map_histology(table: pd.DataFrame, column: str, levels: dict[str, str], path: Path) -> pd.Series:
    """Translate a source's histology into the data dictionary's levels ("" where the subtype is unknown).

    Raises:
        CohortError: naming every patient whose text the table of levels does not hold.
    """
    unknown = [f"{patient} ('{text}')" for patient, text in table[column].items() if text not in levels]
    if unknown:
        raise CohortError(f"{path}: column {column}: no level is known for {', '.join(unknown)}")
    return table[column].map(levels)
