"""What can be measured of a patient's images before anyone trusts them, and which measures are odd."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stsmm_core.imaging.flag_kinds import FLAG_KINDS, FlagKind
from stsmm_core.imaging.preprocess import PatientImages
from stsmm_core.imaging.volume import Volume, resample

LEAST_COVERED = 0.99
"""Share of the tumour that every channel should show."""
MOST_SATURATED = 0.02
"""Share of the tumour's voxels at the largest value of the volume, above which the scale was clipped."""
MOST_VOLUME_CHANGE = 0.15
"""Relative difference of two volumes of one tumour, above which one of them is wrong."""
SPACING_FACTOR = 2.0
"""A spacing this many times larger or smaller than the cohort's median is an outlier."""
LARGEST_SHIFT_MM, LARGEST_TURN_DEGREES = 30.0, 20.0
"""A patient does not move further between two series; a registration that says so has lost its way."""


@dataclass(frozen=True)
class Flag:
    """One thing that is odd about a patient's images."""

    kind: FlagKind
    message: str


@dataclass(frozen=True)
class ChannelQuality:
    """Measures of one channel.

    Attributes:
        spacing_mm: along x, y, z.
        covered: share of the tumour's voxels on the tumour grid that the channel shows.
        saturated: share of the tumour's voxels at the largest value of the whole volume.
        constant: whether all voxels within the tumour are the same.
        information_gain: growth of the mutual information with the first channel by registration; None without one.
        shift_mm, turn_degrees: how far registration moved the channel.
    """

    spacing_mm: tuple[float, float, float]
    covered: float
    saturated: float
    constant: bool
    information_gain: float | None = None
    shift_mm: float = 0.0
    turn_degrees: float = 0.0


@dataclass(frozen=True)
class PatientQuality:
    """Measures of one patient.

    Attributes:
        at_border: whether the tumour touches the border of its grid.
        parts: number of pieces that the tumour is in (26-connected).
        largest_part: share of its voxels in the largest one.
        volume_cm3: of the mask.
        tensor_volume_cm3: of the mask on the tumour grid.
    """

    channels: Mapping[str, ChannelQuality]
    at_border: bool
    parts: int
    largest_part: float
    volume_cm3: float
    tensor_volume_cm3: float

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "PatientQuality":
        """Inverse of `dataclasses.asdict`, also after a passage through JSON."""
        channels = {
            name: ChannelQuality(**{**figures, "spacing_mm": tuple(figures["spacing_mm"])})
            for name, figures in content["channels"].items()
        }
        return cls(**{**content, "channels": channels})


