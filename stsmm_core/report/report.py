"""The report of a run: one HTML page that holds everything it shows and opens without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stsmm_core.cohort.dictionary import ENDPOINTS
from stsmm_core.config import to_toml
from stsmm_core.report import cox_prose, figures, pooled_tables, prose, tables
from stsmm_core.report.cox import CoxRecord, hazard_table, read_cox_run
from stsmm_core.report.drawing import data_uri
from stsmm_core.report.page import template, write_page
from stsmm_core.report.results import Results, read_results
from stsmm_core.report.run_files import read_run_experiment
from stsmm_core.run_folder import CONFIG_FILE

REPORT_FILE = "report.html"
SITES_ACROSS = 6
"""Columns of the cohort table that fit a printed page; more sites continue below."""


@dataclass(frozen=True)
class Block:
    """The part of a wide table that fits a page: column heads and rows."""

    columns: tuple[str, ...]
    rows: tables.Table


def write_report(run: Path) -> Path:
    """Write `report.html` into a finished run folder and return its path.

    The page holds sums, counts and curves of the run: no patient, no file path. An older report is replaced only
    when the new one is complete.

    Raises:
        RunError: naming the file of the run folder that is missing, broken or cannot be written.
    """
    if read_run_experiment(run / CONFIG_FILE).model.kind == "cox":
        page = render_cox(*read_cox_run(run))
    else:
        page = render(read_results(run))
    write_page(run / REPORT_FILE, page)
    return run / REPORT_FILE


def render(results: Results) -> str:
    """The page of a run; equal results give an equal page."""
    sites = results.metrics.cohorts
    rows, images = tables.cohort_table(sites), tables.image_table(sites)
    results_table = tables.results_table(results)
    unit = prose.trained_unit(results.experiment)
    return template("report.html").render(
        results=results,
        endpoint_names=ENDPOINTS,
        subtitle=prose.subtitle(results),
        scheme=prose.scheme(results.experiment),
        duration=prose.duration(results.metrics.wall_s),
        honest=prose.honest_numbers(results),
        methods=prose.methods(results),
        results_table=results_table,
        pooled=any(result.pooled_c is not None for result in results.metrics.test.values()),
        risk_tables={endpoint: pooled_tables.risk_table(results, endpoint) for endpoint in results.endpoints},
        group_tables={endpoint: pooled_tables.group_table(results, endpoint) for endpoint in results.endpoints},
        certificate=pooled_tables.certificate_table(results),
        left_out=pooled_tables.largest_left_out(results),
        results_suppressed=any(
            tables.SUPPRESSED in (row.n, row.events, row.pairs) for part in results_table.values() for row in part
        ),
        cohort_blocks=across([site.site for site in sites], rows),
        image_blocks=across([site.site for site in sites], images),
        training_table=tables.training_table(results),
        site_blending_table=tables.site_blending_table(results),
        cohorts_suppressed=tables.SUPPRESSED in "".join(cell for row in (*rows, *images) for cell in row.cells),
        forest=data_uri(figures.forest_figure(results)),
        survival=_survival(results),
        losses=data_uri(figures.loss_figure(results)),
        weights=data_uri(
            figures.weights_figure(results.history, results.heads, results.metrics.first_blending_rounds, unit=unit)
        ),
        unit=unit,
        config=to_toml(results.experiment.with_pretrained(Path(results.experiment.model.pretrained).name)),
        versions=results.versions,
    )


def render_cox(results: Results, cox: CoxRecord) -> str:
    """The page of a Cox regression; equal results give an equal page."""
    sites = results.metrics.cohorts
    rows = tables.cohort_table(sites)
    results_table = tables.results_table(results)
    return template("cox.html").render(
        results=results,
        cox=cox,
        endpoint_names=ENDPOINTS,
        subtitle=prose.subtitle(results),
        scheme=prose.scheme(results.experiment),
        duration=prose.duration(results.metrics.wall_s),
        honest=prose.honest_numbers(results),
        methods=cox_prose.methods(results, cox),
        results_table=results_table,
        results_suppressed=any(
            tables.SUPPRESSED in (row.n, row.events, row.pairs) for part in results_table.values() for row in part
        ),
        hazards={endpoint: hazard_table(cox.endpoints[endpoint]) for endpoint in results.endpoints},
        cohort_blocks=across([site.site for site in sites], rows),
        cohorts_suppressed=tables.SUPPRESSED in "".join(cell for row in rows for cell in row.cells),
        forest=data_uri(figures.forest_figure(results)),
        survival=_survival(results),
        config=to_toml(results.experiment.with_pretrained("")),
        versions=results.versions,
    )


def _survival(results: Results) -> str | None:
    """The survival curves as an image; None of a run that has none."""
    curves = {endpoint: each for endpoint, each in (results.metrics.survival or {}).items() if each.sites}
    return data_uri(figures.survival_figure(curves)) if curves else None


def across(sites: Sequence[str], rows: tables.Table) -> tuple[Block, ...]:
    """Cut a table of one column a site and a total into blocks that fit a page; none of an empty table."""
    if not rows:
        return ()
    columns = (*sites, "Total") if len(sites) > 1 else tuple(sites)
    blocks = []
    for start in range(0, len(columns), SITES_ACROSS):
        part = slice(start, min(start + SITES_ACROSS, len(columns)))
        cut = tuple(tables.Row(row.label, row.cells[part], row.kind) for row in rows)
        blocks.append(Block(columns[part], cut))
    return tuple(blocks)
