"""Images of a synthetic tumour: two channels on their own grids and the mask, in one physical space."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation
from scipy.special import expit

Array = NDArray[np.float64]

CHANNELS = ("t1", "t2")
TUMOUR_SIGNAL = 1.0
"""Signal of the viable tumour in both channels; every other signal is relative to it."""
CORE_SIGNAL = {"t1": 0.3, "t2": 1.7}
"""Necrosis does not enhance (dark in contrast T1) and is fluid (bright in T2)."""
EDGE = 0.04
"""Width of the tumour's and the core's border, relative to the radius."""
DENTS, DENT_DEPTH = 5, 0.05
"""Waves that dent the ellipsoid, and the height of each relative to the radius."""
TISSUE_SD = 0.06
"""Unevenness of the tissue around the tumour."""
LEAST_NOISE = 0.01
"""Standard deviation, relative to the tumour's signal, of the best scanner there is."""
FIELD_KNOTS, FIELD_SMOOTHING, FIELD_REACH = 22, 1.5, 1.5
"""Lattice of a random field: knots an axis, smoothing in knots, and the half-width it covers."""


@dataclass(frozen=True)
class Scanner:
    """How a site's scanner turns tissue into intensities; each entry is for (t1, t2).

    Attributes:
        gain: intensity units of the tumour's signal.
        offset: intensity of no signal.
        noise: standard deviation, relative to the tumour's signal.
        background: signal of the tissue around the tumour.
    """

    gain: tuple[float, float]
    offset: tuple[float, float]
    noise: tuple[float, float]
    background: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator, *, shift: float = 1.0) -> "Scanner":
        """A random scanner; `shift` widens what no z-score undoes, the range of noise and background."""

        def pair(low: float, high: float, widened: float = 1.0) -> tuple[float, float]:
            drawn = rng.uniform(low, high, 2)
            first, second = np.maximum(drawn + (widened - 1) * (drawn - (low + high) / 2), LEAST_NOISE)
            return float(first), float(second)

        return cls(
            gain=pair(300, 900),
            offset=pair(50, 200),
            noise=pair(0.03, 0.06, shift),
            background=pair(0.35, 0.45, shift),
        )


@dataclass(frozen=True)
class Tumour:
    """What the images of a patient must show.

    Attributes:
        size_mm: largest diameter before the surface is dented.
        middle_axis: second diameter relative to the largest.
        short_axis: third diameter relative to the largest.
        heterogeneity: latent, standardised, within ±2.5: strength of the texture of the viable tumour.
        core: latent, standardised, within ±2.5: share of the volume that is necrotic.
    """

    size_mm: float
    middle_axis: float
    short_axis: float
    heterogeneity: float
    core: float

    @property
    def texture_sd(self) -> float:
        """Standard deviation of the viable tumour's signal, 0.02 to 0.42."""
        return 0.22 + 0.08 * self.heterogeneity

    @property
    def core_share(self) -> float:
        """Necrotic share of the volume, 0.025 to 0.375."""
        return 0.2 + 0.07 * self.core


@dataclass(frozen=True)
class MaskMeasures:
    """What a reader would write in the sheet: largest distance of two mask voxels (cm) and volume (cm³)."""

    size_cm: float
    volume_cm3: float


@dataclass(frozen=True)
class _Grid:
    """An axis-aligned grid: voxels, spacing and first voxel centre (mm) along x, y, z."""

    voxels: tuple[int, int, int]
    spacing: Array
    origin: Array

    def points(self) -> Array:
        """Voxel centres in mm, shape (z, y, x, 3)."""
        x, y, z = (self.origin[a] + self.spacing[a] * np.arange(self.voxels[a]) for a in range(3))
        planes, rows, columns = np.meshgrid(z, y, x, indexing="ij")
        return np.stack([columns, rows, planes], axis=-1)

    def image(self, voxels: NDArray[np.int16] | NDArray[np.uint8]) -> sitk.Image:
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing(self.spacing.tolist())
        image.SetOrigin(self.origin.tolist())
        return image


@dataclass(frozen=True)
class _Surface:
    """A dented, tilted ellipsoid: `radius` is 0 at its centre, 1 on its surface, and without dents far outside."""

    centre: Array
    rotation: Rotation
    semi_axes: Array
    waves: Array
    phases: Array

    def coordinates(self, points: Array) -> Array:
        """Points (…, 3) in units of the semi-axes, along the tumour's own axes."""
        moved = (points - self.centre).reshape(-1, 3) @ self.rotation.as_matrix()
        return (moved / self.semi_axes).reshape(points.shape)

    def radius(self, coordinates: Array) -> Array:
        radius = np.sqrt(np.einsum("...i,...i", coordinates, coordinates))
        near = radius < 2
        direction = coordinates[near] / np.maximum(radius[near], 1e-9)[:, None]
        radius[near] /= 1 + DENT_DEPTH * np.sin(direction @ self.waves + self.phases).sum(axis=-1)
        return radius


