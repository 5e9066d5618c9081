"""Radiomics: shape, first-order and texture features of the tumour in each channel, by pyradiomics.

Definitions are those of the Image Biomarker Standardisation Initiative (Zwanenburg et al., Radiology 2020, doi
10.1148/radiol.2020191145) but for those that pyradiomics documents to differ: kurtosis is not in excess of 3, and
first-order entropy and uniformity are those of the discretised intensities.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
from numpy.typing import NDArray

from stsmm_core.config import Imaging, Radiomics
from stsmm_core.errors import CohortError, not_installed
from stsmm_core.imaging.agreement import intraclass_correlation
from stsmm_core.imaging.batch import Job, for_each
from stsmm_core.imaging.cached_file import content_key, read_whole, write_whole
from stsmm_core.imaging.preprocess import bounding_box, read_images, run_early_steps, zscore
from stsmm_core.imaging.quality import tumour_on
from stsmm_core.imaging.volume import Volume, to_image

RADIOMICS_VERSION = 1
"""Raise it with every change of a feature: those of other versions are then made anew."""

FEATURE_CLASSES = ("shape", "firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")
INTERPOLATORS = {"linear": sitk.sitkLinear, "bspline": sitk.sitkBSpline}
MASK_DIMENSIONS = 3


def radiomics_table(
    jobs: Sequence[Job],
    imaging: Imaging,
    config: Radiomics,
    *,
    cache: Path,
    workers: int,
    advance: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Features of many patients: one row a job, indexed by its label, one column a channel and feature.

    What the cache lacks is made in worker processes; all is then read from it. A feature that a tumour does not have
    is NaN, as are all features of a channel that the patient lacks.

    Args:
        jobs: the patients with images.
        advance: called once a patient, for a progress bar.

    Raises:
        CohortError: with every patient whose features cannot be had; the others are in the cache then.
        RunError: when pyradiomics is not installed, or the cache cannot be used.
    """
    pyradiomics()
    paths = [features_path(cache, job.channels, job.mask, imaging, config) for job in jobs]
    todo = [job for job, path in zip(jobs, paths, strict=True) if read_whole(path) is None]
    for _ in range(len(jobs) - len(todo)):
        advance()
    faults: list[str] = []
    for fault in for_each(todo, partial(_store_features, imaging=imaging, config=config, cache=cache), workers=workers):
        faults += [] if fault is None else [f"  {fault}"]
        advance()
    if faults:
        raise CohortError(f"{len(faults)} of {len(jobs)} patients have no radiomics\n" + "\n".join(sorted(faults)))
    rows = {job.label: cached_features(cache, job.channels, job.mask, imaging, config) for job in jobs}
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float)


def reproducible_features(first: pd.DataFrame, second: pd.DataFrame, minimum: float) -> list[str]:
    """Features that hardly depend on who outlined the tumour: ICC(A,1) of two readers at least `minimum`.

    Args:
        first, second: features of the two readers' outlines; the patients with a value of both count (at least half
            of those with the channel), which the caller restricts to development patients.
    """
    both = first.index.intersection(second.index)
    lacks = channels_lacking(first.loc[both]) | channels_lacking(second.loc[both])
    kept = []
    for feature in first.columns.intersection(second.columns):
        seen = both[~lacks[channel_of(feature)]]
        readings = np.column_stack([reader.loc[seen, feature].to_numpy(dtype=float) for reader in (first, second)])
        known = np.isfinite(readings).all(axis=1)
        # A coefficient that is NaN (no variation between patients, or fewer than two) is not reproducible.
        if 2 * known.sum() >= len(seen) and intraclass_correlation(readings[known]).value >= minimum:
            kept.append(feature)
    return kept


def channel_of(feature: str) -> str:
    """The channel that a column of `radiomics_table` was measured in."""
    return feature.rpartition("_original_")[0]


def channels_lacking(features: pd.DataFrame) -> pd.DataFrame:
    """Whether a patient has no feature of a channel at all: one row a patient, one column a channel."""
    return features.isna().T.groupby(channel_of, sort=False).all().T.astype(bool)


def cached_features(
    cache: Path, channels: Mapping[str, Path], mask: Path, imaging: Imaging, config: Radiomics
) -> dict[str, float]:
    """Features of a patient, from `cache` if they were ever made from the same content, settings and versions.

    Raises:
        CohortError: as `patient_features`.
        RunError: when the cache folder cannot be read or written, or pyradiomics is not installed.
    """
    path = features_path(cache, channels, mask, imaging, config)
    body = read_whole(path)
    if body is not None:
        return json.loads(body)
    features = patient_features(channels, mask, imaging, config)
    write_whole(path, json.dumps(features).encode())
    return features


