"""Volumes with a known content, written with SimpleITK alone so that the code under test has no part in them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

Field = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Grid:
    """A scanner's grid; `centre` is the physical point in its middle."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)

    @property
    def origin(self) -> NDArray[np.float64]:
        reach = (np.array(self.size) - 1) / 2 * np.array(self.spacing)
        return np.array(self.centre) - np.reshape(self.direction, (3, 3)) @ reach

    def points(self) -> NDArray[np.float64]:
        """Physical voxel centres, shape (z, y, x, 3)."""
        z, y, x = np.meshgrid(*(np.arange(n) for n in self.size[::-1]), indexing="ij")
        steps = np.stack([x, y, z], axis=-1) * np.array(self.spacing)
        return self.origin + steps @ np.reshape(self.direction, (3, 3)).T

    def sample(self, field: Field) -> sitk.Image:
        image = sitk.GetImageFromArray(field(self.points()).astype(np.float32))
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin.tolist())
        image.SetDirection(self.direction)
        return image

    def write(self, path: Path, field: Field) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(self.sample(field), str(path))
        return path


def box(size_mm: tuple[float, float, float], centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Field:
    """1 inside an axis-aligned box, else 0."""
    return lambda points: np.all(np.abs(points - np.array(centre)) < np.array(size_mm) / 2, axis=-1).astype(float)


def blob(centre: tuple[float, float, float], sigma: float) -> Field:
    return lambda points: np.exp(-((points - np.array(centre)) ** 2).sum(axis=-1) / (2 * sigma**2))


def ramp(gradient: tuple[float, float, float], offset: float = 0.0) -> Field:
    return lambda points: points @ np.array(gradient) + offset


def rotation(axis: tuple[float, float, float], degrees: float) -> tuple[float, ...]:
    """Direction cosines turned about an axis (Rodrigues)."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    matrix = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return tuple(matrix.ravel().tolist())


@dataclass(frozen=True)
class Phantoms:
    """What the tests draw with (a fixture, because test folders cannot import each other)."""

    grid = Grid
    box = staticmethod(box)
    blob = staticmethod(blob)
    ramp = staticmethod(ramp)
    rotation = staticmethod(rotation)


@pytest.fixture(scope="session")
def phantoms() -> Phantoms:
    return Phantoms()


@pytest.fixture(scope="session")
def sts_public() -> Path:
    """The real T1, PET and masks of 36 patients."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "sts_public"
    if not folder.is_dir():
        pytest.skip("the real data (../shared/data/sts_public) is not beside this checkout")
    return folder


@pytest.fixture
def noise():
    """A channel in which no voxel is 0 after standardising (almost surely)."""
    rng = np.random.default_rng(3)
    return lambda points: rng.normal(100, 20, size=points.shape[:-1])
