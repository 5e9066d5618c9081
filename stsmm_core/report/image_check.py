"""`stsmm cohort check --images`: a table of what is odd about the images, and a page a patient to look at."""

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from stsmm_core.cohort.cohort import IMAGES_FOLDER, MANIFEST_FILE, Cohort, Finding
from stsmm_core.cohort.image_flags import image_flags
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.config import Imaging, read_experiment
from stsmm_core.errors import CohortError
from stsmm_core.files import write_text_atomically
from stsmm_core.imaging.channels import channel_notes
from stsmm_core.imaging.preprocess import PatientImages, read_images, run_steps
from stsmm_core.imaging.quality import Flag, PatientQuality, count_flags, measure, tumour_on
from stsmm_core.imaging.registration import Motion
from stsmm_core.imaging.volume import Volume
from stsmm_core.report.tables import FLAG_WORDS, share

PLANES = ("sagittal", "coronal", "axial")
"""By the axis of the patient (LPS) that they cut across."""
OPPOSITE = dict(zip("LRPAHF", "RLAPFH", strict=True))
PAGE = "image_check.html"
CELL_INCHES = 1.9
DOTS_PER_INCH = 80


@dataclass(frozen=True)
class ImageCheck:
    """What looking at a cohort's images brought.

    Attributes:
        findings: notes on what is odd, and a fault for a patient whose images cannot be preprocessed.
        flags: of each patient whose images could be measured.
        motions: of each of them, how far each registered channel was moved.
        patients: all of the cohort, with images or without.
    """

    findings: list[Finding]
    flags: Mapping[str, list[Flag]]
    motions: Mapping[str, Mapping[str, Motion]]
    patients: int

    @property
    def flagged(self) -> int:
        """Patients with something to look at."""
        return sum(bool(found) for found in self.flags.values())


def check_images_command(root: Path, config: Path | None, pages: Path | None) -> ImageCheck:
    """`check_images` of a cohort folder without faults, with a progress bar."""
    imaging = Imaging() if config is None else read_experiment(config).imaging
    cohort = load_cohort(root)
    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("Checking images", total=len(cohort.patients))
        return check_images(cohort, imaging, pages=pages, advance=lambda: bars.advance(task))


def print_image_check(console: Console, check: ImageCheck, pages: Path | None) -> None:
    """Say how many were looked at, count the flags, show how registration went, and where the pages are."""
    measured = len(check.flags)
    looked = f"Images of {measured} of {check.patients} patients looked at, {check.flagged} with something to look at"
    console.print(looked, soft_wrap=True, highlight=False)
    if measured:
        table = Table("", "patients")
        counts = count_flags(list(check.flags.values()))
        for kind, words in FLAG_WORDS.items():
            table.add_row(words, share(counts[kind], measured))
        console.print(table)
    by_channel: dict[str, list[Motion]] = {}
    for motions in check.motions.values():
        for channel, motion in motions.items():
            by_channel.setdefault(channel, []).append(motion)
    if by_channel:
        table = Table("registered", "patients", "median information, before / after", "largest shift, mm", "turn, °")
        for channel, moved in by_channel.items():
            before, after = (
                float(np.median([getattr(motion, when) for motion in moved]))
                for when in ("information_before", "information_after")
            )
            shift, turn = max(motion.shift_mm for motion in moved), max(motion.turn_degrees for motion in moved)
            table.add_row(channel, str(len(moved)), f"{before:.3f} / {after:.3f}", f"{shift:.1f}", f"{turn:.1f}")
        console.print(table)
    if pages is not None:
        console.print(f"Pages: {pages / PAGE}", soft_wrap=True, markup=False, highlight=False)


def check_images(cohort: Cohort, config: Imaging, *, pages: Path | None, advance: Callable[[], None]) -> ImageCheck:
    """Measure every patient's images, before and after preprocessing, and say what is odd.

    Args:
        pages: folder for one HTML page a patient and a table that links to them, image_check.html; none without it.
        advance: called once a patient, for a progress bar.

    Raises:
        ConfigError: when a channel is to be registered that the cohort does not have.
    """
    findings = [Finding("note", MANIFEST_FILE, note) for note in channel_notes(cohort.manifest.channels, config)]
    qualities: dict[str, PatientQuality] = {}
    motions: dict[str, Mapping[str, Motion]] = {}
    pictures: dict[str, str] = {}  # flags compare with the whole cohort: pages are written once all are measured
    for patient in cohort.patients:
        if cohort.has_image(patient):
            try:
                read = read_images(cohort.channel_files(patient), cohort.mask_path(patient))
                prepared = run_steps(read, config)
            except CohortError as error:
                findings.append(Finding("fault", IMAGES_FOLDER, str(error), patient=patient))
            else:
                qualities[patient], motions[patient] = measure(read, prepared), prepared.motions
                if pages is not None:
                    pictures[patient] = _picture(read, prepared)
        advance()
    flags = image_flags(cohort, qualities)
    for patient, found in flags.items():
        # The border is a note of the check of the cohort, file by file.
        messages = [flag.message for flag in found if flag.kind != "border"]
        findings += [Finding("note", IMAGES_FOLDER, message, patient=patient) for message in messages]
    check = ImageCheck(findings, flags, motions, len(cohort.patients))
    if pages is not None:
        for patient, picture in pictures.items():
            page = _patient_page(patient, picture, qualities[patient], flags[patient], motions[patient])
            write_text_atomically(pages / f"{patient}.html", page)
        write_text_atomically(pages / PAGE, _overview(cohort, qualities, check))
    return check


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
    figure.suptitle("as read" + " " * 90 + "as the network sees it", fontsize=9)
    return figure


