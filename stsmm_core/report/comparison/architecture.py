"""Figure 4: the network as it is built, drawn from its modules and counted parameters."""

from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
    height = lines + 5.6
    columns = len(architecture.encoders)
    with figure_style():
        figure = Figure(figsize=(4.6, 0.27 * height), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, columns), ylim=(height, -0.6))
        axes.axis("off")
        low = lines + 1.1
        for column, encoder in enumerate(architecture.encoders):
            _draw_encoder(axes, encoder, column, low, COLOURS[encoder.name])
            features = f"{architecture.features} features"
            _box(axes, column + 0.5, low, features, COLOURS[encoder.name], filled=True)
            _arrow(axes, (column + 0.5, low + 0.42), (columns / 2, low + 1.55))
        heads = dict(architecture.heads)
        fusion = f"fusion head, {heads['fusion']:,} parameters: log hazard of {' and '.join(architecture.endpoints)}"
        _box(axes, columns / 2, low + 2, fusion, COLOURS["fusion"], filled=True)
        for column, encoder in enumerate(architecture.encoders):
            words = f"{encoder.name} head, {heads[encoder.name]:,} parameters,\nin training only"
            axes.text(column + 0.5, low + 3.3, words, ha="center", va="center", fontsize=7, color=INK)
        axes.set_title(f"{architecture.parameters:,} parameters in all")
    return figure


def _draw_encoder(axes: Axes, encoder: Encoder, column: int, low: float, colour: str) -> None:
    axes.text(column + 0.5, -0.45, encoder.given, ha="center", va="center", fontsize=7, color=INK)
    step = (low - 1.1) / len(encoder.stages)
    for place, (name, parameters) in enumerate(encoder.stages):
        middle = 0.8 + place * step
        _box(axes, column + 0.5, middle, f"{name}: {parameters:,}", colour)
    _arrow(axes, (column + 0.5, 0.5 + (len(encoder.stages) - 1) * step + 0.72), (column + 0.5, low - 0.42))


def _box(axes: Axes, x: float, y: float, words: str, colour: str, *, filled: bool = False) -> None:
    style = {"boxstyle": "round,pad=0.25", "facecolor": f"{colour}38" if filled else "white", "edgecolor": colour}
    axes.text(x, y, words, ha="center", va="center", fontsize=6.8, color=INK, bbox=style, clip_on=False)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "->", "color": GREY, "linewidth": 0.9})


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
