"""Figure 4: the network as it is built, drawn from its modules and counted parameters."""

from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.config import Experiment
from stsmm_core.model.mmnn import build_network
from stsmm_core.report.drawing import GREY, INK, figure_style
from stsmm_core.report.figures import COLOURS


@dataclass(frozen=True)
class Encoder:
    """An encoder from its input to its features; `stages` are modules with their parameters, in order."""

    name: str
    given: str
    stages: tuple[tuple[str, int], ...]
    parameters: int


@dataclass(frozen=True)
class Architecture:
    """The network's parts; `heads` are names with parameters, the multimodal head first."""

    encoders: tuple[Encoder, ...]
    features: int
    heads: tuple[tuple[str, int], ...]
    endpoints: tuple[str, ...]
    parameters: int


def describe_network(experiment: Experiment, *, channels: tuple[str, ...]) -> Architecture:
    """Build the experiment's network and read its parts; the random state of the process stays as it was."""
    width = ClinicalEncoding(experiment.data.variables, {}).width
    with torch.random.fork_rng(devices=[]):
        network = build_network(experiment, channels=len(channels), clinical_inputs=width, fold=0)
    shape = " \u00d7 ".join(str(size) for size in experiment.imaging.shape)
    given = {
        "image": f"{', '.join(channels)}: {len(channels)} \u00d7 {shape} voxels",
        "clinical": f"{len(experiment.data.variables)} variables, {width} columns",
    }
    encoders = tuple(
        Encoder(name, given[name], _stages(encoder), _size(encoder)) for name, encoder in network.encoders.items()
    )
    heads = tuple((name, _size(head)) for name, head in network.heads.items())
    return Architecture(encoders, experiment.model.features, heads, experiment.data.endpoints, _size(network))


def architecture_figure(architecture: Architecture) -> Figure:
    """One column an encoder, from its input down to its features, then the heads."""
    lines = max(len(encoder.stages) for encoder in architecture.encoders)
    columns = len(architecture.encoders)
    height = lines + 5.8
    with figure_style():
        figure = Figure(figsize=(2.3 * columns if columns > 1 else 3.2, 0.3 * height), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, columns), ylim=(height, -0.5))
        axes.axis("off")
        heads = dict(architecture.heads)
        features = lines + 1.3
        for column, encoder in enumerate(architecture.encoders):
            colour, middle = COLOURS[encoder.name], column + 0.5
            _draw_stages(axes, encoder, middle, features, colour)
            _box(axes, middle, features, 0.92, f"{architecture.features} features", colour, filled=True)
            # The unimodal head stands at the outer side, so that the way to the fusion head stays free.
            outwards = -1 if column < columns / 2 else 1
            alone, shared = middle + 0.16 * outwards, middle - 0.34 * outwards
            _arrow(axes, (alone, features + 0.38), (alone, features + 1.15), dashed=True)
            words = f"{encoder.name} head: {heads[encoder.name]:,}\n(training only)"
            _box(axes, alone, features + 1.65, 0.6, words, colour, height=1)
            _arrow(axes, (shared, features + 0.38), (shared, features + 2.95))
        fusion = f"fusion head: {heads['fusion']:,}\nlog hazard of {' and '.join(architecture.endpoints)}"
        _box(axes, columns / 2, features + 3.5, columns - 0.08, fusion, COLOURS["fusion"], height=1.1, filled=True)
    return figure


def _draw_stages(axes: Axes, encoder: Encoder, middle: float, features: float, colour: str) -> None:
    axes.text(middle, 0, encoder.given, ha="center", va="center", fontsize=7.5, color=INK)
    top = 1
    for place, (name, parameters) in enumerate(encoder.stages):
        _box(axes, middle, top + place, 0.92, f"{name}: {parameters:,}", colour)
    _arrow(axes, (middle, top + len(encoder.stages) - 0.62), (middle, features - 0.38))


def _box(
    axes: Axes, x: float, y: float, width: float, words: str, colour: str, *, height: float = 0.72, filled: bool = False
) -> None:
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(Rectangle(corner, width, height, facecolor="white", edgecolor=colour, linewidth=1.1))
    if filled:
        axes.add_patch(Rectangle(corner, width, height, facecolor=colour, alpha=0.2, linewidth=0))
    axes.text(x, y, words, ha="center", va="center", fontsize=7.5, color=INK)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], *, dashed: bool = False) -> None:
    style = {"arrowstyle": "->", "color": GREY, "linewidth": 0.9, "linestyle": "--" if dashed else "-"}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def _stages(encoder: nn.Module) -> tuple[tuple[str, int], ...]:
    """Modules with parameters by their names in the code; plain containers are opened, blocks are not."""
    stages: list[tuple[str, int]] = []
    for name, child in encoder.named_children():
        if type(child) is nn.Sequential and _children_with_parameters(child) > 1:
            stages += _stages(child)
        elif isinstance(child, nn.Linear):
            stages.append((f"linear {child.in_features} \u2192 {child.out_features}", _size(child)))
        elif _size(child):
            title = name if not name.isdigit() else type(child).__name__
            stages.append((title, _size(child)))
    return _merged(stages)


def _merged(stages: list[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """A normalisation joins the layer before it."""
    merged: list[tuple[str, int]] = []
    for name, size in stages:
        if merged and name.lower().startswith(("norm", "batchnorm", "groupnorm")):
            merged[-1] = (f"{merged[-1][0]}, norm", merged[-1][1] + size)
        else:
            merged.append((name, size))
    return tuple(merged)


def _children_with_parameters(module: nn.Module) -> int:
    return sum(_size(child) > 0 for child in module.children())


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
