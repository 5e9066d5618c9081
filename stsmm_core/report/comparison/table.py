"""A table as it stands on the page and as CSV: the same cells, rounded for the reader and whole for the machine."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from stsmm_core.report.comparison.record import Estimate

Number = float | int | None
NONE = "\u2013"
"""Stands where there is nothing to say."""

SMALL_CELLS = (
    "A count of one or two patients may identify them: merge small cells, here and in tables/, before this report "
    "leaves the centre."
)

TIED = "\u00a0"
"""Holds a number and what belongs to it on one line; a cell breaks between a value and its interval only."""


@dataclass(frozen=True)
class Cell:
    """What a reader sees, and the numbers behind it by the name of the statistic."""

    text: str
    numbers: Mapping[str, Number]
    kind: str = ""


@dataclass(frozen=True)
class Row:
    """One line; rows of the same `group` stand together under its name."""

    label: str
    cells: tuple[Cell, ...]
    group: str = ""
    kind: str = ""

    @property
    def spans(self) -> tuple[tuple[Cell, int], ...]:
        """Cells with the columns that each takes: a reason that holds for neighbours is said once."""
        runs = [list(run) for _, run in groupby(self.cells, key=lambda cell: (cell.kind, cell.text))]
        spans: list[tuple[Cell, int]] = []
        for run in runs:
            spans += [(run[0], len(run))] if run[0].kind == "reason" else [(cell, 1) for cell in run]
        return tuple(spans)


@dataclass(frozen=True)
class Table:
    """`key` names the CSV file, `title` and `notes` stand above and below the table."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: str = ""

    @property
    def groups(self) -> tuple[tuple[str, tuple[Row, ...]], ...]:
        """Rows by group, in order."""
        return tuple((name, tuple(rows)) for name, rows in groupby(self.rows, key=lambda row: row.group))

    def to_csv(self) -> str:
        """One line a row and statistic, numbers not rounded; a reason stands in the line of the value."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["group", "row", "statistic", *self.columns[1:]])
        for row in self.rows:
            statistics = dict.fromkeys(name for cell in row.cells for name in cell.numbers)
            for statistic in statistics:
                cells = [_written(cell, statistic) for cell in row.cells]
                writer.writerow([row.group, row.label, statistic, *cells])
        return text.getvalue()


def words(text: str) -> Cell:
    """A cell of text, which a CSV file holds as it is."""
    return Cell(text, {"value": None}, "words")


def count(value: int | None) -> Cell:
    """A count of patients or events."""
    return Cell(NONE, {"value": None}) if value is None else Cell(f"{value:,}", {"value": value})


def share(part: int, whole: int) -> Cell:
    """A count with its percentage, "20 (17.4 %)"."""
    if not whole:
        return count(part)
    return Cell(f"{part:,}{TIED}({100 * part / whole:.1f}{TIED}%)", {"value": part, "percent": 100 * part / whole})


def estimate(figure: Estimate | None, *, digits: int = 3, with_sd: bool = False, signed: bool = False) -> Cell:
    """An estimate as "0.710 (0.044) [0.620, 0.790]", the SD on request, or the reason why there is none."""
    if figure is None:
        return Cell(NONE, {"value": None})
    if figure.value is None:
        return Cell(figure.reason or "", {"value": None}, "reason")
    sign = "+" if signed else ""
    text = f"{figure.value:{sign}.{digits}f}"
    if with_sd and figure.sd is not None:
        text += f"{TIED}({figure.sd:.{digits}f})"
    if figure.low is not None and figure.high is not None:
        text += f" [{figure.low:{sign}.{digits}f},{TIED}{figure.high:{sign}.{digits}f}]"
    elif figure.reason:
        text += f" ({figure.reason})"
    return Cell(minus(text), {"value": figure.value, "sd": figure.sd, "low": figure.low, "high": figure.high})


def point(figure: Estimate | None, *, digits: int = 3) -> Cell:
    """An estimate without its interval, for what only serves as a yardstick."""
    if figure is None or figure.value is None:
        return Cell(NONE, {"value": None})
    return Cell(minus(f"{figure.value:.{digits}f}"), {"value": figure.value})


def p_value(value: float | None) -> Cell:
    """A p value as journals print it."""
    if value is None:
        return Cell(NONE, {"value": None})
    return Cell(f"<{TIED}0.001" if value < 0.001 else f"{value:.3f}", {"value": value})


def minus(text: str) -> str:
    """Numbers with a true minus sign."""
    return text.replace("-", "\u2212")


def _written(cell: Cell, statistic: str) -> str | float | int:
    number = cell.numbers.get(statistic)
    if number is not None:
        return number
    return cell.text if statistic == "value" and cell.kind in ("words", "reason") else ""