def measure(read: PatientImages, prepared: PatientImages) -> PatientQuality:
    """Measure a patient's images as they were read and as they came out of preprocessing."""
    tumour = read.tumour.array > 0
    labels, parts = ndimage.label(tumour, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    inside = prepared.tumour.array > 0
    channels: dict[str, ChannelQuality] = {}
    for name, volume in read.channels.items():
        values = volume.array[tumour_on(volume, read.tumour)]
        motion = prepared.motions.get(name)
        channels[name] = ChannelQuality(
            volume.geometry.spacing_mm,
            covered=float(np.isfinite(prepared.channels[name].array[inside]).mean()),
            saturated=float((values == volume.array.max()).mean()) if values.size else 0.0,
            constant=bool(values.size and values.min() == values.max()),
            information_gain=motion.information_after - motion.information_before if motion else None,
            shift_mm=motion.shift_mm if motion else 0.0,
            turn_degrees=motion.turn_degrees if motion else 0.0,
        )
    return PatientQuality(
        channels,
        at_border=touches_border(tumour),
        parts=int(parts),
        largest_part=float(sizes.max() / sizes.sum()),
        volume_cm3=_volume_cm3(read.tumour),
        tensor_volume_cm3=_volume_cm3(prepared.tumour),
    )


def flags(
    quality: PatientQuality,
    *,
    sheet_cm3: float,
    contour_cm3: float,
    median_spacing: Mapping[str, NDArray[np.float64]],
) -> list[Flag]:
    """What is odd about a patient, one sentence each; nothing for most.

    Args:
        sheet_cm3: tumour volume in the clinical table; NaN where it has none.
        contour_cm3: volume within the contours that the mask was made from; NaN where that is not known.
        median_spacing: of each channel over the cohort, along x, y, z.
    """
    said: list[Flag] = []
    if quality.at_border:
        said.append(Flag("border", "mask: touches the border of the image: the tumour may be cut off"))
    if quality.parts > 1:  # even one stray voxel stretches the tumour grid
        outside = quality.volume_cm3 * (1 - quality.largest_part)
        message = f"mask: is in {quality.parts} parts, {outside:.2g} cm³ beyond the largest one: stray voxels?"
        said.append(Flag("parts", message))
    for other, source in ((sheet_cm3, "the clinical table says"), (contour_cm3, "its contours enclose")):
        if volumes_differ(quality.volume_cm3, other):
            said.append(Flag("volume", f"mask: {quality.volume_cm3:.1f} cm³, but {source} {other:.1f} cm³"))
    if volumes_differ(quality.tensor_volume_cm3, quality.volume_cm3):
        said.append(
            Flag(
                "grid",
                f"mask: {quality.volume_cm3:.1f} cm³ becomes {quality.tensor_volume_cm3:.1f} cm³ on the tumour grid: "
                "too coarse, or slices too thick",
            )
        )
    for name, channel in quality.channels.items():
        said += [Flag(flag.kind, f"{name}: {flag.message}") for flag in _channel_flags(channel, median_spacing[name])]
    return said


def count_flags(flagged: Sequence[Sequence[Flag]]) -> dict[str, int]:
    """Patients with each kind of flag, given every patient's flags."""
    kinds = [{flag.kind for flag in flags_} for flags_ in flagged]
    return {kind: sum(kind in each for each in kinds) for kind in FLAG_KINDS}


def _channel_flags(channel: ChannelQuality, median_spacing: NDArray[np.float64]) -> list[Flag]:
    said: list[Flag] = []
    if channel.covered < LEAST_COVERED:
        said.append(Flag("coverage", f"shows {channel.covered:.0%} of the tumour: cut off, or out of place"))
    if channel.constant:
        said.append(Flag("contrast", "is the same value all over the tumour"))
    elif channel.saturated > MOST_SATURATED:
        said.append(Flag("contrast", f"is at its largest value in {channel.saturated:.0%} of the tumour: saturated"))
    ratio = np.array(channel.spacing_mm) / median_spacing
    if (ratio > SPACING_FACTOR).any() or (ratio < 1 / SPACING_FACTOR).any():
        here, usual = (" x ".join(f"{step:.2g}" for step in steps) for steps in (channel.spacing_mm, median_spacing))
        said.append(Flag("spacing", f"has voxels of {here} mm, the cohort's median is {usual} mm"))
    if channel.information_gain is not None and channel.information_gain < 0:
        said.append(Flag("registration", "lies worse after registration than before"))
    if channel.shift_mm > LARGEST_SHIFT_MM or channel.turn_degrees > LARGEST_TURN_DEGREES:
        moved = f"was moved by {channel.shift_mm:.0f} mm and {channel.turn_degrees:.0f}° by registration"
        said.append(Flag("registration", moved))
    return said


def median_spacings(qualities: Sequence[PatientQuality]) -> dict[str, NDArray[np.float64]]:
    """Median spacing of each channel over the patients who have it, along x, y, z."""
    spacings: dict[str, list[tuple[float, float, float]]] = {}
    for quality in qualities:
        for name, channel in quality.channels.items():
            spacings.setdefault(name, []).append(channel.spacing_mm)
    return {name: np.median(measured, axis=0) for name, measured in spacings.items()}


def touches_border(inside: NDArray[np.bool_]) -> bool:
    """Whether a mask reaches the outermost voxels of its grid."""
    return any(bool(face.any()) for axis in range(3) for face in (inside.take(0, axis), inside.take(-1, axis)))


def tumour_on(volume: Volume, tumour: Volume) -> NDArray[np.bool_]:
    """The tumour on a channel's own grid."""
    if volume.geometry == tumour.geometry:
        return tumour.array > 0
    return resample(tumour, volume.geometry, interpolation="nearest").array > 0


def volumes_differ(volume: float, other: float) -> bool:
    """Whether two volumes of one tumour are so far apart that one of them is wrong; not where one is NaN."""
    return bool(abs(volume - other) > MOST_VOLUME_CHANGE * max(volume, other))


def _volume_cm3(tumour: Volume) -> float:
    return float((tumour.array > 0).sum() * np.prod(tumour.geometry.spacing_mm) / 1000)
