"""Virtual centres whose images come as through scanners of their own.

Each changes what z-scoring within the tumour does not undo: the contrast curve (gamma), sharpness, noise, and a slow
shading. The centre becomes a cohort folder of its own, so that all that follows, N4 and registration too, is unchanged.
The source is only read.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from simulation.sheet import read_rows
from stsmm_core.cohort.acquisition import ACQUISITION_FILE
from stsmm_core.cohort.cohort import CLINICAL_FILE, IMAGES_FOLDER, ORACLE_FILE, Cohort, write_cohort_tables
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Volume, read_volume, to_image
from stsmm_core.seeds import generator

GAMMA = 1.8
"""The strongest contrast curve is intensity^1.8, the weakest its inverse."""
BLUR_MM = 1.5
"""Standard deviation of the widest Gaussian."""
NOISE = 0.10
"""Strongest noise, as a share of the volume's range of intensities."""
SHADING = 0.4
"""Strongest shading: the logarithm of the gain changes by so much from the volume's centre to its border."""
TOP_PERCENT = 99.5
"""Percentile that ends the range of intensities, which begins at the least."""


@dataclass(frozen=True)
class Scanner:
    """How a scanner differs from the one that took the images; the default does not.

    Attributes:
        gamma: exponent of the intensities within their range.
        blur_mm: standard deviation of a Gaussian blur.
        noise: standard deviation of Rician noise (Gudbjartsson and Patz 1995), as a share of the range.
        shading: s of a gain exp(s x), x from -1 to 1 between the volume's borders along `direction`.
        direction: unit vector along x, y, z of the grid.
    """

    gamma: float = 1.0
    blur_mm: float = 0.0
    noise: float = 0.0
    shading: float = 0.0
    direction: tuple[float, float, float] = (1.0, 0.0, 0.0)


def draw_scanners(centres: int, *, strength: float, seed: int) -> list[Scanner]:
    """A scanner a centre: each property at even steps over its range, dealt to the centres at random.

    Args:
        strength: 1 for the full ranges; 0 leaves every image as it is.
    """
    rng = generator(seed, "scanners")

    def dealt(low: float, high: float) -> list[float]:
        middle = (low + high) / 2 if centres == 1 else None
        steps = [middle] if middle is not None else np.linspace(low, high, centres)
        return [float(value) * strength for value in rng.permutation(np.array(steps))]

    curves, blurs, noises, shades = dealt(-1, 1), dealt(0, BLUR_MM), dealt(0, NOISE), dealt(-SHADING, SHADING)
    directions = rng.normal(size=(centres, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return [
        Scanner(GAMMA**curve, blur, noise, shade, (float(x), float(y), float(z)))
        for curve, blur, noise, shade, (x, y, z) in zip(curves, blurs, noises, shades, directions, strict=True)
    ]


def through_scanner(volume: Volume, scanner: Scanner, rng: np.random.Generator) -> Volume:
    """The volume as the scanner would have taken it, on the same grid."""
    array = volume.array.astype(np.float64)
    least = array.min()
    high = np.percentile(array, TOP_PERCENT)
    scale = max(high, least + np.finfo(np.float32).eps) - least
    signal = ((array - least) / scale) ** scanner.gamma
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in array.shape), indexing="ij")
    along = scanner.direction[0] * x + scanner.direction[1] * y + scanner.direction[2] * z
    signal *= np.exp(scanner.shading * along)
    signal = gaussian_filter(signal, scanner.blur_mm / np.array(volume.geometry.spacing_mm[::-1]), mode="nearest")
    if scanner.noise > 0:
        real, imaginary = scanner.noise * rng.standard_normal((2, *signal.shape))
        signal = np.hypot(signal + real, imaginary)
    return Volume((least + scale * signal).astype(np.float32), volume.geometry)


def shift_scanners(
    centres: Sequence[Cohort], out: Path, *, strength: float, seed: int, advance: Callable[[], None] = lambda: None
) -> list[Cohort]:
    """Write each centre as a cohort folder out/SITE with its images through a scanner of its own.

    A folder that is there is whole and taken as it is.

    Args:
        advance: called once a patient, for a progress bar.

    Raises:
        CohortError: when nobody has an image.
    """
    if not any(centre.has_image(patient) for centre in centres for patient in centre.patients):
        raise CohortError("--partition scanner changes images, but no patient has one; choose another partition")
    scanners = draw_scanners(len(centres), strength=strength, seed=seed)
    shifted = []
    for centre, scanner in zip(centres, scanners, strict=True):
        target = out / centre.manifest.site
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
                built = Path(scratch) / "cohort"
                _write_centre(centre, built, scanner, seed=seed, advance=advance)
                built.chmod(0o700)  # images of patients
                built.rename(target)
        shifted.append(replace(centre, root=target))
    return shifted


def _write_centre(centre: Cohort, root: Path, scanner: Scanner, *, seed: int, advance: Callable[[], None]) -> None:
    write_cohort_tables(root, centre.manifest, read_rows(centre, CLINICAL_FILE))
    for name in (ACQUISITION_FILE, ORACLE_FILE):
        if (centre.root / name).is_file():
            read_rows(centre, name).to_csv(root / name, index=False, encoding="utf-8", lineterminator="\n")
    for patient in centre.patients:
        source = centre.root / IMAGES_FOLDER / patient
        if source.is_dir():
            _write_images(source, root / IMAGES_FOLDER / patient, centre, scanner, seed=seed)
        advance()


def _write_images(source: Path, target: Path, centre: Cohort, scanner: Scanner, *, seed: int) -> None:
    target.mkdir(parents=True)
    volumes = {f"{channel}.nii.gz": channel for channel in centre.manifest.channels}
    for file in sorted(path for path in source.iterdir() if path.is_file()):
        if file.name not in volumes:
            shutil.copyfile(file, target / file.name)
            continue
        rng = generator(seed, "scanner noise", centre.manifest.site, source.name, volumes[file.name])
        sitk.WriteImage(to_image(through_scanner(read_volume(file), scanner, rng)), str(target / file.name))