def _show_planes(row: NDArray[np.object_], volume: Volume, tumour: NDArray[np.bool_]) -> None:
    """The planes of the grid through the tumour's centre, every voxel in its true proportion."""
    centre = [round(float(along.mean())) for along in np.nonzero(tumour)] if tumour.any() else None
    shown = volume.array[np.isfinite(volume.array)]
    low, high = np.percentile(shown, (1, 99)) if shown.size else (0.0, 1.0)
    spacing, directions = volume.geometry.spacing_mm, volume.geometry.axes
    # Which axes of the grid run across, down and to the right in the picture.
    for axes, (across, down, right) in zip(row, ((2, 1, 0), (1, 2, 0), (0, 2, 1)), strict=True):
        axis = 2 - across
        index = centre[axis] if centre else volume.array.shape[axis] // 2
        plane, outline = (
            np.take(volume.array, [index], axis).squeeze(axis),
            np.take(tumour, [index], axis).squeeze(axis),
        )
        axes.imshow(
            plane, cmap="gray", vmin=low, vmax=high, aspect=spacing[down] / spacing[right], interpolation="nearest"
        )
        _draw_outline(axes, tumour.max(axis), color="#58b4e8", style="dotted")
        _draw_outline(axes, outline, color="#e8a200", style="solid")
        _orient(axes, down=_towards(directions[:, down]), right=_towards(directions[:, right]))
        axes.set_title(PLANES[int(np.abs(directions[:, across]).argmax())], fontsize=7)


def _draw_outline(axes: Axes, inside: NDArray[np.bool_], *, color: str, style: str) -> None:
    if inside.any() and not inside.all():
        axes.contour(inside, levels=[0.5], colors=color, linestyles=style, linewidths=0.8)


def _towards(direction: NDArray[np.float64]) -> str:
    """The side of the patient that a direction (LPS) points to, as nearly as one letter can say."""
    axis = int(np.abs(direction).argmax())
    side = "LPH"[axis]
    return side if direction[axis] > 0 else OPPOSITE[side]


def _orient(axes: Axes, *, down: str, right: str) -> None:
    """Head or front up, the patient's left or back to the right, as radiologists look; the sides are lettered."""
    if down in "HA":
        axes.invert_yaxis()
        down = OPPOSITE[down]
    if right in "RA":
        axes.invert_xaxis()
        right = OPPOSITE[right]
    for x, y, side in (
        (0.5, 0.04, down),
        (0.5, 0.96, OPPOSITE[down]),
        (0.96, 0.5, right),
        (0.04, 0.5, OPPOSITE[right]),
    ):
        axes.text(x, y, side, transform=axes.transAxes, ha="center", va="center", fontsize=7, color="#d55e00")
    axes.set_xticks([])
    axes.set_yticks([])


def _picture(read: PatientImages, prepared: PatientImages) -> str:
    picture = io.BytesIO()
    mosaic(read, prepared).savefig(picture, format="png", dpi=DOTS_PER_INCH)
    return base64.b64encode(picture.getvalue()).decode()


def _patient_page(
    patient: str, picture: str, quality: PatientQuality, flags: list[Flag], motions: Mapping[str, Motion]
) -> str:
    return _template("image_check_patient.html").render(
        patient=patient, picture=picture, quality=quality, flags=flags, motions=motions, overview=PAGE
    )


def _overview(cohort: Cohort, qualities: Mapping[str, PatientQuality], check: ImageCheck) -> str:
    rows = [(patient, quality, check.flags[patient]) for patient, quality in qualities.items()]
    return _template("image_check.html").render(name=cohort.manifest.name, rows=rows, flagged=check.flagged)


def _template(name: str) -> Template:
    loader = PackageLoader("stsmm_core.report", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template(name)
