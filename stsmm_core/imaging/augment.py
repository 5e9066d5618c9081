"""Random geometry for training batches, the same for all channels of a patient."""

import torch
from torch import Tensor
from torch.nn import functional as F

from stsmm_core.config import Augmentation


def augment(batch: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Flip, rotate and zoom each patient of a batch by a draw of its own.

    Flips along H and along W, each with probability 1/2 and without interpolation; then rotation about the depth axis,
    uniform in ±rotation_degrees, and zoom, uniform in 1 ± zoom, together in one trilinear resampling with 0 beyond the
    edges. Voxels are taken as isotropic, as `preprocess_patient` makes them. With all off the batch itself comes back.

    Args:
        batch: shape (patients, channels, D, H, W); it is not altered, and the result lies on its device.
        config: which transforms and how strong.
        generator: the only source of chance; its device need not be the batch's.
    """
    if batch.shape[1] == 0:  # a site without images
        return batch
    # Always the same four draws a patient, so that switching one transform off leaves the others as they were.
    draws = torch.rand(4, len(batch), generator=generator, device=generator.device).to(batch.device)
    flip_height, flip_width = draws[:2] < 0.5
    degrees, growth = (2 * draws[2:] - 1) * torch.tensor(
        [[config.rotation_degrees], [config.zoom]], device=batch.device
    )
    if config.flip:
        batch = flip(batch, flip_height, axis=-2)
        batch = flip(batch, flip_width, axis=-1)
    if config.rotation_degrees > 0 or config.zoom > 0:
        batch = rotate_and_zoom(batch, degrees, 1 + growth)
    return batch


def flip(batch: Tensor, chosen: Tensor, *, axis: int) -> Tensor:
    """Mirror the chosen patients (boolean, shape (patients,)) along an axis of the batch; no interpolation."""
    return torch.where(chosen.view(-1, 1, 1, 1, 1), batch.flip(axis), batch)


def rotate_and_zoom(batch: Tensor, degrees: Tensor, magnification: Tensor) -> Tensor:
    """Rotate each patient about the depth axis and magnify it about the centre, in one trilinear resampling.

    Args:
        batch: shape (patients, channels, D, H, W), isotropic voxels.
        degrees: shape (patients,); positive turns the W axis towards the H axis (90 is `rot90(x, -1, (H, W))`).
        magnification: shape (patients,); above 1 enlarges.
    """
    patients, channels, depth, height, width = batch.shape
    angle = torch.deg2rad(degrees.double())
    scale = magnification.double().reciprocal()
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    # affine_grid asks where each output voxel comes from, in coordinates (x, y) that run from -1 to 1 along either axis
    # whatever its length; hence the inverse rotation, and the ratios that keep it rigid where H and W differ.
    theta = torch.zeros(patients, 2, 3, dtype=torch.float64, device=batch.device)
    theta[:, 0, 0] = cosine
    theta[:, 0, 1] = sine * height / width
    theta[:, 1, 0] = -sine * width / height
    theta[:, 1, 1] = cosine
    # The rotation leaves the depth alone, so the trilinear weights are those of the plane times those of the depth: the
    # planes of a patient share one grid, which costs a quarter of a grid in three dimensions.
    planes = batch.reshape(patients, channels * depth, height, width)
    grid = F.affine_grid(theta.to(batch.dtype), list(planes.shape), align_corners=False)
    planes = F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    weights = _depth_weights(depth, scale).to(batch.dtype)
    return torch.matmul(weights[:, None], planes.view(patients, channels, depth, height * width)).view(batch.shape)


def _depth_weights(depth: int, scale: Tensor) -> Tensor:
    """Weights of the slices in each slice of a depth scaled about its middle, shape (patients, new, old); linear."""
    slices = torch.arange(depth, dtype=scale.dtype, device=scale.device)
    middle = (depth - 1) / 2
    source = (slices - middle) * scale[:, None] + middle
    return (1 - (source[:, :, None] - slices).abs()).clamp(min=0)
