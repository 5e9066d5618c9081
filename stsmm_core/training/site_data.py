"""A site's patients in memory, ready to train on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from stsmm_core.cohort.cohort import Cohort, Outcomes
from stsmm_core.cohort.image_flags import image_flags
from stsmm_core.cohort.splits import Fold, Rows
from stsmm_core.config import Experiment
from stsmm_core.errors import CohortError
from stsmm_core.imaging.cache import cached_patient
from stsmm_core.imaging.channels import check_registered_channels
from stsmm_core.imaging.preprocess import read_tumour
from stsmm_core.imaging.quality import PatientQuality, count_flags
from stsmm_core.imaging.tumour import tumour_size


@dataclass(frozen=True)
class SiteData:
    """Patients of one site, or of several sites pooled.

    Attributes:
        site: name of the site.
        patients: identifiers; they never leave the site.
        clinical: the clinical table, one row a patient.
        outcomes: times and events of the experiment's endpoints.
        images: tumour tensors, shape (patients, channels, D, H, W); zeros where there is no image, and in
            a channel that the patient lacks.
        has_image: shape (patients,).
        image_flags: patients with each kind of oddity in their images (`imaging.flag_kinds.FLAG_KINDS`).
    """

    site: str
    patients: tuple[str, ...]
    clinical: pd.DataFrame
    outcomes: Outcomes
    images: Tensor
    has_image: NDArray[np.bool_]
    image_flags: Mapping[str, int] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Image channels; 0 where the experiment or the cohort has no image modality."""
        return self.images.shape[1]

    def lacking_channels(self, row: int) -> list[int]:
        """Positions of the channels that a patient with an image lacks: they are 0 all over, as no volume may be."""
        if not self.has_image[row]:
            return []
        return [place for place, volume in enumerate(self.images[row]) if not volume.any()]

    def without_images(self) -> "SiteData":
        """The same patients to a network whose image encoder nobody trained."""
        return replace(self, has_image=np.zeros_like(self.has_image))

    def tested_on(self, patients: NDArray[np.bool_]) -> "SiteData":
        """The same with the outcomes of only some patients known, so that no others are tested."""
        known = patients[:, None]
        time, event = (np.where(known, each, np.nan) for each in (self.outcomes.time, self.outcomes.event))
        return replace(self, outcomes=Outcomes(time, event))

    def has_clinical(self, variables: Sequence[str]) -> NDArray[np.bool_]:
        """Whether any of the variables is known, shape (patients,)."""
        return self.clinical[list(variables)].notna().any(axis=1).to_numpy()


def complete_from_masks(cohort: Cohort) -> Cohort:
    """The cohort with size and volume computed from the tumour mask where the sheet lacks them."""
    clinical = cohort.clinical.copy()
    for patient in cohort.patients:
        missing = clinical.loc[patient, ["size_cm", "volume_cm3"]].isna()
        if missing.any() and cohort.has_image(patient):
            size = tumour_size(read_tumour(cohort.mask_path(patient)))
            for column, value in (("size_cm", size.size_cm), ("volume_cm3", size.volume_cm3)):
                if missing[column]:
                    clinical.loc[patient, column] = value
    return replace(cohort, clinical=clinical)


def load_site_data(
    cohort: Cohort, experiment: Experiment, *, cache: Path, advance: Callable[[], None] = lambda: None
) -> SiteData:
    """Preprocess (or take from the cache) all patients of a cohort.

    Args:
        cohort: with sizes completed (`complete_from_masks`).
        cache: folder of preprocessed tensors; safe to share between runs and processes.
        advance: called once a patient, for a progress bar.

    Raises:
        CohortError: naming the patient whose images cannot be used.
        ConfigError: when a channel is to be registered that the cohort does not have.
    """
    wants_images = "image" in experiment.data.modalities
    channels = cohort.manifest.channels if wants_images else ()
    check_registered_channels(channels, experiment.imaging)
    has_image = np.array([bool(channels) and cohort.has_image(patient) for patient in cohort.patients], dtype=bool)
    images = torch.zeros(len(cohort.patients), len(channels), *experiment.imaging.shape)
    qualities: dict[str, PatientQuality] = {}
    for row, patient in enumerate(cohort.patients):
        if has_image[row]:
            files = cohort.channel_files(patient)
            try:
                prepared = cached_patient(cache, files, cohort.mask_path(patient), experiment.imaging)
            except CohortError as error:
                raise CohortError(f"patient {patient}: {error}") from error
            # The tensor in the cache has the patient's own channels; the others stay 0.
            images[row, [channels.index(channel) for channel in files]] = torch.from_numpy(prepared.tensor)
            qualities[patient] = prepared.quality
        advance()
    return SiteData(
        cohort.manifest.site,
        cohort.patients,
        cohort.clinical,
        cohort.outcomes(experiment.data.endpoints),
        images,
        has_image,
        count_flags(list(image_flags(cohort, qualities).values())),
    )


def pool(sites: Sequence[SiteData]) -> SiteData:
    """All patients of several sites as one (centralised training).

    Raises:
        CohortError: when the sites' image channels differ.
    """
    if len(sites) == 1:
        return sites[0]
    channels = max(site.channels for site in sites)
    images = []
    for site in sites:
        if site.channels not in (0, channels):
            raise CohortError(f"site {site.site} has {site.channels} image channels, another site {channels}")
        images.append(site.images if site.channels else torch.zeros(len(site.patients), *site_shape(sites, channels)))
    return SiteData(
        "pooled",
        tuple(f"{site.site}/{patient}" for site in sites for patient in site.patients),
        pd.concat([site.clinical for site in sites], ignore_index=True),
        Outcomes(
            np.concatenate([site.outcomes.time for site in sites]),
            np.concatenate([site.outcomes.event for site in sites]),
        ),
        torch.cat(images),
        np.concatenate([site.has_image for site in sites]),
    )


def site_shape(sites: Sequence[SiteData], channels: int) -> tuple[int, ...]:
    """Shape of one patient's tensor, from a site that has images."""
    return next(tuple(site.images.shape[1:]) for site in sites if site.channels == channels)


def pool_folds(sites: Sequence[SiteData], folds: Sequence[Fold]) -> Fold:
    """The sites' folds, in rows of their pool."""
    starts = np.cumsum([0, *(len(site.patients) for site in sites)])[:-1]

    def shifted(part: Callable[[Fold], Rows]) -> Rows:
        return np.concatenate([part(fold) + start for fold, start in zip(folds, starts, strict=True)])

    return Fold(
        shifted(lambda fold: fold.train), shifted(lambda fold: fold.validation), shifted(lambda fold: fold.test)
    )


def agreed_channels(channels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The image channels of a run, from each site's; a site without images agrees with any.

    Raises:
        CohortError: naming the sites that differ.
    """
    named = {site: tuple(names) for site, names in channels.items() if names}
    if len(set(named.values())) > 1:
        table = "; ".join(f"{site}: {', '.join(names)}" for site, names in named.items())
        raise CohortError(f"the sites' image channels differ ({table}); a run needs the same channels in one order")
    return next(iter(named.values()), ())
