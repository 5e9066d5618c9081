"""Preprocessed tensors on disk, found again by what they were made from."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stsmm_core.config import Imaging
from stsmm_core.errors import CohortError, RunError
from stsmm_core.files import write_atomically
from stsmm_core.imaging.preprocess import PREPROCESSING_VERSION, preprocess_patient

DIGEST_BYTES = hashlib.sha256().digest_size


def cached_tensor(cache: Path, channels: Mapping[str, Path], mask: Path, config: Imaging) -> NDArray[np.float32]:
    """The tensor of `preprocess_patient`, from `cache` if it was ever made from the same content and settings.

    A file in the cache is named after the SHA-256 of the input files' content, the preprocessing settings (augmentation
    is none of them) and PREPROCESSING_VERSION, so no name tells of a patient. It is a .npy file followed by its own
    SHA-256; one that is cut short or damaged is made again. It appears under its name only when whole, so several
    processes may share the folder, and what two of them make at once is the same. Only its maker may read it.

    Raises:
        CohortError: as `preprocess_patient`.
        RunError: when the cache folder cannot be read or written.
    """
    tensor = _load(cache_path(cache, channels, mask, config))
    return store_tensor(cache, channels, mask, config) if tensor is None else tensor


def store_tensor(cache: Path, channels: Mapping[str, Path], mask: Path, config: Imaging) -> NDArray[np.float32]:
    """Make a tensor and put it into the cache, in place of one that is there; errors as `cached_tensor`."""
    path = cache_path(cache, channels, mask, config)
    tensor = preprocess_patient(channels, mask, config)
    _store(path, tensor)
    return tensor


def cache_path(cache: Path, channels: Mapping[str, Path], mask: Path, config: Imaging) -> Path:
    """Where a tensor lies, or would lie."""
    return cache / f"{_key(channels, mask, config)}.npy"


def _key(channels: Mapping[str, Path], mask: Path, config: Imaging) -> str:
    """What a tensor depends on, as one hexadecimal word."""
    ingredients = {
        "version": PREPROCESSING_VERSION,
        # By exclusion, so that a setting added later counts without anyone remembering this line.
        "settings": config.model_dump(mode="json", exclude={"augmentation"}),
        "channels": [(name, _content(path)) for name, path in channels.items()],
        "mask": _content(mask),
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def _content(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CohortError(
            f"{path}: cannot be read ({error.strerror}); put the volume there, readable for you"
        ) from None


def _load(path: Path) -> NDArray[np.float32] | None:
    """The tensor in a cache file; None where there is no file or not a sound one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(
            f"{path.parent}: the image cache cannot be read ({error.strerror}); choose a folder of your own"
        ) from None
    array, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if hashlib.sha256(array).digest() != digest:
        return None
    return np.load(io.BytesIO(array), allow_pickle=False)


def _store(path: Path, tensor: NDArray[np.float32]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, tensor, allow_pickle=False)
    array = buffer.getvalue()
    try:
        write_atomically(path, lambda unfinished: unfinished.write_bytes(array + hashlib.sha256(array).digest()))
    except OSError as error:
        raise RunError(
            f"{path.parent}: the image cache cannot be written ({error.strerror}); make room or choose another folder"
        ) from None
