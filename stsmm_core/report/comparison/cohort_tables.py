"""Who was studied: demographics (Table 1), subtypes (Table 2), missing values."""

from collections.abc import Sequence

from stsmm_core.cohort.dictionary import ENDPOINTS, VARIABLES, Category, Variable
from stsmm_core.report.comparison.reading import Comparison
from stsmm_core.report.comparison.record import CategoryColumn, CohortColumn, NumberColumn
from stsmm_core.report.comparison.table import NONE, SMALL_CELLS, TIED, Cell, Row, Table, count, share
from stsmm_core.report.tables import level_words

SETS = ("training", "validation", "development", "test")
EVERYONE = "all"
SUBTYPE = "histology"

_NOTES = (
    "Percentages of a level are of the patients with a known value; those of events of the patients with a known "
    "outcome who were at risk; those of images of all patients of the column. SD: standard deviation. IQR: "
    "interquartile range."
)


def demographics(comparison: Comparison) -> tuple[Table, ...]:
    """Table 1 by set and by site; one table where the comparison has only one of both."""
    parts = _column_sets(comparison)
    keys = [key for key in VARIABLES if key != SUBTYPE]
    tables: list[Table] = []
    for place, (key, words, columns) in enumerate(parts):
        rows = [*_outcomes(comparison, columns), *(row for name in keys for row in _variable(name, columns))]
        title = f"Patients, outcomes and clinical variables {words}." if not place else f"Continued, {words}."
        tables.append(Table(f"table_1_{key}", title, _heads(columns), tuple(rows), f"{_NOTES} {SMALL_CELLS}"))
    return tuple(tables)


def subtypes(comparison: Comparison) -> tuple[Table, ...]:
    """Table 2, with the columns of Table 1; none where the cohort does not record the subtype."""
    tables: list[Table] = []
    for key, words, columns in _column_sets(comparison):
        rows = _variable(SUBTYPE, columns)
        title = f"Histological subtypes {words}." if not tables else f"Continued, {words}."
        if rows:
            tables.append(Table(f"table_2_{key}", title, _heads(columns), tuple(rows), SMALL_CELLS))
    return tuple(tables)


def missing_values(comparison: Comparison) -> Table:
    """Patients without a value, by variable, and without the image."""
    patients = comparison.patients
    missing = comparison.record.missing
    known = [key for key in VARIABLES if key in missing]
    others = [key for key in missing if key not in VARIABLES]
    rows = [
        Row(
            VARIABLES[key].label if key in VARIABLES else key.replace("_", " ").capitalize(),
            (share(missing[key], patients),),
        )
        for key in (*known, *others)
    ]
    return Table(
        "table_8",
        f"Missing values among {patients:,} patients.",
        ("Variable", "Missing, n (%)"),
        tuple(rows),
        "A missing continuous value enters the network as the training mean with an indicator beside it; a missing "
        "category as no level; a patient without the image by a vector in its place, which is learned where patients "
        "with and without it are compared in training, or it is hidden there (else it is 0); the image network alone "
        "gives such a patient the mean risk.",
    )


def _column_sets(comparison: Comparison) -> list[tuple[str, str, list[CohortColumn]]]:
    """What Table 1 is divided by, its words and its columns, the total last."""
    columns = {column.column: column for column in comparison.record.cohort_by}
    everyone = columns[EVERYONE]
    sites = [columns[name] for name in comparison.record.sites if name in columns]
    sets = [columns[name] for name in SETS if name in columns]
    parts = []
    if sets:
        parts.append(("by_set", "by set of the split", [*sets, everyone]))
    if len(sites) > 1:
        parts.append(("by_site", "by site", [*sites, everyone]))
    return parts or [("all", "of all patients", [everyone])]


def _heads(columns: Sequence[CohortColumn]) -> tuple[str, ...]:
    ours = (*SETS, EVERYONE)
    names = (column.column.capitalize() if column.column in ours else column.column for column in columns)
    return ("Characteristic", *names)


def _outcomes(comparison: Comparison, columns: Sequence[CohortColumn]) -> list[Row]:
    rows = [Row("Patients, n", tuple(count(column.patients) for column in columns))]
    for endpoint in comparison.endpoints:
        cells = tuple(_events(column, endpoint) for column in columns)
        rows.append(Row(f"Events, {ENDPOINTS[endpoint]}, n (%)", cells))
    rows.append(Row("With image, n (%)", tuple(share(column.with_image, column.patients) for column in columns)))
    return rows


def _events(column: CohortColumn, endpoint: str) -> Cell:
    at_risk = column.at_risk.get(endpoint, 0)
    return share(column.events.get(endpoint, 0), at_risk) if at_risk else Cell(NONE, {"value": None})


def _variable(key: str, columns: Sequence[CohortColumn]) -> list[Row]:
    """Rows of one variable; none where no column has it."""
    summaries = [column.variables.get(key) for column in columns]
    if all(summary is None for summary in summaries):
        return []
    variable = VARIABLES[key]
    group = _heading(variable)
    rows = [Row("known, n", tuple(count(0 if summary is None else summary.n) for summary in summaries), group)]
    if isinstance(variable, Category):
        for level in variable.levels:
            rows.append(Row(level_words(level), tuple(_level(summary, level) for summary in summaries), group))
        return rows
    rows.append(Row("mean (SD)", tuple(_mean(summary) for summary in summaries), group))
    rows.append(Row("median [IQR]", tuple(_median(summary) for summary in summaries), group))
    return rows


def _heading(variable: Variable) -> str:
    return f"{variable.label}, n (%)" if isinstance(variable, Category) else f"{variable.label}, {variable.unit}"


def _level(summary: NumberColumn | CategoryColumn | None, level: str) -> Cell:
    if not isinstance(summary, CategoryColumn) or not summary.n:
        return Cell(NONE, {"value": None})
    return share(summary.levels.get(level, 0), summary.n)


def _mean(summary: NumberColumn | CategoryColumn | None) -> Cell:
    if not isinstance(summary, NumberColumn) or summary.mean is None:
        return Cell(NONE, {"value": None})
    spread = NONE if summary.sd is None else f"{summary.sd:.1f}"
    return Cell(f"{summary.mean:.1f}{TIED}({spread})", {"value": summary.mean, "sd": summary.sd})


def _median(summary: NumberColumn | CategoryColumn | None) -> Cell:
    if not isinstance(summary, NumberColumn) or None in (summary.median, summary.q1, summary.q3):
        return Cell(NONE, {"value": None})
    return Cell(
        f"{summary.median:.1f} [{summary.q1:.1f},{TIED}{summary.q3:.1f}]",
        {"value": summary.median, "q1": summary.q1, "q3": summary.q3},
    )
