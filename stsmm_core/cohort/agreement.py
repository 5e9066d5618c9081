"""Two readers' outlines of the same patients: two cohort folders, compared patient by patient."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stsmm_core.cohort.cohort import Cohort
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.errors import CohortError
from stsmm_core.imaging.agreement import (
    Estimate,
    MaskAgreement,
    compare_masks,
    intraclass_correlation,
    mean_share_with_interval,
    mean_with_interval,
)
from stsmm_core.imaging.volume import read_volume


@dataclass(frozen=True)
class ReaderAgreement:
    """How far two readers agree.

    Attributes:
        patients: agreement of each patient that both have outlined.
        only_one: patients that one of the two has outlined.
        dice, mean_surface_mm, hausdorff95_mm: means over patients.
        volume_icc: intraclass correlation of the volume, absolute agreement.
    """

    patients: dict[str, MaskAgreement]
    only_one: tuple[str, ...]
    dice: Estimate
    mean_surface_mm: Estimate
    hausdorff95_mm: Estimate
    volume_icc: Estimate

    def table(self) -> pd.DataFrame:
        """One row a patient."""
        rows = {
            patient: {
                "dice": each.dice,
                "mean_surface_mm": each.mean_surface_mm,
                "hausdorff95_mm": each.hausdorff95_mm,
                "volume_a_cm3": each.volumes_cm3[0],
                "volume_b_cm3": each.volumes_cm3[1],
            }
            for patient, each in self.patients.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("patient_id")


def compare_readers(first: Path, second: Path) -> ReaderAgreement:
    """Compare the tumour masks of two cohort folders, patient by patient.

    Raises:
        CohortError: when no patient is outlined in both; or with every patient whose masks cannot be compared.
    """
    a, b = load_cohort(first), load_cohort(second)
    outlined = [{patient for patient in cohort.patients if _has_mask(cohort, patient)} for cohort in (a, b)]
    both = sorted(outlined[0] & outlined[1])
    if not both:
        raise CohortError(
            f"{first} and {second} have no outlined patient in common; patient_id must be the same in both"
        )
    patients: dict[str, MaskAgreement] = {}
    faults: list[str] = []
    for patient in both:
        try:
            patients[patient] = compare_masks(read_volume(a.mask_path(patient)), read_volume(b.mask_path(patient)))
        except CohortError as error:
            faults.append(f"  patient {patient}: {error}")
    if faults:
        raise CohortError(f"{len(faults)} of {len(both)} patients cannot be compared\n" + "\n".join(faults))
    figures = list(patients.values())
    return ReaderAgreement(
        patients,
        tuple(sorted(outlined[0] ^ outlined[1])),
        dice=mean_share_with_interval(np.array([each.dice for each in figures])),
        mean_surface_mm=mean_with_interval(np.array([each.mean_surface_mm for each in figures])),
        hausdorff95_mm=mean_with_interval(np.array([each.hausdorff95_mm for each in figures])),
        volume_icc=intraclass_correlation(np.array([each.volumes_cm3 for each in figures])),
    )


def _has_mask(cohort: Cohort, patient: str) -> bool:
    return cohort.has_image(patient) and cohort.mask_path(patient).is_file()