def write_patient_images(folder: Path, tumour: Tumour, scanner: Scanner, rng: np.random.Generator) -> MaskMeasures:
    """Write t1.nii.gz, t2.nii.gz (int16) and t1_mask.nii.gz (uint8) into a new folder.

    The field of view grows with the tumour, so that small and large show their texture in nearly as many voxels.
    """
    grids, surface = _place(tumour, rng)
    texture, tissue = _random_field(rng), _random_field(rng)
    # The surface is star-shaped about its centre: the points of radius < r hold r³ of its volume.
    core_radius = tumour.core_share ** (1 / 3)
    coordinates = {channel: surface.coordinates(grid.points()) for channel, grid in grids.items()}
    radius = {channel: surface.radius(points) for channel, points in coordinates.items()}
    inside = radius[CHANNELS[0]] < 1
    # Standardised over the viable tumour of this patient, so that the image shows the latent strength itself.
    drawn = _sample(texture, coordinates[CHANNELS[0]][inside & (radius[CHANNELS[0]] > core_radius)])
    mean, sd = drawn.mean(), drawn.std()

    folder.mkdir(parents=True)
    for index, channel in enumerate(CHANNELS):
        signal = scanner.background[index] + TISSUE_SD * _sample(tissue, coordinates[channel])
        near = radius[channel] < 1 + 12 * EDGE
        pattern = (_sample(texture, coordinates[channel][near]) - mean) / sd
        core = _filled(radius[channel][near] / core_radius)
        tumour_signal = core * CORE_SIGNAL[channel] + (1 - core) * (TUMOUR_SIGNAL + tumour.texture_sd * pattern)
        weight = _filled(radius[channel][near])
        signal[near] = weight * tumour_signal + (1 - weight) * signal[near]
        noisy = signal + scanner.noise[index] * rng.standard_normal(signal.shape)
        # At least 1: bias correction takes logarithms.
        intensity = np.maximum(scanner.offset[index] + scanner.gain[index] * noisy, 1).round().astype(np.int16)
        sitk.WriteImage(grids[channel].image(intensity), str(folder / f"{channel}.nii.gz"))
    mask = grids[CHANNELS[0]].image(inside.astype(np.uint8))
    sitk.WriteImage(mask, str(folder / f"{CHANNELS[0]}_mask.nii.gz"))
    return _measure(inside, grids[CHANNELS[0]])


def _place(tumour: Tumour, rng: np.random.Generator) -> tuple[dict[str, _Grid], _Surface]:
    """Both grids and the tumour, its long axis near z (along the limb), wholly within both fields of view."""
    # Dents and tilt reach at most 0.6 of the size in plane and 0.625 along z; the centre moves by 2 % of the field.
    field = np.array([1.2 * tumour.size_mm + 15, 1.2 * tumour.size_mm + 15, 1.3 * tumour.size_mm + 15])
    in_plane = int(rng.integers(32, 41))
    spacing = np.round(field[0] / in_plane * np.array([1.0, 1.0, 2.0]), 3)
    corner = np.round(rng.uniform(-150, 150, 3), 2)
    t1 = _Grid((in_plane, in_plane, int(np.ceil(field[2] / spacing[2]))), spacing, corner)
    # T2 is coarser in plane and covers the field of T1, starting a part of a voxel before it.
    coarser = np.round(spacing * np.array([1.15, 1.15, 1.0]), 3)
    start = np.round(corner - coarser * rng.uniform(0.1, 0.9, 3), 3)
    rows = int(np.ceil(in_plane / 1.15)) + 1
    t2 = _Grid((rows, rows, t1.voxels[2] + 1), coarser, start)
    surface = _Surface(
        centre=corner + field / 2 + rng.uniform(-0.02, 0.02, 3) * field,
        rotation=Rotation.from_euler("xyz", rng.uniform(-20, 20, 3), degrees=True),
        semi_axes=tumour.size_mm / 2 * np.array([tumour.short_axis, tumour.middle_axis, 1.0]),
        waves=rng.normal(0, 2.5, (3, DENTS)),
        phases=rng.uniform(0, 2 * np.pi, DENTS),
    )
    return dict(zip(CHANNELS, (t1, t2), strict=True)), surface


def _random_field(rng: np.random.Generator) -> Array:
    """A smooth random field on a lattice in the tumour's own coordinates, standard deviation 1."""
    field = gaussian_filter(rng.standard_normal((FIELD_KNOTS,) * 3), FIELD_SMOOTHING, mode="wrap")
    return field / field.std()


def _sample(field: Array, coordinates: Array) -> Array:
    """The field at points (…, 3); it repeats itself beyond its reach, which is outside the tumour."""
    knots = (coordinates / FIELD_REACH + 1) / 2 * FIELD_KNOTS
    return map_coordinates(field, np.moveaxis(knots, -1, 0), order=1, mode="grid-wrap")


def _filled(radius: Array) -> Array:
    """1 well inside radius 1, 0 well outside, one half on it."""
    return expit((1 - radius) / EDGE)


def _measure(inside: NDArray[np.bool_], grid: _Grid) -> MaskMeasures:
    corners = grid.points()[inside]
    corners = corners[ConvexHull(corners).vertices]
    return MaskMeasures(
        size_cm=float(pdist(corners).max()) / 10, volume_cm3=float(inside.sum() * grid.spacing.prod()) / 1000
    )
