"""A volume is an array with its place in the patient; reading one and resampling it onto another grid."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from stsmm_core.errors import CohortError
from stsmm_core.imaging.nifti import nifti_content, place_faults, stored_reals

Triple = tuple[float, float, float]
Cosines = tuple[float, float, float, float, float, float, float, float, float]

NO_COSINE = 1e-12
FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))


@dataclass(frozen=True)
class Geometry:
    """A grid of voxels in the patient's physical space (LPS, as SimpleITK has it).

    Attributes:
        size: voxels along x, y, z (an array on this grid has the reverse shape).
        spacing_mm: distance of neighbouring voxel centres along x, y, z.
        origin: centre of voxel (0, 0, 0), mm.
        direction: direction cosines, row by row; column j is the unit vector of axis j.
    """

    size: tuple[int, int, int]
    spacing_mm: Triple
    origin: Triple
    direction: Cosines

    @property
    def axes(self) -> NDArray[np.float64]:
        """Direction cosines as a matrix, shape (3, 3), one axis a column."""
        return np.array(self.direction).reshape(3, 3)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxel values (z, y, x) on a grid."""

    array: NDArray[np.float32]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.size[::-1]:
            raise ValueError(f"an array of shape {self.array.shape} does not fit a grid of size {self.geometry.size}")


def read_volume(path: Path) -> Volume:
    """Read a scalar 3-D volume (NIfTI, or another format that SimpleITK knows).

    Raises:
        CohortError: with every fault that `inspect_volume` finds.
    """
    volume, faults = inspect_volume(path)
    if volume is None or faults:
        raise CohortError(f"{path}: {'; '.join(faults)}")
    return volume


def inspect_volume(path: Path) -> tuple[Volume | None, list[str]]:
    """A volume and all that is wrong with its file, without the file's name; None where it cannot be read.

    Faulty is a file that is missing, unreadable, cut short, not one scalar 3-D volume, or has a voxel that is NaN or
    infinite; and a NIfTI file that does not say where the volume lies, or says it twice and differently.
    """
    try:
        image = _read_image(path)
        content = nifti_content(path, image)
    except CohortError as error:
        return None, [str(error)]
    volume = from_image(image)
    if content is None:
        return volume, _finite_faults(volume.array)
    return volume, place_faults(content, image) + (
        # ITK makes NaN and infinity 0; a number too large for 32 bits becomes infinite here.
        _finite_faults(stored_reals(content, image)) or _finite_faults(volume.array)
    )


@contextmanager
def library_silent() -> Iterator[None]:
    """Keep SimpleITK's warnings from the terminal: they go past Python, and quote paths that may name a patient."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def resample(volume: Volume, grid: Geometry, *, interpolation: Literal["linear", "nearest"]) -> Volume:
    """Read a volume off at the voxel centres of another grid, in physical space.

    `linear` gives NaN outside the volume's field of view (which ends half a voxel beyond the outermost centres). Where
    the grid is coarser than the volume it smooths first, so that detail finer than the new voxels does not alias: along
    each axis of the volume a Gaussian of sigma = sqrt(new² - old²) / 2.355 mm. It widens a point spread whose full
    width at half maximum is an old voxel to that of a new one (Cardoso et al., MICCAI 2015, doi
    10.1007/978-3-319-24571-3_81) and fades to nothing where the spacings agree. `nearest` keeps labels as they are,
    without smoothing, and gives 0 outside.
    """
    image = to_image(volume)
    if interpolation == "linear":
        sigmas = _smoothing_sigmas_mm(volume.geometry, grid)
        if sigmas.any():
            # The kernel ends by itself where its tail falls below the error; the cap only has to be out of the way.
            cap = 2 * max(volume.geometry.size) + 1
            image = sitk.DiscreteGaussian(image, (sigmas**2).tolist(), cap, 0.01, True)
    resampled = sitk.Resample(
        image,
        grid.size,
        sitk.Transform(3, sitk.sitkIdentity),
        {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}[interpolation],
        grid.origin,
        grid.spacing_mm,
        _exact_zeros(grid.direction),
        math.nan if interpolation == "linear" else 0.0,
        sitk.sitkFloat32,
    )
    return Volume(sitk.GetArrayFromImage(resampled), grid)


def to_image(volume: Volume) -> sitk.Image:
    """The volume as a SimpleITK image (values copied)."""
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.geometry.spacing_mm)
    image.SetOrigin(volume.geometry.origin)
    image.SetDirection(_exact_zeros(volume.geometry.direction))
    return image


def from_image(image: sitk.Image) -> Volume:
    """A scalar 3-D SimpleITK image as a volume (values copied)."""
    geometry = Geometry(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return Volume(sitk.GetArrayFromImage(image).astype(np.float32), geometry)


def _read_image(path: Path) -> sitk.Image:
    """Read one scalar 3-D image.

    Raises:
        CohortError: without the file's name.
    """
    if not path.is_file():
        raise CohortError("no such file; put the volume there or correct the name")
    # Of a file that calls itself NIfTI nothing else is believed.
    reader = "NiftiImageIO" if path.name.endswith((".nii", ".nii.gz")) else ""
    try:
        with library_silent():
            image = sitk.ReadImage(str(path), imageIO=reader)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ").replace(str(path), "the file")
        raise CohortError(f"cannot be read as an image ({reason}); export it again as .nii.gz") from None
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise CohortError(f"has {image.GetPixelIDTypeAsString()} voxels; give a volume with one real number a voxel")
    if image.GetDimension() != 3 or min(image.GetSize()) < 2:
        size = " x ".join(str(length) for length in image.GetSize())
        raise CohortError(f"is not 3D ({size} voxels); give one volume with all slices of one contrast")
    return image


def _finite_faults(values: NDArray[np.floating]) -> list[str]:
    bad = int((~np.isfinite(values)).sum())
    if not bad:
        return []
    return [f"{bad} of {values.size} voxels are NaN or infinite; export it again, or set the background to 0"]


def _exact_zeros(direction: Cosines) -> list[float]:
    """The cosines, 0 where rounding left next to nothing: ITK fails to invert a matrix with subnormal numbers."""
    return [cosine if abs(cosine) > NO_COSINE else 0.0 for cosine in direction]


def _smoothing_sigmas_mm(source: Geometry, grid: Geometry) -> NDArray[np.float64]:
    """Anti-aliasing widths along the source's axes x, y, z; see `resample`."""
    old = np.array(source.spacing_mm)
    # A grid turned against the source has its step along a source axis mixed from all its own.
    new_squared = (source.axes.T @ grid.axes) ** 2 @ np.array(grid.spacing_mm) ** 2
    excess = np.where(new_squared > old**2 * (1 + 1e-6), new_squared - old**2, 0.0)
    return np.sqrt(excess) / FWHM_PER_SIGMA
