"""The tables of the report, as rows of text: no markup, so that the template alone decides how they look."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stsmm_core.cohort.dictionary import ENDPOINTS, VARIABLES, Category
from stsmm_core.imaging.flag_kinds import FLAG_KINDS, FlagKind
from stsmm_core.report.history import FUSION
from stsmm_core.report.pooled_tables import pooled_cell
from stsmm_core.report.results import (
    CategorySummary,
    Concordance,
    NumberSummary,
    Results,
    SiteSummary,
)

SUPPRESSED = "suppressed†"
"""Stands for a count below the site's minimum cell size; the template explains the dagger."""

NOT_RECORDED = "\u2013"

FLAG_WORDS: dict[FlagKind, str] = {
    "border": "Tumour touches the border of the image, n (%)",
    "parts": "Mask in several parts, n (%)",
    "volume": "Volumes of mask, contours or table differ, n (%)",
    "contrast": "Saturated or without contrast, n (%)",
    "spacing": "Unusual voxel size, n (%)",
    "grid": "Volume changed by resampling, n (%)",
    "coverage": "A channel shows part of the tumour, n (%)",
    "registration": "Doubtful registration, n (%)",
}

_LEVEL_WORDS = {"0": "no", "1": "yes", "F": "female", "M": "male", "mpnst": "MPNST"}

Table = tuple["Row", ...]


@dataclass(frozen=True)
class Row:
    """One line of a table; `kind` is plain, group (opens a group of levels) or level (belongs to one)."""

    label: str
    cells: tuple[str, ...]
    kind: str = "plain"


@dataclass(frozen=True)
class ResultRow:
    """One head and endpoint of the results table; `reason` replaces the number where there is none."""

    head: str
    index: str
    reason: str | None
    n: str
    events: str
    pairs: str
    oracle: str
    pooled: str


def count(value: int | None) -> str:
    """A count, or the word for one that the site suppressed."""
    return SUPPRESSED if value is None else f"{value:,}"


def share(part: int | None, whole: int | None) -> str:
    """A count with its percentage, "20 (17.4 %)", as far as both are disclosed."""
    if part is None or not whole:
        return count(part)
    return f"{part:,} ({100 * part / whole:.1f} %)"


def index_with_interval(concordance: Concordance, digits: int = 3) -> str:
    """A C-index as "0.710 [0.620, 0.790]"; an empty text where there is none."""
    if concordance.value is None:
        return ""
    if concordance.ci_low is None or concordance.ci_high is None:
        return f"{concordance.value:.{digits}f} [no interval]"
    return f"{concordance.value:.{digits}f} [{concordance.ci_low:.{digits}f}, {concordance.ci_high:.{digits}f}]"


def results_table(results: Results) -> dict[str, tuple[ResultRow, ...]]:
    """Rows by endpoint, one a head."""
    oracle = results.metrics.oracle or {}
    table: dict[str, tuple[ResultRow, ...]] = {}
    for endpoint in results.endpoints:
        known = oracle.get(endpoint)
        rows = []
        for head in results.heads:
            concordance = results.metrics.heads[head][endpoint].harrell_c
            rows.append(
                ResultRow(
                    head=head,
                    index=index_with_interval(concordance),
                    reason=concordance.reason if concordance.value is None else None,
                    n=count(concordance.n),
                    events=count(concordance.events),
                    pairs=count(concordance.pairs),
                    oracle=NOT_RECORDED if known is None else f"{known:.3f}",
                    pooled=pooled_cell(results.metrics.heads[head][endpoint].pooled_c),
                )
            )
        table[endpoint] = tuple(rows)
    return table


def cohort_table(sites: Sequence[SiteSummary]) -> Table:
    """A Table 1: one column a site, then their total where every part of it is disclosed."""
    everyone = total_of(sites)
    columns = [*sites, everyone]
    rows = [Row("Patients, n", tuple(count(column.patients) for column in columns))]
    for endpoint, name in ENDPOINTS.items():
        if endpoint in everyone.events:
            recording = _sum([site.patients for site in sites if endpoint in site.events])
            wholes = [*(site.patients for site in sites), recording]
            cells = tuple(
                share(column.events[endpoint], whole) if endpoint in column.events else NOT_RECORDED
                for column, whole in zip(columns, wholes, strict=True)
            )
            rows.append(Row(f"Events, {name}, n (%)", cells))
    rows.append(Row("With image, n (%)", tuple(share(column.with_image, column.patients) for column in columns)))
    for key, variable in VARIABLES.items():
        if key not in everyone.variables:
            continue
        summaries = [column.variables.get(key) for column in columns]
        if isinstance(variable, Category):
            rows.append(Row(f"{variable.label}, n (%)", tuple(_known(summary) for summary in summaries), "group"))
            for level in variable.levels:
                cells = tuple(_level_cell(summary, level) for summary in summaries)
                rows.append(Row(level_words(level), cells, "level"))
        else:
            label = f"{variable.label}, {variable.unit}"
            rows.append(Row(label, tuple(_known(summary) for summary in summaries), "group"))
            rows.append(Row("mean (SD)", tuple(_mean_cell(summary) for summary in summaries), "level"))
    return tuple(rows)


