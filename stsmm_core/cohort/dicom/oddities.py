"""What headers say that a person should know before using the images; it refuses nothing."""

from collections.abc import Sequence

from pydicom.dataset import Dataset

from stsmm_core.cohort.dicom.plan import PatientPlan
from stsmm_core.cohort.dicom.scan import Series, text

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""SOP class of a screenshot or a scan of a film; those of several frames go on from it after a dot."""
WHOLE_MULTIPLE, MULTIPLES = 0.05, range(2, 10)
"""Relative difference from one of these numbers within which slices lie that many times too far apart. With this
difference every number from 10 on is whole, and a header so far off is in another unit."""


def plan_notes(patients: Sequence[PatientPlan]) -> list[str]:
    """Channels of one patient from several studies; how many series of each channel no scanner made as they are."""
    notes = []
    derived: dict[str, int] = {}
    for planned in patients:
        studies = {_said(series.header, "StudyInstanceUID") for series in planned.channels.values()} - {""}
        if len(studies) > 1:
            notes.append(
                f"patient {planned.patient}: its channels come from {len(studies)} studies: "
                "are they of the same time before treatment?"
            )
        for channel, series in planned.channels.items():
            derived[channel] = derived.get(channel, 0) + _is_derived(series)
    for channel, count in derived.items():
        if count:
            notes.append(
                f"channel {channel}: the series of {count} patients are DERIVED or SECONDARY images by their header: "
                "reformatted, resampled, subtracted or a screenshot?"
            )
    return notes


def series_notes(series: Series, *, slices_apart_mm: float) -> list[str]:
    """What is odd about one series.

    Args:
        slices_apart_mm: distance of its slices, by their positions.
    """
    notes = []
    if any(_said(instance.header, "BurnedInAnnotation") == "YES" for instance in series.instances):
        notes.append("has burned-in annotations, by its header: look at the images for names before they are used")
    if any(_said(instance.header, "LossyImageCompression") == "01" for instance in series.instances):
        notes.append("was compressed with loss once, by its header: its texture is not the scanner's")
    try:
        meant_mm = float(_said(series.header, "SpacingBetweenSlices"))
    except ValueError:  # absent, as for most PET and CT
        return notes
    ratio = slices_apart_mm / meant_mm if meant_mm > 0 else 0.0
    times = next((whole for whole in MULTIPLES if abs(ratio - whole) <= WHOLE_MULTIPLE * whole), None)
    # Not refused: software that resamples often leaves the scanner's value in the header.
    if times is not None:
        notes.append(
            f"has slices {slices_apart_mm:.2f} mm apart, {times} times the {meant_mm:.2f} mm that its header says "
            "(SpacingBetweenSlices): were slices left out evenly, or is the header stale?"
        )
    return notes


def _is_derived(series: Series) -> bool:
    """Whether a header says that the pixels were computed from others, or captured elsewhere than in a scanner."""
    for instance in series.instances:
        # The first two values of ImageType have these meanings; what follows is the modality's or the vendor's.
        pixels, examination = [*_said(instance.header, "ImageType").upper().split("\\"), ""][:2]
        if pixels == "DERIVED" or examination == "SECONDARY":
            return True
        kind = _said(instance.header, "SOPClassUID")
        if kind == SECONDARY_CAPTURE or kind.startswith(SECONDARY_CAPTURE + "."):
            return True
    return False


def _said(header: Dataset, keyword: str) -> str:
    """A header element as text; one that cannot be read says nothing."""
    try:
        return text(header, keyword)
    except Exception:  # pydicom raises what the damaged bytes lead it to
        return ""
