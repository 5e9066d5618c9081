"""N4 bias field correction: the slow shading of an MRI, fitted on a coarse grid, taken out at full resolution."""

import numpy as np
import SimpleITK as sitk

from stsmm_core.config import BiasCorrection
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Volume, from_image, to_image

OTSU_BINS = 200


def correct_bias(volume: Volume, config: BiasCorrection) -> Volume:
    """Divide a volume by its bias field (Tustison et al., IEEE TMI 2010, doi 10.1109/TMI.2010.2046908).

    The field varies slowly, so it is fitted to every `shrink`-th voxel within the foreground (Otsu), to more of them
    along an axis of thick slices, and evaluated at every voxel from its spline. Intensities below 0 have no logarithm
    and are left out of the fit.

    Raises:
        CohortError: when the volume has no foreground.
    """
    image = to_image(volume)
    spacing = np.array(volume.geometry.spacing_mm)
    steps = np.round(config.shrink * spacing.min() / spacing)
    factors = np.clip(steps, 1, volume.geometry.size).astype(int).tolist()
    small = sitk.Shrink(image, factors)
    foreground = sitk.OtsuThreshold(small, 0, 1, OTSU_BINS) * sitk.Cast(small > 0, sitk.sitkUInt8)
    if not sitk.GetArrayViewFromImage(foreground).any():
        raise CohortError("has no voxel above 0, so its bias field cannot be fitted; export the channel again")
    fit = sitk.N4BiasFieldCorrectionImageFilter()
    fit.SetMaximumNumberOfIterations(list(config.iterations))
    fit.SetConvergenceThreshold(config.convergence)
    fit.Execute(small, foreground)
    field = from_image(sitk.Exp(fit.GetLogBiasFieldAsImage(image))).array
    return Volume((volume.array / field).astype(np.float32), volume.geometry)
