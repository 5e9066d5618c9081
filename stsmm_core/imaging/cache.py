"""Preprocessed tensors on disk with the quality of their images, found again by what they were made from."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stsmm_core.config import Imaging
from stsmm_core.imaging.cached_file import content_key, read_whole, write_whole
from stsmm_core.imaging.preprocess import PREPROCESSING_VERSION, read_images, run_steps, to_tensor
from stsmm_core.imaging.quality import PatientQuality, measure


@dataclass(frozen=True, eq=False)
class PreparedPatient:
    """A patient's tensor, shape (channels, D, H, W), and the quality of the images that it was made from."""

    tensor: NDArray[np.float32]
    quality: PatientQuality


def cached_patient(cache: Path, channels: Mapping[str, Path], mask: Path, config: Imaging) -> PreparedPatient:
    """What preprocessing makes of a patient, from `cache` if it was ever made from the same content and settings.

    A file in the cache is named after the SHA-256 of the input files' content, the preprocessing settings (augmentation
    is none of them) and PREPROCESSING_VERSION, so no name tells of a patient. It is a .npy file, followed by the
    quality as JSON and by the SHA-256 of both; one that is cut short or damaged is made again. It appears under its
    name only when whole, so several processes may share the folder, and what two of them make at once is the same. Only
    its maker may read it.

    Raises:
        CohortError: as `preprocess_patient`.
        RunError: when the cache folder cannot be read or written.
    """
    prepared = _load(cache_path(cache, channels, mask, config))
    return store_patient(cache, channels, mask, config) if prepared is None else prepared


def is_cached(cache: Path, channels: Mapping[str, Path], mask: Path, config: Imaging) -> bool:
    """Whether a sound tensor is in the cache."""
    return _load(cache_path(cache, channels, mask, config)) is not None


def store_patient(cache: Path, channels: Mapping[str, Path], mask: Path, config: Imaging) -> PreparedPatient:
    """Preprocess a patient and keep the result, in place of one that is there; errors as `cached_patient`."""
    path = cache_path(cache, channels, mask, config)
    read = read_images(channels, mask)
    images = run_steps(read, config)
    prepared = PreparedPatient(to_tensor(images), measure(read, images))
    _store(path, prepared)
    return prepared


def cache_path(cache: Path, channels: Mapping[str, Path], mask: Path, config: Imaging) -> Path:
    """Where a tensor lies, or would lie."""
    # By exclusion, so that a setting added later counts without anyone remembering this line.
    settings = config.model_dump(mode="json", exclude={"augmentation"})
    return cache / f"{content_key(channels, mask, version=PREPROCESSING_VERSION, settings=settings)}.npy"


def _load(path: Path) -> PreparedPatient | None:
    """What a cache file holds; None where there is no file or not a sound one."""
    body = read_whole(path)
    if body is None:
        return None
    stream = io.BytesIO(body)
    tensor = np.load(stream, allow_pickle=False)
    return PreparedPatient(tensor, PatientQuality.from_dict(json.loads(stream.read())))


def _store(path: Path, prepared: PreparedPatient) -> None:
    stream = io.BytesIO()
    np.save(stream, prepared.tensor, allow_pickle=False)
    stream.write(json.dumps(asdict(prepared.quality)).encode())
    write_whole(path, stream.getvalue())
