"""What is odd about the images of a cohort's patients, seen against its tables and its other patients."""

import math
from collections.abc import Mapping

from stsmm_core.cohort.acquisition import contour_volumes
from stsmm_core.cohort.cohort import Cohort
from stsmm_core.imaging.quality import Flag, PatientQuality, flags, median_spacings


def image_flags(cohort: Cohort, qualities: Mapping[str, PatientQuality]) -> dict[str, list[Flag]]:
    """Flags of each measured patient."""
    if not qualities:
        return {}
    spacing = median_spacings(list(qualities.values()))
    sheet = cohort.clinical["volume_cm3"].astype(float)
    contours = contour_volumes(cohort) if qualities else {}
    return {
        patient: flags(
            quality,
            sheet_cm3=sheet[patient],
            contour_cm3=contours.get(patient, math.nan),
            median_spacing=spacing,
        )
        for patient, quality in qualities.items()
    }
