"""Standardised uptake value (body weight) of PET, from the header alone."""

import datetime as dt
from collections.abc import Iterable

from pydicom.dataset import Dataset

from stsmm_core.cohort.dicom.scan import text
from stsmm_core.errors import CohortError

GRAMS_PER_KG = 1000.0
HOUR_DIGITS = 2
UNZONED = 13
"""A date and time is longer than this when it ends in an offset from UTC."""
MOST_HALF_LIVES = 10.0
"""Between injection and scan: after more of them nothing is left to measure, so a time is wrong."""
LATEST_START = dt.timedelta(minutes=5)
"""Between SeriesTime and the first slice: longer, and the series began with something else, as the CT."""
PLAUSIBLE = {
    "PatientWeight": (1.0, 400.0, "kg"),
    "RadionuclideTotalDose": (1e6, 1e11, "Bq"),
    "RadionuclideHalfLife": (60.0, 1e6, "s"),
}
"""Outside, the value is in another unit than the standard's."""
REMEDY = "export the PET as SUV (Units GML), or with its dose, weight and times"


def suv_per_unit(header: Dataset, began: dt.datetime | None = None) -> float:
    """What to multiply the rescaled values of a PET slice with to get the SUV by body weight, in g/ml.

    1 where the scanner has done so (Units GML, SUV by body weight). From Bq/ml: weight / (injected activity at the
    time that the image is corrected to), after the QIBA profile for FDG-PET.

    Args:
        began: `first_acquisition` of the slice's series; the slice's own AcquisitionTime where that is not known.

    Raises:
        CohortError: when the header does not tell.
    """
    corrections = text(header, "CorrectedImage")
    if corrections and "ATTN" not in corrections.split("\\"):
        raise CohortError(f"PET without attenuation correction, by its CorrectedImage; {REMEDY}")
    units = text(header, "Units")
    if units == "GML":
        kind = text(header, "SUVType") or "BW"
        if kind != "BW":
            raise CohortError(f"holds SUV by {kind}, not by body weight; {REMEDY}")
        return 1.0
    if units != "BQML":
        raise CohortError(f"PET in units '{units}' has no standard way to SUV; {REMEDY}")
    weight, activity = _positive(header, "PatientWeight"), _activity_at_reference(header, began)
    return weight * GRAMS_PER_KG / activity


def _activity_at_reference(header: Dataset, began: dt.datetime | None) -> float:
    """Injected activity in Bq, at the time to which the image is decay-corrected."""
    correction = text(header, "DecayCorrection")
    sequence = header.get("RadiopharmaceuticalInformationSequence")
    if not sequence:
        raise CohortError(f"PET without RadiopharmaceuticalInformationSequence: the dose is not known; {REMEDY}")
    injection = sequence[0]
    dose = _positive(injection, "RadionuclideTotalDose")
    if correction == "ADMIN":
        return dose
    if correction != "START":
        raise CohortError(f"PET with DecayCorrection '{correction}', neither START nor ADMIN; {REMEDY}")
    seconds = (_series_start(header, began) - _injected_at(header, injection)).total_seconds()
    if seconds < 0:
        raise CohortError(f"PET injected after the series began; {REMEDY}")
    half_lives = seconds / _positive(injection, "RadionuclideHalfLife")
    if half_lives > MOST_HALF_LIVES:
        raise CohortError(
            f"PET injected {half_lives:.0f} half-lives before the series began: the times are not of one examination "
            f"(shifted dates?), or the half-life is not in seconds; {REMEDY}"
        )
    return dose * 2.0**-half_lives


def first_acquisition(headers: Iterable[Dataset]) -> dt.datetime | None:
    """The earliest AcquisitionTime of a series' slices: beds are scanned one after another; None where none says."""
    moments = []
    for header in headers:
        try:
            moments.append(_acquired_at(header))
        except CohortError:  # whether it is needed is decided by the units
            continue
    return min(moments, default=None)


def _series_start(header: Dataset, began: dt.datetime | None) -> dt.datetime:
    """SeriesTime, where it is that of the first slice; a series derived later, or begun otherwise, has another."""
    series = _moment(text(header, "SeriesDate"), text(header, "SeriesTime"))
    acquired = _acquired_at(header)
    first = acquired if began is None else min(began, acquired)
    if series > first:
        raise CohortError(f"PET whose SeriesTime is after its AcquisitionTime (a derived series); {REMEDY}")
    if first - series > LATEST_START:
        minutes = (first - series).total_seconds() / 60
        raise CohortError(
            f"PET whose SeriesTime is {minutes:.0f} min before its first AcquisitionTime: the time that its decay is "
            f"corrected to is not sure; {REMEDY}"
        )
    return series


def _acquired_at(header: Dataset) -> dt.datetime:
    return _moment(text(header, "AcquisitionDate"), text(header, "AcquisitionTime"))


def _injected_at(header: Dataset, injection: Dataset) -> dt.datetime:
    moment = text(injection, "RadiopharmaceuticalStartDateTime")
    if moment:
        if len(moment) > UNZONED and moment[-5] in "+-" and moment[-5:] != text(header, "TimezoneOffsetFromUTC"):
            raise CohortError(f"PET whose injection and series are in different time zones; {REMEDY}")
        return _moment(moment[:8], moment[8:].split("+")[0].split("-")[0])
    return _moment(text(header, "SeriesDate"), text(injection, "RadiopharmaceuticalStartTime"))


def _moment(date: str, time: str) -> dt.datetime:
    seconds = time.split(".")[0]
    try:
        # The standard lets a time end after the hour or the minute, but not before.
        return dt.datetime.strptime(date + seconds.ljust(6, "0") if len(seconds) >= HOUR_DIGITS else "", "%Y%m%d%H%M%S")
    except ValueError:
        raise CohortError(f"PET without the times that its decay correction needs; {REMEDY}") from None


def _positive(header: Dataset, keyword: str) -> float:
    value = text(header, keyword)
    if not value or not float(value) > 0:
        raise CohortError(f"PET without {keyword} above 0; {REMEDY}")
    low, high, unit = PLAUSIBLE[keyword]
    if not low <= float(value) <= high:
        raise CohortError(f"PET with {keyword} {float(value):g}, which cannot be in {unit}; {REMEDY}")
    return float(value)
