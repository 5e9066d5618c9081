"""Standardised uptake value (body weight) of PET, from the header alone."""

import datetime as dt
import math

from pydicom.dataset import Dataset

from stsmm_core.cohort.dicom.scan import text
from stsmm_core.errors import CohortError

GRAMS_PER_KG = 1000.0
HOUR_DIGITS = 2
REMEDY = "export the PET as SUV (Units GML), or with its dose, weight and times"


def suv_per_unit(header: Dataset) -> float:
    """What to multiply the rescaled values of a PET slice with to get the SUV by body weight, in g/ml.

    1 where the scanner has done so (Units GML, SUV by body weight). From Bq/ml: weight / (injected activity at the
    time that the image is corrected to), after the QIBA profile for FDG-PET.

    Raises:
        CohortError: when the header does not tell.
    """
    units = text(header, "Units")
    if units == "GML":
        kind = text(header, "SUVType") or "BW"
        if kind != "BW":
            raise CohortError(f"holds SUV by {kind}, not by body weight; {REMEDY}")
        return 1.0
    if units != "BQML":
        raise CohortError(f"PET in units '{units}' has no standard way to SUV; {REMEDY}")
    weight, activity = _positive(header, "PatientWeight"), _activity_at_reference(header)
    return weight * GRAMS_PER_KG / activity


def _activity_at_reference(header: Dataset) -> float:
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
    seconds = (_series_start(header) - _injected_at(header, injection)).total_seconds()
    if seconds < 0:
        raise CohortError(f"PET injected after the series began; {REMEDY}")
    return dose * math.exp(-math.log(2) * seconds / _positive(injection, "RadionuclideHalfLife"))


def _series_start(header: Dataset) -> dt.datetime:
    """SeriesTime; a series derived later has a later one, which is not the scan's."""
    series = _moment(text(header, "SeriesDate"), text(header, "SeriesTime"))
    acquired = _moment(text(header, "AcquisitionDate"), text(header, "AcquisitionTime"))
    if series > acquired:
        raise CohortError(f"PET whose SeriesTime is after its AcquisitionTime (a derived series); {REMEDY}")
    return series


def _injected_at(header: Dataset, injection: Dataset) -> dt.datetime:
    moment = text(injection, "RadiopharmaceuticalStartDateTime")
    if moment:
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
    return float(value)
