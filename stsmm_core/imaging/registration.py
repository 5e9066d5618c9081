"""Rigid registration of one channel of a patient to another."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from stsmm_core.config import Registration
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Geometry, Volume, to_image


@dataclass(frozen=True)
class Motion:
    """How a channel was moved, and how much that helped.

    Attributes:
        information_before, information_after: Mattes mutual information with the fixed volume, in nats; more is better.
        shift_mm: how far the centre of the volume moved.
        turn_degrees: about which angle it turned.
    """

    information_before: float
    information_after: float
    shift_mm: float
    turn_degrees: float


def register(moving: Volume, fixed: Volume, config: Registration) -> tuple[Volume, Motion]:
    """Move `moving` rigidly to the most mutual information with `fixed`, starting from where the headers put it.

    The voxels stay as they are, their grid is turned and shifted: nothing is interpolated yet. On one thread and with
    its seed the result is the same every time.

    Raises:
        CohortError: when the volumes do not overlap.
    """
    fixed_image, moving_image = to_image(fixed), to_image(moving)
    start = sitk.Euler3DTransform()
    start.SetCenter(_centre(fixed.geometry))
    with _one_thread():
        method = _method(config)
        try:
            method.SetInitialTransform(start, inPlace=False)
            before = -method.MetricEvaluate(fixed_image, moving_image)
            path = sitk.CompositeTransform(method.Execute(fixed_image, moving_image))
            found = sitk.Euler3DTransform(path.GetNthTransform(0))
            method.SetInitialTransform(found, inPlace=False)
            after = -method.MetricEvaluate(fixed_image, moving_image)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise CohortError(
                f"cannot be registered ({reason}); check that both channels show the same region"
            ) from None
    # The transform maps points of `fixed` into `moving`; its inverse carries the grid of `moving` along.
    inverse = found.GetInverse()
    origin = inverse.TransformPoint(moving.geometry.origin)
    turn = np.array(inverse.GetMatrix()).reshape(3, 3)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = (turn @ moving.geometry.axes).ravel().tolist()
    direction = (xx, xy, xz, yx, yy, yz, zx, zy, zz)
    geometry = Geometry(moving.geometry.size, moving.geometry.spacing_mm, origin, direction)
    centre = np.array(_centre(moving.geometry))
    return Volume(moving.array, geometry), Motion(
        before,
        after,
        float(np.linalg.norm(np.array(inverse.TransformPoint(centre.tolist())) - centre)),
        float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))),
    )


def _method(config: Registration) -> sitk.ImageRegistrationMethod:
    """Mattes mutual information over three resolutions."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(config.bins)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(config.sampling, config.seed)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=config.iterations, relaxationFactor=0.5
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2.0, 1.0, 0.0])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    return method


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, so that the last digit is the same every time; the metric heeds the global number alone."""
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def _centre(geometry: Geometry) -> tuple[float, float, float]:
    half = (np.array(geometry.size) - 1) / 2 * np.array(geometry.spacing_mm)
    x, y, z = np.array(geometry.origin) + geometry.axes @ half
    return float(x), float(y), float(z)
