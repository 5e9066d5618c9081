"""Tables of the figures over all sites, and of the exactness certificate."""

from collections.abc import Iterator
from dataclasses import dataclass

from stsmm_core.report.results import Check, HorizonResult, PooledFigure, Results

COLUMNS = {
    "auc": "AUC",
    "brier": "Brier",
    "brier_null": "Brier, null",
    "ipa": "IPA",
    "oe": "O/E",
    "brier_site": "Brier, own baseline",
    "oe_site": "O/E, own baseline",
}
"""Figures of the risk table and their names."""


@dataclass(frozen=True)
class RiskRow:
    """A horizon; `reason` replaces the figures where there are none."""

    horizon: str
    names: tuple[str, ...]
    cells: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class GroupRow:
    """A group of predicted risk."""

    label: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class CertificateRow:
    """A figure of the certificate at one minimum cell size."""

    label: str
    minimum: int
    cells: tuple[str, ...]


def pooled_cell(figure: PooledFigure | None, digits: int = 3) -> str:
    """A figure as "0.710 [0.620, 0.790] {0.702, 0.718}", the bounds in braces; or why there is none."""
    if figure is None:
        return ""
    if figure.value is None:
        return figure.reason or ""
    interval = (
        "[no interval]"
        if figure.ci_low is None or figure.ci_high is None
        else f"[{figure.ci_low:.{digits}f}, {figure.ci_high:.{digits}f}]"
    )
    bounds = "" if figure.bounds is None else f" {{{figure.bounds[0]:.{digits}f}, {figure.bounds[1]:.{digits}f}}}"
    return f"{figure.value:.{digits}f} {interval}{bounds}"


def risk_table(results: Results, endpoint: str) -> tuple[RiskRow, ...]:
    """A row a horizon."""
    names = tuple(COLUMNS.values())
    rows = []
    for years, horizon in results.metrics.test[endpoint].horizons.items():
        cells = tuple(pooled_cell(getattr(horizon, name)) for name in COLUMNS)
        rows.append(
            RiskRow(f"{years} years", names, cells, horizon.brier.reason if horizon.brier.value is None else None)
        )
    return tuple(rows)


def group_table(results: Results, endpoint: str) -> tuple[GroupRow, ...]:
    """A row a group and horizon."""
    return tuple(
        row for years, horizon in results.metrics.test[endpoint].horizons.items() for row in _groups_of(years, horizon)
    )


def certificate_table(results: Results) -> tuple[CertificateRow, ...]:
    """The check of each figure that failed or else differs most, over endpoints and horizons, by minimum cell size."""
    worst: dict[tuple[int, str], Check] = {}
    for check in results.metrics.certificate:
        key = check.minimum, check.figure.split(" at ")[0]
        if key not in worst or _badness(check) > _badness(worst[key]):
            worst[key] = check
    return tuple(
        CertificateRow(
            name,
            minimum,
            (
                str(minimum),
                f"{check.federated:.4f}",
                f"{check.pooled:.4f}",
                f"{check.difference:.1e}",
                _bound(check),
            ),
        )
        for (minimum, name), check in worst.items()
    )


def largest_left_out(results: Results) -> int:
    """At most so many patients are missing from a figure over all sites."""
    figures = [result.pooled_c for result in results.metrics.test.values()]
    return max((figure.left_out for figure in figures if figure is not None), default=0)


def _groups_of(years: str, horizon: HorizonResult) -> Iterator[GroupRow]:
    for number, group in enumerate(horizon.groups, start=1):
        observed = group.observed
        interval = (
            "[no interval]"
            if observed.ci_low is None or observed.ci_high is None
            else f"[{100 * observed.ci_low:.0f}, {100 * observed.ci_high:.0f}]"
        )
        cell = observed.reason or "" if observed.value is None else f"{100 * observed.value:.0f} {interval}"
        yield GroupRow(f"{years} years, {number}", (f"{group.n:,}", f"{100 * group.predicted:.0f}", cell))


def _badness(check: Check) -> tuple[bool, float]:
    return not check.holds, check.difference


def _bound(check: Check) -> str:
    if check.exact:
        return "equal" if check.holds else "NOT equal"
    if check.low is None or check.high is None:
        return "none"
    return f"{check.low:.4f} to {check.high:.4f}{'' if check.holds else ', NOT within'}"
