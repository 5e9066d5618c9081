"""Preprocessing without the steps that estimate something, so that a test knows what comes out."""

from pathlib import Path

from stsmm_core.config import Imaging


def imaging(**settings) -> Imaging:
    """Resampling, z-score and masking."""
    return Imaging(steps=("resampling", "zscore", "masking"), **settings)


def named(paths: list[Path]) -> dict[str, Path]:
    """Volumes by the channel that their file is named after."""
    return {path.name.removesuffix(".nii.gz"): path for path in paths}
