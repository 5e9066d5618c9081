"""Writing the report of a comparison: the page, its tables and figures as files, and the model card."""

import io
from dataclasses import dataclass
from pathlib import Path

from stsmm_core.cohort.dictionary import ENDPOINTS
from stsmm_core.config import to_toml
from stsmm_core.errors import RunError
from stsmm_core.files import write_atomically
from stsmm_core.report import prose as run_prose
from stsmm_core.report.comparison import cohort_tables, panels, performance_tables, prose
from stsmm_core.report.comparison.architecture import architecture_figure, describe_network
from stsmm_core.report.comparison.checklists import CHECKLISTS, FilledChecklist, fill
from stsmm_core.report.comparison.model_card import Section, as_markdown, model_card
from stsmm_core.report.comparison.panels import Panel
from stsmm_core.report.comparison.reading import Comparison, read_comparison
from stsmm_core.report.comparison.table import Table
from stsmm_core.report.drawing import data_uri, figure_style
from stsmm_core.report.figures import weights_figure
from stsmm_core.report.history import first_updates
from stsmm_core.report.page import template, write_page
from stsmm_core.report.report import REPORT_FILE

TABLES_FOLDER = "tables"
FIGURES_FOLDER = "figures"
MODEL_CARD_FILE = "model_card.md"
DOTS_PER_INCH = 200


@dataclass(frozen=True)
class Content:
    """All that the report shows of one comparison; `figures` are panels by the figure they belong to."""

    comparison: Comparison
    tables: dict[str, tuple[Table, ...]]
    figures: dict[str, tuple[Panel, ...]]
    checklists: tuple[FilledChecklist, ...]
    card: tuple[Section, ...]
    parameters: int


def write_comparison_report(run: Path) -> Path:
    """Write report.html, model_card.md, tables/*.csv and figures/*.png into a finished comparison; return the page.

    The page loads nothing from a network and names no patient; its heat maps are images of patients.

    Raises:
        RunError: naming the file of the run folder that is missing, broken or cannot be written.
    """
    content = gather(read_comparison(run))
    shown = [table for tables in content.tables.values() for table in tables]
    for table in (*shown, *(checklist.table for checklist in content.checklists)):
        write_page(run / TABLES_FOLDER / f"{table.key}.csv", table.to_csv())
    for panel in (panel for part in content.figures.values() for panel in part):
        _write_png(run / FIGURES_FOLDER / f"{panel.key}.png", panel)
    write_page(run / MODEL_CARD_FILE, as_markdown(content.card, title=content.comparison.first.label))
    write_page(run / REPORT_FILE, render(content))
    return run / REPORT_FILE


def gather(comparison: Comparison) -> Content:
    """Tables, figures, checklists and card of a comparison."""
    facts = prose.facts(comparison)
    architecture = describe_network(comparison.experiment, channels=comparison.record.channels)
    drawn = f"The network from inputs to heads, {architecture.parameters:,} parameters in all"
    return Content(
        comparison,
        tables={
            "demographics": cohort_tables.demographics(comparison),
            "subtypes": cohort_tables.subtypes(comparison),
            "discrimination": (performance_tables.discrimination(comparison),),
            "differences": _with_rows(performance_tables.differences(comparison)),
            "prediction_error": _with_rows(performance_tables.prediction_error(comparison)),
            "calibration": _with_rows(performance_tables.calibration(comparison)),
            "subgroups": _with_rows(performance_tables.subgroups(comparison)),
            "missing": _with_rows(cohort_tables.missing_values(comparison)),
            "sanity": _with_rows(performance_tables.sanity_checks(comparison)),
        },
        figures={
            "concordance": tuple(panels.concordance_panel(comparison, name) for name in comparison.endpoints),
            "weights": _weights(comparison),
            "roc": panels.roc_panels(comparison),
            "calibration": panels.calibration_panels(comparison),
            "decision": panels.decision_panels(comparison),
            "architecture": (Panel("architecture", drawn, architecture_figure(architecture)),),
            "attributions": panels.attribution_panels(comparison),
            "incidence": panels.cumulative_incidence_panels(comparison),
        },
        checklists=tuple(fill(key, facts) for key in CHECKLISTS),
        card=model_card(comparison, facts),
        parameters=architecture.parameters,
    )


def render(content: Content) -> str:
    """The page; equal content gives an equal page."""
    comparison = content.comparison
    experiment = comparison.experiment
    uris = {panel.key: data_uri(panel.figure) for part in content.figures.values() for panel in part}
    return template("comparison/comparison.html").render(
        content=content,
        record=comparison.record,
        title=prose.title(comparison),
        honest=prose.honest_sentences(comparison),
        methods=prose.methods(comparison),
        follow_up=prose.follow_up(comparison),
        duration=run_prose.duration(comparison.record.wall_s),
        endpoints=comparison.endpoints,
        endpoint_names=ENDPOINTS,
        uris=uris,
        unit=run_prose.trained_unit(experiment) if experiment.evaluation.runs > 1 else None,
        metastatic=prose.metastatic(comparison),
        net_risk=run_prose.net_risk(comparison.endpoints),
        heat_maps=prose.heat_maps(experiment),
        heat_map_trust=prose.HEAT_MAP_TRUST[experiment.explain.method],
        config=to_toml(experiment.with_pretrained(Path(experiment.model.pretrained).name)),
        versions=comparison.versions,
    )


def _with_rows(table: Table) -> tuple[Table, ...]:
    return (table,) if table.rows else ()


def _weights(comparison: Comparison) -> tuple[Panel, ...]:
    if comparison.history is None:
        return ()
    heads, unit = comparison.experiment.heads, run_prose.trained_unit(comparison.experiment)
    figure = weights_figure(comparison.history, heads, first_updates(comparison.history), unit=unit)
    return (Panel("blending_weights", "Blending weight of each head by round, stacked to 1", figure),)


def _write_png(path: Path, panel: Panel) -> None:
    picture = io.BytesIO()
    with figure_style():
        panel.figure.savefig(picture, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    try:
        write_atomically(path, lambda temporary: temporary.write_bytes(picture.getvalue()))
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); check the folder's rights and space") from None