def image_table(sites: Sequence[SiteSummary]) -> Table:
    """One column a site and a total: patients with each kind of oddity in their images; nothing without images.

    A kind that no site tells of has no row: over the wire come only those seen on the images as read.
    """
    everyone = total_of(sites)
    if not everyone.image_flags or everyone.with_image == 0:
        return ()
    columns = [*sites, everyone]
    rows = [Row("With image, n", tuple(count(column.with_image) for column in columns))]
    for kind in (kind for kind in FLAG_WORDS if kind in everyone.image_flags):
        cells = tuple(
            NOT_RECORDED if column.with_image == 0 else share(column.image_flags.get(kind, 0), column.with_image)
            for column in columns
        )
        rows.append(Row(FLAG_WORDS[kind], cells))
    return tuple(rows)


def training_table(results: Results) -> Table:
    """One row a fold: rounds, the selected round, its loss beside the untrained one, first update of the weights."""
    rows = []
    for fold in range(results.folds):
        loss = results.series(fold, FUSION)["validation_loss"]
        selected = results.metrics.selected_rounds[fold]
        first = results.metrics.first_blending_rounds[fold]
        weights = (results.series(fold, head)["weight"].iloc[-1] for head in results.heads)
        rows.append(
            Row(
                str(fold),  # as in history.csv and the names of the checkpoints
                (
                    str(loss.index[-1]),
                    str(selected),
                    _loss(loss[0]),
                    _loss(loss[selected]),
                    "never" if first is None else str(first),
                    " / ".join(f"{weight:.2f}" for weight in weights),
                ),
            )
        )
    return tuple(rows)


def site_blending_table(results: Results) -> Table:
    """One row a site, one cell a head: mean weight at the last checkpoint of each fold, and the range over all."""
    if results.site_history is None:
        return ()
    rows = []
    for site, own in results.site_history.groupby("site"):
        cells = []
        for head in results.heads:
            weights = own[own["head"] == head].sort_values(["fold", "round"])
            final = weights.groupby("fold")["weight"].last().mean()
            cells.append(f"{final:.2f} ({weights['weight'].min():.2f} to {weights['weight'].max():.2f})")
        rows.append(Row(str(site), tuple(cells)))
    return tuple(rows)


def level_words(level: str) -> str:
    """A level of the data dictionary as it reads in a table."""
    return _LEVEL_WORDS.get(level, level.replace("_", " "))


def total_of(sites: Sequence[SiteSummary]) -> SiteSummary:
    """All sites as one: sums and pooled moments, suppressed wherever one site's share is.

    A site that does not record a variable or an endpoint adds nothing to it.
    """
    variables: dict[str, NumberSummary | CategorySummary] = {}
    for key, variable in VARIABLES.items():
        given = [site.variables[key] for site in sites if key in site.variables]
        if not given:
            continue
        if isinstance(variable, Category):
            variables[key] = _pool_levels([summary for summary in given if isinstance(summary, CategorySummary)])
        else:
            variables[key] = _pool_moments([summary for summary in given if isinstance(summary, NumberSummary)])
    return SiteSummary(
        site="Total",
        patients=_sum([site.patients for site in sites]),
        events={
            endpoint: _sum([site.events[endpoint] for site in sites if endpoint in site.events])
            for endpoint in ENDPOINTS
            if any(endpoint in site.events for site in sites)
        },
        with_image=_sum([site.with_image for site in sites]),
        image_flags={
            kind: _sum([site.image_flags.get(kind, 0) for site in sites])
            for kind in FLAG_KINDS
            if any(kind in site.image_flags for site in sites)
        },
        variables=variables,
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [value for value in counts if value is not None]
    return sum(known) if len(known) == len(counts) else None


def _pool_levels(summaries: Sequence[CategorySummary]) -> CategorySummary:
    levels = {level: None for summary in summaries for level in summary.levels}
    return CategorySummary(
        n=_sum([summary.n for summary in summaries]),
        levels={level: _sum([summary.levels.get(level, 0) for summary in summaries]) for level in levels},
    )


def _pool_moments(summaries: Sequence[NumberSummary]) -> NumberSummary:
    """Mean and sample standard deviation of all sites' patients together, from the sites' own."""
    total = _sum([summary.n for summary in summaries])
    parts = [
        (summary.n, summary.mean, 0.0 if summary.n == 1 else summary.sd) for summary in summaries if summary.n != 0
    ]
    known = [(n, mean, sd) for n, mean, sd in parts if n is not None and mean is not None and sd is not None]
    if not total or len(known) != len(parts):
        return NumberSummary(n=total, mean=None, sd=None)
    mean = sum(n * site_mean for n, site_mean, _ in known) / total
    squares = sum((n - 1) * sd**2 + n * (site_mean - mean) ** 2 for n, site_mean, sd in known)
    return NumberSummary(n=total, mean=mean, sd=math.sqrt(squares / (total - 1)) if total > 1 else None)


def _known(summary: NumberSummary | CategorySummary | None) -> str:
    """How many patients have a value."""
    if summary is None or summary.n == 0:
        return NOT_RECORDED
    return f"n = {count(summary.n)}" if summary.n is not None else SUPPRESSED


def _mean_cell(summary: NumberSummary | CategorySummary | None) -> str:
    if not isinstance(summary, NumberSummary) or summary.n == 0:
        return NOT_RECORDED
    if summary.mean is None:
        return SUPPRESSED
    return f"{summary.mean:.1f} ({NOT_RECORDED if summary.sd is None else f'{summary.sd:.1f}'})"


def _level_cell(summary: NumberSummary | CategorySummary | None, level: str) -> str:
    if not isinstance(summary, CategorySummary) or summary.n == 0:
        return NOT_RECORDED
    return share(summary.levels.get(level, 0), summary.n)


def _loss(value: float) -> str:
    return NOT_RECORDED if math.isnan(value) else f"{value:.3f}"
