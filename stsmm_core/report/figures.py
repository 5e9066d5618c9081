"""The figures of the report, drawn on matplotlib's object interface: no pyplot, no state left behind."""

import math
from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from stsmm_core.cohort.dictionary import DAYS_PER_YEAR, ENDPOINTS
from stsmm_core.config import Modality
from stsmm_core.report.drawing import GREY, INK, MARKERS, PALETTE, WIDTH, figure_style
from stsmm_core.report.history import FUSION, history_of
from stsmm_core.report.results import Curve, PooledCurve, Results, Survival

_ALL_HEADS = (FUSION, *get_args(Modality), "cox")
COLOURS = dict(zip(_ALL_HEADS, PALETTE, strict=False))
"""A head's colour, the same in every run whatever its modalities."""

SHAPES = dict(zip(_ALL_HEADS, MARKERS, strict=False))

_MOST_COLUMNS = 5


def forest_figure(results: Results) -> Figure:
    """C-index and 95 % interval of each head, one panel an endpoint, with the line of chance and the oracle."""
    endpoints, heads = results.endpoints, results.heads
    oracle = results.metrics.oracle or {}
    rows = [*heads, "oracle"] if oracle else list(heads)
    with figure_style():
        figure = Figure(figsize=(WIDTH, 0.9 + 0.34 * len(rows)), layout="constrained")
        panels = figure.subplots(1, len(endpoints), sharex=True, sharey=True, squeeze=False)[0]
        for axes, endpoint in zip(panels, endpoints, strict=True):
            axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
            for row, head in enumerate(heads):
                _draw_interval(axes, results, head, endpoint, row)
            known = oracle.get(endpoint)
            if known is not None:
                axes.plot(known, len(heads), marker="D", markersize=6, color=INK, markerfacecolor="white")
            axes.set_title(_capital(ENDPOINTS[endpoint]))
            axes.set_xlabel("C-index")
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        panels[0].set_yticks(range(len(rows)), rows)
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
        panels[0].set_xlim(_forest_left(results), 1.0)
        return figure


