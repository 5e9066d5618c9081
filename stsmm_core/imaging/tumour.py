"""Size of a tumour, from its mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Volume

FLAT_MM = 1e-6
"""Points that deviate less than this from a plane, a line or a point lie on it."""


@dataclass(frozen=True)
class TumourSize:
    """The two sizes among the clinical variables.

    Attributes:
        volume_cm3: number of tumour voxels times the volume of one.
        size_cm: largest distance of two tumour voxels in three dimensions, centre to centre.
    """

    volume_cm3: float
    size_cm: float


def tumour_size(mask: Volume) -> TumourSize:
    """Measure a tumour; any voxel that is not 0 belongs to it, separate parts count as one tumour.

    A flat mask (one slice, one row, one voxel) is measured within its plane or line; a single voxel has size 0.

    Raises:
        CohortError: when the mask is empty.
    """
    tumour = mask.array != 0
    if not tumour.any():
        raise CohortError("the tumour mask is empty (all voxels 0), so it has no size; draw the tumour")
    spacing = np.array(mask.geometry.spacing_mm)
    boundary = tumour & ~ndimage.binary_erosion(tumour)
    points = np.argwhere(boundary)[:, ::-1] * spacing
    return TumourSize(volume_cm3=float(tumour.sum() * spacing.prod() / 1000), size_cm=_largest_distance(points) / 10)


def _largest_distance(points: NDArray[np.float64]) -> float:
    """Largest distance of two of the points (n, 3): always one between corners of their convex hull."""
    centred = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    turned = centred @ axes
    # A hull needs a body: leave out the directions in which the points have no extent.
    spread = turned[:, np.ptp(turned, axis=0) > FLAT_MM]
    match spread.shape[1]:
        case 0:
            return 0.0
        case 1:
            return float(np.ptp(spread))
        case _:
            return float(pdist(spread[ConvexHull(spread).vertices]).max())
