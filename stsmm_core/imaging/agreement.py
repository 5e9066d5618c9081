"""How far two readers agree on the outline of one tumour, and on the volume of many."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special, stats

from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Volume

HAUSDORFF_PERCENT = 95
ROUNDING = 1e-12
"""A coefficient this close to 1 is 1: what divides the readers is rounding."""


@dataclass(frozen=True)
class MaskAgreement:
    """Two masks of one tumour.

    Attributes:
        dice: 2 |A and B| / (|A| + |B|).
        mean_surface_mm: mean distance of the voxels of either surface from the other surface.
        hausdorff95_mm: the 95th percentile of those distances, of the two directions the larger.
        volumes_cm3: of the two masks.
    """

    dice: float
    mean_surface_mm: float
    hausdorff95_mm: float
    volumes_cm3: tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % confidence interval; NaN where it cannot be estimated."""

    value: float
    low: float
    high: float


def compare_masks(first: Volume, second: Volume) -> MaskAgreement:
    """Compare two masks on one grid; any voxel that is not 0 belongs to the tumour.

    Raises:
        CohortError: when the grids differ or a mask is empty.
    """
    a, b = first.array != 0, second.array != 0
    same = np.allclose(first.geometry.origin, second.geometry.origin, atol=1e-2) and np.allclose(
        first.geometry.axes * first.geometry.spacing_mm, second.geometry.axes * second.geometry.spacing_mm, atol=1e-3
    )
    if a.shape != b.shape or not same:
        raise CohortError("the two masks lie on different grids; outline the same images")
    if not a.any() or not b.any():
        raise CohortError("a mask is empty; outline the tumour")
    directed = [_from_surface(first, second), _from_surface(second, first)]
    voxel_cm3 = float(np.prod(first.geometry.spacing_mm)) / 1000
    return MaskAgreement(
        dice=float(2 * (a & b).sum() / (a.sum() + b.sum())),
        mean_surface_mm=float(np.concatenate(directed).mean()),
        hausdorff95_mm=max(float(np.percentile(each, HAUSDORFF_PERCENT)) for each in directed),
        volumes_cm3=(float(a.sum()) * voxel_cm3, float(b.sum()) * voxel_cm3),
    )


def intraclass_correlation(ratings: NDArray[np.float64], *, level: float = 0.95) -> Estimate:
    """ICC(A,1): absolute agreement of single readers, two-way random effects (McGraw and Wong 1996, case 2A).

    Args:
        ratings: one row a tumour, one column a reader.

    Returns:
        The coefficient with its F-based interval; NaN with fewer than two tumours or without any variance.
    """
    n, k = ratings.shape
    nothing = Estimate(np.nan, np.nan, np.nan)
    if n < 2:
        return nothing
    grand = ratings.mean()
    rows, columns = ratings.mean(axis=1), ratings.mean(axis=0)
    between = k * ((rows - grand) ** 2).sum() / (n - 1)
    readers = n * ((columns - grand) ** 2).sum() / (k - 1)
    residual = ((ratings - rows[:, None] - columns + grand) ** 2).sum() / ((n - 1) * (k - 1))
    total = between + (k - 1) * residual + k / n * (readers - residual)
    if total <= 0 or between <= 0:
        return nothing
    value = (between - residual) / total
    if 1 - value <= ROUNDING:
        return Estimate(1.0, 1.0, 1.0)
    # Satterthwaite's degrees of freedom of the denominator.
    a, b = k * value / (n * (1 - value)), 1 + k * value * (n - 1) / (n * (1 - value))
    freedom = (a * readers + b * residual) ** 2 / (
        (a * readers) ** 2 / (k - 1) + (b * residual) ** 2 / ((n - 1) * (k - 1))
    )
    upper_f = stats.f.ppf((1 + level) / 2, n - 1, freedom)
    lower_f = stats.f.ppf((1 + level) / 2, freedom, n - 1)
    spread = k * readers + (k * n - k - n) * residual
    low = n * (between - upper_f * residual) / (upper_f * spread + n * between)
    high = n * (lower_f * between - residual) / (spread + n * lower_f * between)
    return Estimate(float(value), float(low), float(high))


def mean_with_interval(values: NDArray[np.float64], *, level: float = 0.95) -> Estimate:
    """Mean of values that are at least 0, and its t interval, cut at 0; NaN with fewer than two values."""
    mean, half = float(values.mean()), _half_width(values, level)
    return Estimate(mean, float(np.maximum(mean - half, 0)), mean + half)


def mean_share_with_interval(values: NDArray[np.float64], *, level: float = 0.95) -> Estimate:
    """Mean of values from 0 to 1, and its t interval on the logit scale, which stays between; NaN with fewer than two.

    The standard error on that scale is the mean's, over mean (1 - mean) (delta method).
    """
    mean, half = float(values.mean()), _half_width(values, level)
    if mean in (0, 1):  # all values are the same: there is no width
        return Estimate(mean, mean - half, mean + half)
    low, high = special.expit(special.logit(mean) + np.array([-1, 1]) * half / (mean * (1 - mean)))
    return Estimate(mean, float(low), float(high))


def _half_width(values: NDArray[np.float64], level: float) -> float:
    """Half of the t interval of a mean."""
    if len(values) < 2:
        return np.nan
    return float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def _from_surface(mask: Volume, other: Volume) -> NDArray[np.float64]:
    """Distance in mm of each voxel of `mask`'s surface from the surface of `other`."""
    surface, target = (each.array.astype(bool) & ~ndimage.binary_erosion(each.array) for each in (mask, other))
    return ndimage.distance_transform_edt(~target, sampling=mask.geometry.spacing_mm[::-1])[surface]