def loss_figure(results: Results) -> Figure:
    """Validation loss by round (upper row) and training loss at checkpoints (lower row), one column a head.

    The rows have scales of their own: a partial likelihood grows with its risk set, so the level of a training loss
    says nothing about that of a validation loss.
    """
    heads = results.heads
    alone = results.folds == 1
    with figure_style():
        figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
        panels = figure.subplots(2, len(heads), sharex=True, sharey="row", squeeze=False)
        for head, (upper, lower) in zip(heads, panels.T, strict=True):
            upper.set_title(f"{head} head")
            for fold in range(results.folds):
                selected_round = results.metrics.selected_rounds[fold]
                _draw_losses(upper, lower, results.series(fold, head), selected_round, COLOURS[head])
            if alone:
                for axes in (upper, lower):
                    axes.axvline(results.metrics.selected_rounds[0], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
            lower.set_xlabel("round")
            lower.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
        panels[0, 0].set_ylabel("validation loss")
        panels[1, 0].set_ylabel("training loss")
        selected = Line2D([], [], marker="o", linestyle="", color=INK, label="selected round")
        checkpoint = Line2D([], [], marker="o", linestyle="", color=INK, markerfacecolor="white", label="checkpoint")
        figure.legend(handles=[selected, checkpoint], loc="outside upper right", ncols=2)
        return figure


def weights_figure(
    history: pd.DataFrame, heads: Sequence[str], first_updates: Sequence[int | None], *, unit: str
) -> Figure:
    """Share of each head in the loss by round, stacked to 1, one panel a fold; triangles mark the checkpoints.

    Args:
        history: as in `Results`.
        first_updates: a fold each, the round of the first change of the weights, None where they never changed.
        unit: what a panel is of, fold or network.
    """
    folds = len(first_updates)
    columns = min(folds, _MOST_COLUMNS)
    lines = math.ceil(folds / columns)
    with figure_style():
        figure = Figure(figsize=(WIDTH, 2.9 if lines == 1 else 0.6 + 1.9 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for fold, axes in enumerate(panels.flat):
            if fold >= folds:
                axes.set_visible(False)
                continue
            _draw_weights(axes, history, heads, fold, first_updates[fold])
            if folds > 1:
                axes.set_title(f"{unit} {fold}", pad=9)
        for axes in panels[:, 0]:
            axes.set_ylabel("blending weight")
        for axes in panels.flat[folds - columns : folds]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("round")
        shares = [Patch(facecolor=COLOURS[head], label=head) for head in heads]
        checkpoint = Line2D([], [], marker="v", linestyle="", color=GREY, markersize=4, label="checkpoint")
        first = Line2D([], [], color=INK, linewidth=1.2, label="first update")
        updated = any(entry is not None for entry in first_updates)
        handles = [*shares, checkpoint, first] if updated else [*shares, checkpoint]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), columnspacing=1.4)
        return figure


def survival_figure(curves: Mapping[str, Survival]) -> Figure:
    """Kaplan-Meier curves, one panel an endpoint: a thin line a site, the pooled one thick with its interval."""
    names = sorted({site for each in curves.values() for site in each.sites})
    with figure_style():
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for axes, (endpoint, each) in zip(panels, curves.items(), strict=True):
            for site, curve in each.sites.items():
                _draw_curve(axes, curve, site_colour(names.index(site)), 0.9)
            if each.pooled is not None:
                _draw_curve(axes, each.pooled, INK, 2.0)
                _draw_band(axes, each.pooled)
            axes.set_title(_capital(ENDPOINTS[endpoint]))
            axes.set_xlabel("years")
            axes.set_ylim(0, 1.02)
            axes.set_xlim(left=0)
        panels[0].set_ylabel("share without event")
        lines = [Line2D([], [], color=site_colour(place), label=site) for place, site in enumerate(names)]
        lines.append(Line2D([], [], color=INK, linewidth=2.0, label="all sites"))
        figure.legend(handles=lines, loc="outside lower center", ncols=min(len(lines), 5))
        return figure


def site_colour(place: int) -> str:
    """The colour of a site by its place among the names; beyond the palette they come again."""
    return PALETTE[place % len(PALETTE)]


def _draw_curve(axes: Axes, curve: Curve, colour: str, width: float) -> None:
    years = np.array([0.0, *curve.days]) / DAYS_PER_YEAR
    axes.step(years, [1.0, *curve.survival], where="post", color=colour, linewidth=width)


def _draw_band(axes: Axes, curve: PooledCurve) -> None:
    years = np.array(curve.days) / DAYS_PER_YEAR
    low, high = (np.array([np.nan if end is None else end for end in ends]) for ends in (curve.low, curve.high))
    axes.fill_between(years, low, high, step="post", color=INK, alpha=0.12, linewidth=0)


def _draw_interval(axes: Axes, results: Results, head: str, endpoint: str, row: int) -> None:
    concordance = results.metrics.heads[head][endpoint].harrell_c
    if concordance.value is None:
        axes.text(0.5, row, " not estimable", color=GREY, style="italic", va="center")
        return
    colour = COLOURS[head]
    if concordance.ci_low is not None and concordance.ci_high is not None:
        axes.plot([concordance.ci_low, concordance.ci_high], [row, row], color=colour, linewidth=1.6)
    axes.plot(concordance.value, row, marker=SHAPES[head], markersize=6, color=colour)


def _forest_left(results: Results) -> float:
    """Left end of the C-index axis: room for the lowest interval, and always for some of the worse-than-chance side."""
    every = [one.harrell_c for head in results.metrics.heads.values() for one in head.values()]
    lows = [end for one in every for end in (one.value, one.ci_low) if end is not None]
    return max(0.0, min([0.4, *lows]) - 0.05)


def _draw_losses(upper: Axes, lower: Axes, series: pd.DataFrame, selected: int, colour: str) -> None:
    upper.plot(series.index, series["validation_loss"], color=colour, linewidth=1.1, alpha=0.9)
    upper.plot(selected, series["validation_loss"][selected], marker="o", markersize=4.5, color=colour)
    checkpoints = series["train_loss"].dropna()
    lower.plot(
        checkpoints.index,
        checkpoints,
        color=colour,
        linewidth=0.6,
        alpha=0.9,
        marker="o",
        markersize=3.5,
        markerfacecolor="white",
    )


def _draw_weights(axes: Axes, history: pd.DataFrame, heads: Sequence[str], fold: int, first: int | None) -> None:
    """Stack the weights; the weight of a row of the history is drawn over the round that follows it."""
    fusion = history_of(history, fold, FUSION)
    rounds = fusion.index.to_numpy()
    floor = np.zeros(len(rounds))
    for head in heads:
        weight = history_of(history, fold, head)["weight"].to_numpy()
        # The last weight never came into force: the stack ends with the weight of the last round.
        in_force = np.append(weight[:-1], weight[-2:-1]) if len(weight) > 1 else weight
        axes.fill_between(
            rounds,
            floor,
            floor + in_force,
            step="post",
            color=COLOURS[head],
            alpha=0.85,
            edgecolor="white",
            linewidth=0.5,
        )
        floor = floor + in_force
    checkpoints = fusion.index[fusion["train_loss"].notna()]
    axes.plot(
        checkpoints, np.full(len(checkpoints), 1.03), marker="v", markersize=4, linestyle="", color=GREY, clip_on=False
    )
    if first is not None:
        axes.axvline(first, color=INK, linewidth=1.2)
    axes.set_ylim(0, 1)
    axes.set_xlim(0, max(int(rounds[-1]), 1))
    axes.xaxis.set_major_locator(
        MaxNLocator(integer=True, nbins=10 if history["fold"].nunique() == 1 else 4, steps=[1, 2, 5, 10])
    )


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
