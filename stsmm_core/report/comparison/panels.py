"""The figures of a comparison, a panel each, so that a phone shows them one below the other and legible."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stsmm_core.cohort.dictionary import ENDPOINTS, years_in_words
from stsmm_core.report.comparison.reading import Comparison
from stsmm_core.report.comparison.record import Curves
from stsmm_core.report.drawing import GREY, INK, PALETTE, figure_style
from stsmm_core.run_folder import BLENDED, REFERENCE

Size = tuple[float, float]
SIZE: Size = (4.2, 3.5)
"""Inches of a panel; its lettering stays legible on a phone."""
WITH_KEY: Size = (4.2, 4.8)
"""Of a panel with its legend below."""

SHOWN = (
    BLENDED,
    REFERENCE,
    "densenet",
    "radiomics_clinical_elastic_net",
    "clinical_rsf",
    "sarculator_cox",
)
"""Models drawn in colour, in the order of the palette; the others are thin and grey."""

_LABEL_WIDTH = 38
"""Letters of a label before it goes on in a second line."""

_LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (4, 1, 1, 1)), (0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)))


@dataclass(frozen=True)
class Panel:
    """`key` names the PNG file, `words` what it shows to a reader who cannot see it."""

    key: str
    words: str
    figure: Figure


def concordance_panel(comparison: Comparison, endpoint: str) -> Panel:
    """Harrell's C-index of each model with its 95 % interval, and the published one as an open diamond."""
    models = comparison.record.models
    with figure_style():
        figure = Figure(figsize=(4.2, 0.9 + 0.27 * len(models)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        for row, model in enumerate(models):
            harrell = comparison.record.results[model.key][endpoint]["harrell_c"]
            colour = PALETTE[0] if model.key == comparison.first.key else INK
            if harrell.value is None:
                axes.text(0.5, row, " no estimate", color=GREY, style="italic", va="center")
            else:
                if harrell.low is not None and harrell.high is not None:
                    axes.plot([harrell.low, harrell.high], [row, row], color=colour, linewidth=1.5)
                axes.plot(harrell.value, row, marker="o", markersize=5, color=colour)
            if model.paper is not None and endpoint in model.paper:
                axes.plot(
                    model.paper[endpoint][0], row, marker="D", markersize=4.5, color=PALETTE[5], markerfacecolor="none"
                )
        reference = [row for row, model in enumerate(models) if model.key == REFERENCE]
        for row in reference:
            axes.axhspan(row - 0.45, row + 0.45, color=GREY, alpha=0.18, linewidth=0, zorder=0)
        axes.set_yticks(range(len(models)), [model.label for model in models])
        axes.set_ylim(len(models) - 0.5, -0.5)
        axes.set_xlabel("C-index")
        axes.set_title(_capital(ENDPOINTS[endpoint]))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return Panel(
        f"concordance_{endpoint}",
        f"C-index of each model with its 95 % interval, {ENDPOINTS[endpoint]}; the numbers are those of Table 3",
        figure,
    )


def roc_panels(comparison: Comparison) -> tuple[Panel, ...]:
    """Smoothed ROC curves of all models, a panel an endpoint and horizon."""
    return _panels(comparison, "roc", "ROC curves", _draw_roc, size=WITH_KEY)


def calibration_panels(comparison: Comparison) -> tuple[Panel, ...]:
    """Observed over predicted risk of the model and of the reference, a panel an endpoint and horizon."""
    return _panels(comparison, "calibration", "Calibration", _draw_calibration)


def decision_panels(comparison: Comparison) -> tuple[Panel, ...]:
    """Net benefit of the models over the threshold, a panel an endpoint and horizon."""
    return _panels(comparison, "decision", "Decision curves", _draw_decision, size=WITH_KEY)


def cumulative_incidence_panels(comparison: Comparison) -> tuple[Panel, ...]:
    """Distant metastasis with death competing, and what 1 - Kaplan-Meier would claim."""
    curves = comparison.record.cumulative_incidence
    if curves is None:
        return ()
    with figure_style():
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        lines = {
            "distant metastasis (Aalen-Johansen)": (curves.dm, PALETTE[0], "-"),
            "1 \u2212 Kaplan-Meier": (curves.one_minus_km, PALETTE[5], _LINES[1]),
            "death before metastasis": (curves.death_first, PALETTE[2], _LINES[2]),
        }
        for label, (risk, colour, line) in lines.items():
            axes.step(curves.years, risk, where="post", color=colour, linestyle=line, linewidth=1.5, label=label)
        axes.set_ylim(0, 1)
        axes.set_xlim(left=0)
        axes.set_xlabel("years")
        axes.set_ylabel("cumulative incidence")
        axes.legend(loc="upper left")
    words = "Cumulative incidence of distant metastasis with death competing, beside one minus Kaplan-Meier"
    return (Panel("cumulative_incidence", words, figure),)


def attribution_panels(comparison: Comparison) -> tuple[Panel, ...]:
    """Mean absolute attribution of each clinical column, the largest on top, a panel an endpoint."""
    panels = []
    for endpoint, shares in comparison.explanations.clinical.items():
        names = sorted(shares, key=lambda name: shares[name], reverse=True)
        labels = ["\n".join(wrap(name, _LABEL_WIDTH)) for name in names]
        lines = sum(1 + label.count("\n") for label in labels)
        with figure_style():
            figure = Figure(figsize=(4.2, 0.9 + 0.14 * len(names) + 0.14 * lines), layout="constrained")
            axes = figure.subplots()
            axes.barh(range(len(names)), [shares[name] for name in names], color=PALETTE[0], height=0.7)
            axes.set_yticks(range(len(names)), labels)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_xlabel("mean |attribution|")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
            axes.set_title(_capital(ENDPOINTS.get(endpoint, endpoint)))
            axes.tick_params(axis="y", length=0)
        words = f"Mean absolute attribution of the clinical variables, {ENDPOINTS.get(endpoint, endpoint)}"
        panels.append(Panel(f"attribution_{endpoint}", words, figure))
    return tuple(panels)


Drawn = Sequence[tuple[str, str, Curves]]
"""Key, label and curves of each model, the first model first."""


def _panels(
    comparison: Comparison, name: str, words: str, draw: Callable[[Axes, Drawn, str], None], *, size: Size = SIZE
) -> tuple[Panel, ...]:
    """A panel for each endpoint and horizon at which some model has the curve."""
    panels = []
    for endpoint in comparison.endpoints:
        for years in comparison.horizons(endpoint):
            curves = {
                model.key: comparison.record.curves.get(model.key, {}).get(endpoint, {}).get(f"{years:g}")
                for model in comparison.record.models
            }
            drawn = [
                (key, comparison.label(key), curve)
                for key, curve in curves.items()
                if curve is not None and getattr(curve, name) is not None
            ]
            if not drawn:
                continue
            with figure_style():
                figure = Figure(figsize=size, layout="constrained")
                axes = figure.subplots()
                draw(axes, drawn, comparison.first.key)
                axes.set_title(f"{_capital(ENDPOINTS[endpoint])}, {years_in_words(years)}")
            said = f"{words}, {ENDPOINTS[endpoint]} at {years_in_words(years)}"
            panels.append(Panel(f"{name}_{endpoint}_{years:g}", said, figure))
    return tuple(panels)


def _draw_roc(axes: Axes, drawn: Drawn, first: str) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    for key, label, curve in reversed(drawn):
        assert curve.roc is not None
        axes.plot(curve.roc.fpr, curve.roc.tpr, **_look(key, first), label=f"{label}, {curve.roc.auc:.2f}")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="1 \u2212 specificity", ylabel="sensitivity")
    _key(axes, drawn)


def _draw_calibration(axes: Axes, drawn: Drawn, first: str) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    for key, label, curve in drawn:
        if key not in (first, REFERENCE):
            continue
        assert curve.calibration is not None
        if curve.calibration.predicted:  # too few events give no smooth curve
            axes.plot(curve.calibration.predicted, curve.calibration.observed, **_look(key, first), label=label)
        if key == first:
            groups = curve.calibration.groups
            axes.vlines(groups.predicted, groups.low, groups.high, color=PALETTE[0], linewidth=1)
            dots = f"{label}, by group"
            axes.plot(groups.predicted, groups.observed, "o", color=PALETTE[0], markersize=4, label=dots)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted risk", ylabel="observed risk")
    axes.legend(loc="upper left", fontsize=7)


def _draw_decision(axes: Axes, drawn: Drawn, first: str) -> None:
    curves = [curve.decision for _, _, curve in drawn if curve.decision is not None]
    decision = max(curves, key=lambda curve: len(curve.threshold))  # a model's curve may end early, these two do not
    axes.plot(decision.threshold, decision.all, color=INK, linewidth=0.8, linestyle=(0, (1, 1)), label="treat all")
    axes.plot(decision.threshold, decision.none, color=INK, linewidth=0.8, label="treat none")
    for key, label, curve in reversed(drawn):
        assert curve.decision is not None
        axes.plot(curve.decision.threshold, curve.decision.model, **_look(key, first), label=label)
    highest = max((benefit for curve in curves for benefit in curve.model), default=0.0)
    axes.set(xlim=(0, 1), ylim=(-0.05, max(0.1, 1.15 * highest)), xlabel="threshold of risk", ylabel="net benefit")
    _key(axes, drawn, besides=("treat all", "treat none"))


def _look(key: str, first: str) -> dict[str, Any]:
    """Colour and line of a model: the same in every panel."""
    if key == first:
        return {"color": PALETTE[0], "linestyle": "-", "linewidth": 2.2, "zorder": 4}
    if key in SHOWN:
        place = SHOWN.index(key)
        return {"color": PALETTE[place], "linestyle": _LINES[place], "linewidth": 1.4, "zorder": 3}
    return {"color": "#bdbdbd", "linestyle": "-", "linewidth": 0.8, "zorder": 2}


def _key(axes: Axes, drawn: Drawn, *, besides: Sequence[str] = ()) -> None:
    """A legend below the curves: the models in colour, in their order, and one line for the grey ones."""
    handles = {str(label): handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    coloured = [label for key, label, _ in drawn if key in SHOWN]
    grey = [label for key, label, _ in drawn if key not in SHOWN]
    found = {
        name: handle
        for label in (*coloured, *grey[:1])
        for name, handle in handles.items()
        if name == label or name.startswith(f"{label}, ")
    }
    names = ["other models" if any(name.startswith(label) for label in grey[:1]) else name for name in found]
    extra = {label: handles[label] for label in besides}
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(
        [*found.values(), *extra.values()],
        [*names, *extra],
        loc="outside lower left",
        fontsize=7.2,
        handlelength=2.4,
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
