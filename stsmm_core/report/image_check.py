"""`stsmm cohort check --images`: a table of what is odd about the images, and a page a patient to look at."""

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from stsmm_core.cohort.cohort import IMAGES_FOLDER, MANIFEST_FILE, Cohort, Finding
from stsmm_core.cohort.image_flags import image_flags
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.config import Imaging, read_experiment
from stsmm_core.errors import CohortError
from stsmm_core.files import write_text_atomically
from stsmm_core.imaging.channels import channel_notes
from stsmm_core.imaging.preprocess import PatientImages, read_images, run_steps
from stsmm_core.imaging.quality import PatientQuality, measure, tumour_on
from stsmm_core.imaging.volume import Volume

PLANES = ("axial", "coronal", "sagittal")
PAGE = "image_check.html"
CELL_INCHES = 1.9
DOTS_PER_INCH = 80


def check_images_command(root: Path, config: Path | None, pages: Path | None) -> list[Finding]:
    """`check_images` of a cohort folder without faults, with a progress bar."""
    imaging = Imaging() if config is None else read_experiment(config).imaging
    cohort = load_cohort(root)
    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("Checking images", total=len(cohort.patients))
        return check_images(cohort, imaging, pages=pages, advance=lambda: bars.advance(task))


def check_images(cohort: Cohort, config: Imaging, *, pages: Path | None, advance: Callable[[], None]) -> list[Finding]:
    """Measure every patient's images, before and after preprocessing, and say what is odd.

    Args:
        pages: folder for one HTML page a patient and a table that links to them, image_check.html; none without it.
        advance: called once a patient, for a progress bar.

    Returns:
        Notes on what is odd, and a fault for a patient whose images cannot be preprocessed.

    Raises:
        ConfigError: when a channel is to be registered that the cohort does not have.
    """
    findings = [Finding("note", MANIFEST_FILE, note) for note in channel_notes(cohort.manifest.channels, config)]
    qualities: dict[str, PatientQuality] = {}
    for patient in cohort.patients:
        if cohort.has_image(patient):
            channels = {name: cohort.channel_path(patient, name) for name in cohort.manifest.channels}
            try:
                read = read_images(channels, cohort.mask_path(patient))
                prepared = run_steps(read, config)
            except CohortError as error:
                findings.append(Finding("fault", IMAGES_FOLDER, str(error), patient=patient))
            else:
                qualities[patient] = measure(read, prepared)
                if pages is not None:
                    write_text_atomically(pages / f"{patient}.html", _patient_page(patient, read, prepared))
        advance()
    said = {
        patient: [flag.message for flag in found if flag.kind != "border"]  # the check of the cohort names it
        for patient, found in image_flags(cohort, qualities).items()
    }
    for patient, messages in said.items():
        findings += [Finding("note", IMAGES_FOLDER, message, patient=patient) for message in messages]
    if pages is not None:
        write_text_atomically(pages / PAGE, _overview(cohort, qualities, said))
    return findings


def mosaic(read: PatientImages, prepared: PatientImages) -> Figure:
    """Three planes through the tumour's centre: each channel as read and as the network sees it, with the outline."""
    names = list(read.channels)
    figure = Figure(figsize=(6 * CELL_INCHES, len(names) * CELL_INCHES + 0.4), layout="constrained")
    grid = figure.subplots(len(names), 6, squeeze=False)
    for row, name in zip(grid, names, strict=True):
        tumour = tumour_on(read.channels[name], read.tumour)
        _show_planes(row[:3], read.channels[name], tumour)
        _show_planes(row[3:], prepared.channels[name], prepared.tumour.array > 0)
        row[0].set_ylabel(name)
    for axes, plane in zip(grid[0], [*PLANES, *PLANES], strict=True):
        axes.set_title(plane, fontsize=8)
    figure.suptitle("as read" + " " * 90 + "as the network sees it", fontsize=9)
    return figure


def _show_planes(row: NDArray[np.object_], volume: Volume, tumour: NDArray[np.bool_]) -> None:
    """The planes of the grid through the tumour's centre, every voxel in its true proportion, feet down."""
    x, y, z = volume.geometry.spacing_mm
    centre = [round(float(along.mean())) for along in np.nonzero(tumour)] if tumour.any() else None
    shown = volume.array[np.isfinite(volume.array)]
    low, high = np.percentile(shown, (1, 99)) if shown.size else (0.0, 1.0)
    for axis, (axes, heights, widths) in enumerate(zip(row, (y, z, z), (x, x, y), strict=True)):
        index = centre[axis] if centre else volume.array.shape[axis] // 2
        plane, outline = np.take(volume.array, [index], axis), np.take(tumour, [index], axis)
        _show(axes, plane.squeeze(axis), outline.squeeze(axis), heights / widths, (low, high))
        if axis > 0:
            axes.invert_yaxis()


def _show(
    axes: Axes, plane: NDArray[np.float32], outline: NDArray[np.bool_], aspect: float, window: tuple[float, float]
) -> None:
    axes.imshow(plane, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect, interpolation="nearest")
    if outline.any() and not outline.all():
        axes.contour(outline, levels=[0.5], colors="#e8a200", linewidths=0.8)
    axes.set_xticks([])
    axes.set_yticks([])


def _patient_page(patient: str, read: PatientImages, prepared: PatientImages) -> str:
    picture = io.BytesIO()
    mosaic(read, prepared).savefig(picture, format="png", dpi=DOTS_PER_INCH)
    encoded = base64.b64encode(picture.getvalue()).decode()
    return _template("image_check_patient.html").render(patient=patient, picture=encoded, overview=PAGE)


def _overview(cohort: Cohort, qualities: Mapping[str, PatientQuality], said: Mapping[str, list[str]]) -> str:
    rows = [(patient, quality, said[patient]) for patient, quality in qualities.items()]
    return _template("image_check.html").render(name=cohort.manifest.name, rows=rows)


def _template(name: str) -> Template:
    loader = PackageLoader("stsmm_core.report", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template(name)
