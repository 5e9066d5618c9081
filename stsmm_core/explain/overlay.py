"""The overlay figure: slice with outline, heat map, and both."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stsmm_core.explain.patient_space import PatientMap

OUTLINE = "#56B4E9"
HEAT = "inferno"
DOTS_PER_INCH = 110


def overlay_figure(patient: PatientMap, *, title: str, risk: str) -> Figure:
    """The channel's slice through the tumour's centre, the map there, and the map over the slice.

    Args:
        title: which case and endpoint; never an identifier.
        risk: the predicted risk, in words.
    """
    plane = _central_slice(patient.tumour)
    image, outline = patient.image.array[plane], patient.tumour[plane]
    heat = np.nan_to_num(patient.heat.array[plane])
    x, y, _ = patient.image.geometry.spacing_mm
    figure = Figure(figsize=(7.2, 3.4), dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(1, 3)
    top = float(np.nanmax(patient.heat.array, initial=0.0)) or 1.0
    for axes, name in zip(panels, (patient.channel, "heat map", "merged"), strict=True):
        axes.set_title(name, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
    _show(panels[0], image, outline, y / x)
    shown = panels[1].imshow(heat, cmap=HEAT, vmin=0, vmax=top, aspect=y / x, interpolation="nearest")
    panels[1].contour(outline, levels=[0.5], colors=OUTLINE, linewidths=0.8)
    _show(panels[2], image, outline, y / x)
    panels[2].imshow(
        heat, cmap=HEAT, vmin=0, vmax=top, aspect=y / x, interpolation="nearest", alpha=0.6 * np.clip(heat / top, 0, 1)
    )
    figure.colorbar(shown, ax=panels, shrink=0.7).ax.set_title("heat", fontsize=11)
    figure.suptitle(f"{title}\n{risk}", fontsize=12)
    figure.supxlabel(resolution_line(patient), fontsize=11)
    return figure


def resolution_line(patient: PatientMap) -> str:
    """The map's own resolution, for whoever takes the smooth colours for detail."""
    depth, height, width = patient.native.array.shape
    empty = "" if patient.native.array.any() else "; empty"
    return f"map {depth}x{height}x{width} voxels, {patient.native.geometry.spacing_mm[0]:.0f} mm{empty}"


def _central_slice(tumour: NDArray[np.bool_]) -> int:
    """The slice next to the tumour's centre of mass that shows some of it."""
    depths = np.flatnonzero(tumour.any(axis=(1, 2)))
    if not len(depths):
        return tumour.shape[0] // 2
    centre = np.nonzero(tumour)[0].mean()
    return int(depths[np.abs(depths - centre).argmin()])


def _show(axes: Axes, image: NDArray[np.float32], outline: NDArray[np.bool_], aspect: float) -> None:
    low, high = np.percentile(image, (1, 99))
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    if outline.any() and not outline.all():
        axes.contour(outline, levels=[0.5], colors=OUTLINE, linewidths=0.8)