def features_path(cache: Path, channels: Mapping[str, Path], mask: Path, imaging: Imaging, config: Radiomics) -> Path:
    """Where a patient's features lie, or would lie."""
    settings = {
        "radiomics": config.model_dump(mode="json", exclude={"min_icc"}),
        "imaging": imaging.model_dump(mode="json", exclude={"augmentation", "shape"}),
    }
    version = f"radiomics {RADIOMICS_VERSION}, pyradiomics {pyradiomics().__version__}"
    return cache / f"{content_key(channels, mask, version=version, settings=settings)}.radiomics"


def patient_features(channels: Mapping[str, Path], mask: Path, imaging: Imaging, config: Radiomics) -> dict[str, float]:
    """About 100 features of each channel, named like t1_original_glcm_Contrast; NaN where a tumour has none.

    Whole volumes go through the early steps of preprocessing (bias correction and registration), channels in arbitrary
    units are z-scored within the tumour's box and its margin, and each is read off on its own axes.

    Args:
        mask: the tumour, on the grid of the first channel or elsewhere in the same physical space.

    Raises:
        CohortError: naming the file that is unreadable, constant, elsewhere, or has too small a tumour, and the remedy.
        RunError: when pyradiomics is not installed.
    """
    images = run_early_steps(read_images(channels, mask), imaging)
    features: dict[str, float] = {}
    for name, volume in images.channels.items():
        source = images.sources[name]
        inside = tumour_on(volume, images.tumour)
        if not inside.any():
            raise CohortError(
                f"{source}: does not show the tumour of {mask}; "
                "check that both headers (origin, direction, spacing) belong to the same examination"
            )
        if name in config.normalised:
            box = _box_with_margin(inside, volume.geometry.spacing_mm, imaging.margin_mm)
            volume = Volume(zscore(volume.array, box, source=source), volume.geometry)
        try:
            measured = channel_features(volume, inside, config)
        except ValueError as error:
            raise CohortError(
                f"{mask}: the tumour is too small or too flat for radiomics of {name} ({error}); check the mask, "
                "lower radiomics.spacing_mm or radiomics.min_voxels, or take the patient's images out"
            ) from None
        features |= {f"{name}_{feature}": value for feature, value in measured.items()}
    return features


def channel_features(volume: Volume, inside: NDArray[np.bool_], config: Radiomics) -> dict[str, float]:
    """Features of one volume within a mask on its grid, as pyradiomics names them.

    Raises:
        ValueError: when the mask is too small or does not extend along all three axes.
    """
    image = sitk.Cast(to_image(volume), sitk.sitkFloat64)
    mask = sitk.Cast(to_image(Volume(inside.astype(np.float32), volume.geometry)), sitk.sitkUInt8)
    return extract(
        image,
        mask,
        resampledPixelSpacing=[config.spacing_mm] * 3,
        interpolator=INTERPOLATORS[config.interpolation],
        binCount=config.bin_count,
        distances=[config.distance],
        minimumROIDimensions=MASK_DIMENSIONS,
        minimumROISize=config.min_voxels - 1,  # of the library's, more is asked for than this
    )


def extract(image: sitk.Image, mask: sitk.Image, **settings: Any) -> dict[str, float]:
    """All features of the unfiltered image; beyond `settings` the library's defaults, which follow IBSI.

    That is: three dimensions, symmetric co-occurrence averaged over directions, no re-segmentation of the mask by
    intensity, no outliers taken out.
    """
    library = pyradiomics()
    extractor = library.featureextractor.RadiomicsFeatureExtractor(additionalInfo=False, **settings)
    extractor.disableAllFeatures()
    for name in FEATURE_CLASSES:
        extractor.enableFeatureClassByName(name)
    with np.errstate(invalid="ignore", divide="ignore"):  # a feature without a value is NaN
        # Real numbers all; an eigenvalue among them may bring an imaginary part of rounding.
        return {name: float(np.real(value)) for name, value in extractor.execute(image, mask).items()}


def pyradiomics() -> ModuleType:
    """The library, silent.

    Raises:
        RunError: when it is not installed.
    """
    try:
        import radiomics
        import radiomics.featureextractor
    except ModuleNotFoundError:
        raise not_installed("pyradiomics-bhklab") from None
    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    return radiomics


def _store_features(job: Job, imaging: Imaging, config: Radiomics, cache: Path) -> None:
    cached_features(cache, job.channels, job.mask, imaging, config)


def _box_with_margin(
    inside: NDArray[np.bool_], spacing_mm: tuple[float, float, float], margin_mm: float
) -> tuple[slice, slice, slice]:
    """The smallest box of voxels that holds the tumour and `margin_mm` around it."""
    depth, height, width = (
        slice(max(along.start - margin, 0), along.stop + margin)
        for along, margin in zip(
            bounding_box(inside), np.ceil(margin_mm / np.array(spacing_mm[::-1])).astype(int).tolist(), strict=True
        )
    )
    return depth, height, width
