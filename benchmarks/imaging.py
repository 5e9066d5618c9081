"""How fast preprocessing is, as ratios measured side by side in one process.

    python benchmarks/imaging.py COHORT

COHORT is a cohort folder with MRI (channel t1), e.g. one made by `stsmm cohort import sts-public`. One core is used
unless the two sides of a ratio use more by themselves. The figures of a machine say nothing of another; the ratios do.
N4 is measured in CPU time of this process, all threads together: its one fit at full resolution is too long to be
repeated in turns, and by the clock on a loaded machine the ratio would be noise. The others are by the clock.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Compose, RandFlipd, RandRotated, RandZoomd

from stsmm_core.cohort.reading import load_cohort
from stsmm_core.config import Augmentation, BiasCorrection, Imaging
from stsmm_core.imaging.augment import augment
from stsmm_core.imaging.bias import correct_bias
from stsmm_core.imaging.cache import cached_patient, store_patient
from stsmm_core.imaging.preprocess import read_images

REPEATS = 5
PATIENTS_N4 = 3
SHRINK = BiasCorrection().shrink
BATCH = 16
PATIENTS_CACHE = 100


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU time that this process spends on one call, all threads together."""
    started = time.process_time()
    run()
    return time.process_time() - started


def alternating(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Median time of each, run in turns so that whatever else the machine does falls on both."""
    times = [(seconds(first), seconds(second)) for _ in range(REPEATS)]
    return statistics.median(pair[0] for pair in times), statistics.median(pair[1] for pair in times)


def bias_correction(cohort_root: Path) -> None:
    """The shrunken fit against the fit at full resolution, on real T1 volumes."""
    cohort = load_cohort(cohort_root)
    patients = [name for name in cohort.patients if cohort.has_image(name)][:PATIENTS_N4]
    for patient in patients:
        images = read_images({"t1": cohort.channel_path(patient, "t1")}, cohort.mask_path(patient))
        volume, inside = images.channels["t1"], images.tumour.array > 0
        kept = {}

        def fit(shrink: int, volume=volume, kept=kept) -> None:
            kept[shrink] = correct_bias(volume, BiasCorrection(shrink=shrink)).array

        # The short one before and after the long one: caches and clock rate fall on both.
        before = cpu_seconds(lambda fit=fit: fit(SHRINK))
        full = cpu_seconds(lambda fit=fit: fit(1))
        shrunken = (before + cpu_seconds(lambda fit=fit: fit(SHRINK))) / 2
        # N4 knows the field up to a factor, which the z-score takes out: compare at equal medians.
        factor = np.median(kept[1][inside]) / np.median(kept[SHRINK][inside])
        difference = np.abs(kept[SHRINK] * factor - kept[1])[inside] / np.maximum(np.abs(kept[1][inside]), 1e-6)
        size = "x".join(map(str, volume.geometry.size))
        print(
            f"N4 {size}, CPU: full {full:.2f} s, shrunken {shrunken:.2f} s, ratio {full / shrunken:.1f}; "
            f"mean relative difference in the tumour {difference.mean():.2%}"
        )


def augmentation() -> None:
    """Flips, rotation and zoom of a batch in one resampling, against MONAI's transforms sample by sample."""
    torch.set_num_threads(1)
    batch = torch.randn(BATCH, 2, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    config = Augmentation(flip=True, rotation_degrees=15.0, zoom=0.1)
    radians = np.deg2rad(config.rotation_degrees)
    transforms = Compose(
        [
            RandFlipd("image", prob=0.5, spatial_axis=1),
            RandFlipd("image", prob=0.5, spatial_axis=2),
            RandRotated("image", range_x=radians, prob=1.0, mode="bilinear", padding_mode="zeros"),
            RandZoomd("image", prob=1.0, min_zoom=0.9, max_zoom=1.1, mode="trilinear", padding_mode="constant"),
        ]
    ).set_random_state(0)
    ours, theirs = alternating(
        lambda: augment(batch, config, torch.Generator().manual_seed(0)),
        lambda: torch.stack([transforms({"image": sample})["image"].as_tensor() for sample in batch]),
    )
    print(f"augmentation of {BATCH} x 2 x 64^3: MONAI {theirs:.2f} s, batch {ours:.2f} s, ratio {theirs / ours:.1f}")


def warm_cache(cohort_root: Path) -> None:
    """Reading tensors from the cache against making them."""
    cohort = load_cohort(cohort_root)
    config = Imaging(steps=("resampling", "zscore", "masking"))
    named = [name for name in cohort.patients if cohort.has_image(name)]
    jobs = [
        (
            {channel: cohort.channel_path(name, channel) for channel in cohort.manifest.channels},
            cohort.mask_path(name),
        )
        for name in named
    ]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        cold = seconds(lambda: [store_patient(cache, *job, config) for job in jobs]) / len(jobs)
        many = [jobs[number % len(jobs)] for number in range(PATIENTS_CACHE)]
        warm = seconds(lambda: [cached_patient(cache, *job, config) for job in many])
    print(
        f"cache: {PATIENTS_CACHE} patients in {warm:.2f} s; making one takes {cold:.2f} s, "
        f"ratio {cold / (warm / PATIENTS_CACHE):.0f}"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    bias_correction(Path(sys.argv[1]))
    augmentation()
    warm_cache(Path(sys.argv[1]))
