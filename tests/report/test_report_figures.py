"""The figures hold the numbers of the run: read back from the drawn artists."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stsmm_core.report.figures import COLOURS, forest_figure, loss_figure, weights_figure
from stsmm_core.report.results import read_results


def lines(axes: Axes, marker: str) -> list[np.ndarray]:
    """Points of the lines drawn with a marker."""
    return [np.asarray(line.get_xydata()) for line in axes.get_lines() if line.get_marker() == marker]


def draw_weights(run: Path) -> Figure:
    results = read_results(run)
    return weights_figure(results.history, results.heads, results.metrics.first_blending_rounds, unit="fold")


def history_of(run: Path, head: str, fold: int = 0) -> pd.DataFrame:
    table = pd.read_csv(run / "history.csv")
    return table[(table["head"] == head) & (table["fold"] == fold)].set_index("round")


def test_forest_draws_every_interval_and_the_oracle(federated_run: Path) -> None:
    left, right = forest_figure(read_results(federated_run)).axes

    bars = [np.asarray(line.get_xydata())[:, 0] for line in left.get_lines() if line.get_color() in COLOURS.values()]
    assert [list(bar) for bar in bars if len(bar) == 2] == [[0.6251, 0.7948], [0.4402, 0.6613], [0.5903, 0.7804]]
    assert lines(left, "D")[0].tolist() == [[0.7832, 3]]
    assert lines(right, "D")[0].tolist() == [[0.7714, 3]]
    assert [label.get_text() for label in left.get_yticklabels()] == ["fusion", "image", "clinical", "oracle"]
    low, high = left.get_xlim()
    assert low < 0.4402
    assert high == 1.0


def test_forest_without_pairs_draws_no_number(clinical_only_run: Path) -> None:
    left, right = forest_figure(read_results(clinical_only_run)).axes

    assert [text.get_text().strip() for text in right.texts] == ["not estimable", "not estimable"]
    assert [line.get_linestyle() for line in right.get_lines()] == ["--"]
    assert not left.texts


def test_learning_curves_follow_the_history(federated_run: Path) -> None:
    axes = loss_figure(read_results(federated_run)).axes

    expected = history_of(federated_run, "image")
    upper, lower = axes[1], axes[4]
    drawn = next(line for line in upper.get_lines() if len(line.get_xdata()) > 2)
    np.testing.assert_allclose(drawn.get_ydata(), expected["validation_loss"])
    assert lines(upper, "o")[0].tolist() == [[7, expected.loc[7, "validation_loss"]]]
    np.testing.assert_allclose(lines(lower, "o")[0][:, 0], np.arange(0, 21, 2))
    np.testing.assert_allclose(lines(lower, "o")[0][:, 1], expected["train_loss"].dropna())


def test_folds_are_one_line_each(cv_run: Path) -> None:
    axes = loss_figure(read_results(cv_run)).axes

    curves = [line for line in axes[0].get_lines() if len(line.get_xdata()) > 2]
    assert len(curves) == 5
    assert [points[0][0] for points in lines(axes[0], "o")] == [7, 9, 3, 12, 8]


def heights(axes: Axes, middle_of_round: float) -> list[float]:
    """Top edges of the stacked areas at a place on the axis."""
    tops = []
    for area in axes.collections:
        vertices = area.get_paths()[0].vertices
        assert isinstance(vertices, np.ndarray)
        left = vertices[vertices[:, 0] <= middle_of_round]
        at = left[left[:, 0] == left[:, 0].max()]
        right = vertices[vertices[:, 0] > middle_of_round]
        beside = right[right[:, 0] == right[:, 0].min()]
        tops.append(max(set(at[:, 1]) & set(beside[:, 1])))
    return tops


def test_weights_are_stacked_over_the_round_they_rule(federated_run: Path) -> None:
    figure = draw_weights(federated_run)

    weights = [history_of(federated_run, head)["weight"] for head in ("fusion", "image", "clinical")]
    for round_number in (1, 3, 13, 20):
        in_force = [weight[round_number - 1] for weight in weights]
        drawn = heights(figure.axes[0], round_number - 0.5)
        np.testing.assert_allclose(drawn, np.cumsum(in_force), atol=1e-7)


def test_checkpoints_and_first_update_are_marked(cv_run: Path) -> None:
    figure = draw_weights(cv_run)

    assert len(figure.axes) == 5
    for axes, first in zip(figure.axes, [2, 4, None, 2, 6], strict=True):
        np.testing.assert_allclose(lines(axes, "v")[0][:, 0], np.arange(0, 21, 2))
        verticals = [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() != "v"]
        assert verticals == ([] if first is None else [first])


@pytest.mark.parametrize(
    "draw",
    [lambda run: forest_figure(read_results(run)), lambda run: loss_figure(read_results(run)), draw_weights],
    ids=["forest", "losses", "weights"],
)
def test_nothing_is_drawn_outside_the_figure(draw: Callable[[Path], Figure], cv_run: Path) -> None:
    figure = draw(cv_run)
    figure.draw_without_rendering()

    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 > -0.01
    assert box.y0 > -0.01
    assert box.x1 < width + 0.01
    assert box.y1 < height + 0.01


def test_a_run_of_round_zero_alone_can_be_drawn(metrics: dict[str, Any], write: Callable[..., Path]) -> None:
    metrics |= {"selected_rounds": [0], "first_blending_rounds": [None]}
    run = write(metrics)
    path = run / "history.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:4]) + "\n")

    figure = draw_weights(run)

    assert figure.axes[0].get_xlim() == (0, 1)
