"""How well the models predict: Tables 3 to 7 and the checks of the heat maps."""

from stsmm_core.cohort.dictionary import DAYS_PER_YEAR, ENDPOINTS, VARIABLES, years_in_words
from stsmm_core.report.comparison.prose import PAIRS
from stsmm_core.report.comparison.reading import Comparison
from stsmm_core.report.comparison.record import Estimate, Model, ResampledT, Similarity
from stsmm_core.report.comparison.table import (
    NONE,
    SMALL_CELLS,
    TIED,
    Cell,
    Row,
    Table,
    count,
    estimate,
    minus,
    p_value,
    point,
    words,
)
from stsmm_core.report.prose import net_risk
from stsmm_core.report.tables import level_words
from stsmm_core.run_folder import REFERENCE

DISCRIMINATION_COLUMNS = (
    "Model",
    "Harrell C (SD) [95\u00a0%\u00a0CI]",
    "Uno C (SD) [95\u00a0%\u00a0CI]",
    "Published C (SD)",
    "IBS [95\u00a0%\u00a0CI]",
    "IBS, null",
    "Patients",
    "Events",
    "Inputs",
)


def discrimination(comparison: Comparison) -> Table:
    """Table 3: C-index of each model, beside the published one, and the integrated Brier score beside its null."""
    rows = []
    for endpoint in comparison.endpoints:
        for model in comparison.record.models:
            metrics = comparison.record.results[model.key][endpoint]
            harrell = metrics["harrell_c"]
            cells = (
                estimate(harrell, with_sd=True),
                estimate(metrics.get("uno_c"), with_sd=True),
                _published(model, endpoint),
                estimate(metrics.get("ibs")),
                point(metrics.get("ibs_null")),
                count(harrell.n),
                count(harrell.events),
                words(model.inputs),
            )
            rows.append(Row(model.label, cells, _capital(ENDPOINTS[endpoint]), _kind(model.key)))
    taus = [
        f"{tau / DAYS_PER_YEAR:.1f} years for {ENDPOINTS[endpoint]}"
        for endpoint, tau in comparison.record.taus.items()
        if tau is not None and endpoint in ENDPOINTS
    ]
    uno = f" Uno's C-index counts events up to {' and '.join(taus)}." if taus else ""
    spans = [span for span in (_integrated_span(comparison, endpoint) for endpoint in comparison.endpoints) if span]
    integrated = f" IBS runs up to {' and '.join(spans)}." if spans else ""
    return Table(
        "table_3",
        "The models: discrimination and integrated Brier score on the test patients.",
        DISCRIMINATION_COLUMNS,
        tuple(rows),
        f"C-index: 0.5 is chance, 1 a perfect ranking; a higher risk is worse. {PAIRS}"
        + uno
        + " SD and interval: bootstrap "
        "over patients. Published: Bozzo et al. 2024, on other patients; it says nothing about a difference (of the "
        "Cox model of Sarculator's variables the article's text has 0.654 and 0.618, its repository the figures here). "
        "IBS: "
        "integrated Brier score, lower is better; null: Kaplan-Meier of the development patients, which knows no "
        "variable."
        + integrated
        + " Events: of the C-index. Marked row: the bar that a more elaborate model has to pass.",
    )


def differences(comparison: Comparison) -> Table:
    """Table 4: the model minus every other on the same patients."""
    rows = []
    for endpoint in comparison.endpoints:
        for pair in comparison.record.differences.get(endpoint, ()):
            group = f"{_capital(ENDPOINTS[endpoint])}: {comparison.label(pair.model)} minus"
            cells = (
                estimate(pair.difference, signed=True),
                p_value(pair.p),
                _resampled(pair.resampled_t),
                p_value(None if pair.resampled_t is None else pair.resampled_t.p),
                count(pair.difference.n),
                count(pair.difference.events),
            )
            rows.append(Row(comparison.label(pair.against), cells, group, _kind(pair.against)))
    return Table(
        "table_4",
        "Paired differences of Harrell's C-index on the same test patients.",
        (
            "Model",
            "Difference [95\u00a0%\u00a0CI]",
            "p",
            "Mean over folds [95\u00a0%\u00a0CI]",
            "p over folds",
            "Patients",
            "Events",
        ),
        tuple(rows),
        "Above 0: the model of the heading ranks better. Difference and p: paired bootstrap over patients, models "
        "held fixed. Over folds: corrected resampled t-test, where there are several folds. p values are not corrected "
        "for the number of comparisons.",
    )


def prediction_error(comparison: Comparison) -> Table:
    """Table 5: AUC and Brier score with its null by horizon."""
    rows = []
    for group, model, metrics, years in _by_horizon(comparison):
        brier = metrics.get(f"brier_{years}")
        cells = (
            estimate(metrics.get(f"auc_{years}")),
            estimate(brier),
            point(metrics.get(f"brier_null_{years}")),
            estimate(metrics.get(f"ipa_{years}")),
            *_size(brier),
        )
        rows.append(Row(model.label, cells, group, _kind(model.key)))
    return Table(
        "table_5",
        "Discrimination and accuracy of the absolute risk by horizon.",
        (
            "Model",
            "AUC [95\u00a0%\u00a0CI]",
            "Brier [95\u00a0%\u00a0CI]",
            "Brier, null",
            "IPA [95\u00a0%\u00a0CI]",
            "Patients",
            "Events",
        ),
        tuple(rows),
        "AUC: time-dependent, cumulative cases against dynamic controls. Brier: lower is better. IPA: index of "
        "prediction accuracy, 1 \u2212 Brier / null; below 0 the model is worse than the Kaplan-Meier curve. Events: "
        f"by the horizon. {net_risk(comparison.endpoints)}".rstrip(),
    )


