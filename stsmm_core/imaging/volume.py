"""A volume is an array with its place in the patient; reading one and resampling it onto another grid."""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from stsmm_core.errors import CohortError

Triple = tuple[float, float, float]
Cosines = tuple[float, float, float, float, float, float, float, float, float]

NO_COSINE = 1e-12
FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))

# Of the NIfTI header: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
NIFTI_SINGLE_FILE = ("1", "4")
NIFTI_FLOATS = {"16": "f4", "64": "f8"}
NIFTI_HEADER_BYTES = (348, 540)
GZIP_MAGIC = b"\x1f\x8b"


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
        CohortError: when the file is missing, unreadable, cut short, not one scalar 3-D volume, or has a voxel that is
            NaN or infinite.
    """
    if not path.is_file():
        raise CohortError(f"{path}: no such file; put the volume there or correct the name")
    try:
        with library_silent():
            image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
        raise CohortError(f"{path}: cannot be read as an image ({reason}); export it again as .nii.gz") from None
    if image.GetDimension() != 3:
        raise CohortError(
            f"{path}: has {image.GetDimension()} dimensions, not 3; give one volume with all slices of one contrast"
        )
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise CohortError(
            f"{path}: has {image.GetPixelIDTypeAsString()} voxels; give a volume with one real number a voxel"
        )
    _check_nifti(path, image)
    volume = from_image(image)
    _check_affine(path, image, volume.geometry)
    _check_finite(path, volume.array)
    return volume


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


def _check_nifti(path: Path, image: sitk.Image) -> None:
    """Refuse what ITK mends in a NIfTI file without a word: it fills up missing voxels and makes NaN and infinity 0."""
    if not image.HasMetaDataKey("nifti_type") or image.GetMetaData("nifti_type") not in NIFTI_SINGLE_FILE:
        return
    content = path.read_bytes()
    if content.startswith(GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise CohortError(
                f"{path}: the compressed file is cut short or damaged; copy it again from its source"
            ) from None
    start = int(float(image.GetMetaData("vox_offset")))
    expected = start + image.GetNumberOfPixels() * int(image.GetMetaData("bitpix")) // 8
    if len(content) < expected:
        raise CohortError(
            f"{path}: is cut short ({len(content)} of {expected} bytes, by its header); copy it again from its source"
        )
    code = NIFTI_FLOATS.get(image.GetMetaData("datatype"))
    if code is not None:
        order = "<" if int.from_bytes(content[:4], "little") in NIFTI_HEADER_BYTES else ">"
        _check_finite(path, np.frombuffer(content[start:expected], dtype=order + code))


def _check_affine(path: Path, image: sitk.Image, geometry: Geometry) -> None:
    """Refuse a NIfTI file whose transforms disagree: ITK goes by the rigid one (qform), others by the affine one."""
    if not image.HasMetaDataKey("sform_code") or int(image.GetMetaData("sform_code")) == 0:
        return
    affine = np.array([[float(cell) for cell in image.GetMetaData(f"srow_{axis}").split()] for axis in "xyz"])
    affine[:2] *= -1  # NIfTI points right and anterior (RAS), ITK left and posterior (LPS)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(geometry.size) - 1)
    rigid = np.array(geometry.origin) + corners * np.array(geometry.spacing_mm) @ geometry.axes.T
    apart = float(np.abs(corners @ affine[:, :3].T + affine[:, 3] - rigid).max())
    if apart > max(geometry.spacing_mm) / 2:
        raise CohortError(
            f"{path}: its two transforms (sform and qform) place the corners up to {apart:.1f} mm apart, so where the "
            "volume lies is not certain; export it again, or resample it onto an orthogonal grid"
        )


def _check_finite(path: Path, values: NDArray[np.floating]) -> None:
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise CohortError(f"{path}: {bad} voxels are NaN or infinite; export it again, or set the background to 0")


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