def calibration(comparison: Comparison) -> Table:
    """Table 6: calibration in the large, slope and errors by horizon."""
    names = {"oe": "O/E", "slope": "Slope", "ici": "ICI", "e50": "E50", "e90": "E90"}
    rows = [
        Row(
            model.label,
            (
                *(estimate(metrics.get(f"{name}_{years}")) for name in names),
                *_size(metrics.get(f"oe_{years}")),
            ),
            group,
            _kind(model.key),
        )
        for group, model, metrics, years in _by_horizon(comparison)
    ]
    return Table(
        "table_6",
        "Calibration of the absolute risk by horizon, each with its 95 % interval.",
        ("Model", *names.values(), "Patients", "Events"),
        tuple(rows),
        "O/E: observed over expected events, 1 is ideal. Slope: 1 is ideal, below 1 predictions are too extreme. ICI, "
        "E50, E90: mean, median and 90th percentile of the absolute distance between predicted and smoothed observed "
        "risk; 0 is ideal. Events: by the horizon. "
        f"{net_risk(comparison.endpoints)}".rstrip(),
    )


def subgroups(comparison: Comparison) -> Table:
    """Table 7: discrimination of the model by subgroup."""
    rows = []
    for endpoint in comparison.endpoints:
        for subgroup in comparison.record.subgroups.get(endpoint, ()):
            variable = VARIABLES.get(subgroup.variable)
            name = _capital(subgroup.variable.replace("_", " ")) if variable is None else variable.label
            level = subgroup.level if variable is None else level_words(subgroup.level)
            cells = (count(subgroup.n), count(subgroup.events), estimate(subgroup.harrell_c))
            rows.append(Row(f"{name}: {level}", cells, _capital(ENDPOINTS[endpoint])))
    return Table(
        "table_7",
        f"Discrimination of {comparison.first.label} by subgroup.",
        ("Subgroup", "Patients", "Events", "Harrell C [95\u00a0%\u00a0CI]"),
        tuple(rows),
        "Subgroups are small and many: a look for gross failure, not a test. Within a subgroup the spread of risk is "
        "smaller, so a lower C-index than that of all patients is to be expected. " + SMALL_CELLS,
    )


def sanity_checks(comparison: Comparison) -> Table:
    """Table 9: whether the heat maps depend on what the network learned."""
    rows = [
        Row(_capital(one.layers), (_similarity(one), count(one.n)), _capital(ENDPOINTS.get(endpoint, endpoint)))
        for endpoint, similarities in comparison.explanations.sanity.items()
        for one in similarities
    ]
    return Table(
        "table_9",
        "Sanity check of the heat maps: rank correlation of a map with that of a network whose layers have random "
        "weights, and with the map of another patient.",
        ("Compared with", "Mean [95\u00a0%\u00a0CI]", "Patients"),
        tuple(rows),
        "All maps are centred on the tumour, so maps of different patients resemble each other. Only where random "
        "weights change a map more than another patient does, does the map depend on what was learned.",
    )


def _similarity(one: Similarity) -> Cell:
    if one.mean is None or one.low is None or one.high is None:
        return Cell("no map varies", {"value": None}, "reason")
    shown = f"{one.mean:.3f} [{one.low:.3f},{TIED}{one.high:.3f}]"
    return Cell(minus(shown), {"value": one.mean, "low": one.low, "high": one.high})


def _by_horizon(comparison: Comparison) -> list[tuple[str, Model, dict[str, Estimate], str]]:
    """Group name, model, its metrics and the horizon as it stands in their keys."""
    return [
        (
            f"{_capital(ENDPOINTS[endpoint])}, {years_in_words(years)}",
            model,
            comparison.record.results[model.key][endpoint],
            f"{years:g}",
        )
        for endpoint in comparison.endpoints
        for years in comparison.horizons(endpoint)
        for model in comparison.record.models
    ]


def _integrated_span(comparison: Comparison, endpoint: str) -> str | None:
    """Up to where the integrated Brier score runs, with the events that it counts: fewer than the C-index does."""
    for model in comparison.record.models:
        figure = comparison.record.results[model.key][endpoint].get("ibs")
        if figure is not None and figure.value is not None:
            years = max(comparison.horizons(endpoint), default=max(comparison.record.horizons_years))
            return f"{years_in_words(years)} for {ENDPOINTS[endpoint]} ({figure.events:,} events by then)"
    return None


def _size(figure: Estimate | None) -> tuple[Cell, Cell]:
    """Patients and events behind a figure."""
    return (count(None), count(None)) if figure is None else (count(figure.n), count(figure.events))


def _published(model: Model, endpoint: str) -> Cell:
    if model.paper is None or endpoint not in model.paper:
        return Cell(NONE, {"value": None})
    index, sd = model.paper[endpoint]
    return Cell(f"{index:.3f}{TIED}({sd:.3f})", {"value": index, "sd": sd})


def _resampled(test: ResampledT | None) -> Cell:
    if test is None:
        return Cell(NONE, {"value": None})
    text = f"{test.mean:+.3f} [{test.low:+.3f},{TIED}{test.high:+.3f}]"
    return Cell(minus(text), {"value": test.mean, "low": test.low, "high": test.high})


def _kind(key: str) -> str:
    return "reference" if key == REFERENCE else ""


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
