import builtins

import numpy as np
import pytest
import torch
from torch import nn

from stsmm_core.config import DENSE_BLOCKS, Model
from stsmm_core.errors import RunError
from stsmm_core.explain.grad_cam import Block, HeatMaps, dense_blocks, grad_cam, hires_cam
from stsmm_core.model.image_encoder import build_image_encoder
from stsmm_core.model.mmnn import ModalityBatch, MultimodalNetwork


def by_hand(method, network, batch, block, endpoint, head):
    """A map from its definition, with its sign, by a hook of our own."""
    kept = []
    layer = network.encoders["image"].get_submodule(block.name)
    handle = layer.register_forward_hook(lambda module, given, out: kept.append(out))
    output = network(batch)[head, :, endpoint].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(output, kept[0])
    weights = gradient.mean(dim=(2, 3, 4), keepdim=True) if method is grad_cam else gradient
    return (weights * kept[0]).sum(dim=1).detach().numpy()


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(("head", "endpoint"), [(0, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("method", [grad_cam, hires_cam])
def test_maps_are_those_of_the_definition(network, batch, number, head, endpoint, method):
    block = Block(number)
    maps = method(network, batch, endpoint=endpoint, block=block, head=head, batch_size=3)
    assert maps.native.shape == (4, *(32 // block.step,) * 3)
    expected = by_hand(method, network, batch, block, endpoint, head)
    assert (np.ptp(expected, axis=(1, 2, 3)) > 1e-5).all()
    np.testing.assert_allclose(
        maps.native, np.maximum(expected, 0) if method is grad_cam else np.abs(expected), rtol=1e-4, atol=1e-7
    )


def test_the_same_map_again_and_after_training_mode(network, batch):
    first = grad_cam(network, batch, endpoint=0, block=Block(2)).native
    assert np.array_equal(first, grad_cam(network.train(), batch, endpoint=0, block=Block(2)).native)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_endpoints_have_maps_of_their_own(network, batch):
    maps = [grad_cam(network, batch, endpoint=endpoint, block=Block(2)).native for endpoint in (0, 1)]
    assert not np.allclose(*maps)


def test_a_patient_without_an_image_is_not_explained(network, batch):
    batch["image"] = ModalityBatch(batch["image"].values, torch.tensor([True, True, False, True]))
    with pytest.raises(ValueError, match="without an image"):
        grad_cam(network, batch, endpoint=0, block=Block(1))


@pytest.mark.parametrize(("name", "number"), DENSE_BLOCKS.items())
def test_blocks_of_an_encoder(name, number):
    network = MultimodalNetwork({"image": build_image_encoder(Model(image_encoder=name), 2)}, features=12, endpoints=1)
    assert dense_blocks(network) == tuple(Block(each) for each in range(1, number + 1))


def test_a_network_without_image_encoder_has_no_blocks():
    network = MultimodalNetwork({"clinical": nn.Linear(3, 12)}, features=12, endpoints=1)
    with pytest.raises(RunError, match="no image encoder"):
        dense_blocks(network)


@pytest.mark.parametrize(
    ("name", "number"),
    [("small_densenet", 1), ("small_densenet", 2), ("small_densenet", 3), ("fine_densenet", 1), ("fine_densenet", 2)],
)
def test_block_voxels_lie_where_they_look(name, number):
    """The centre of what a voxel sees, by the gradient of a network in which every input counts the same way."""
    encoder = build_image_encoder(Model(image_encoder=name), 1).eval()
    encoder.features.pool0 = nn.AvgPool3d(3, 2, 1)  # same place as the maximum, and smooth
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                parameter.fill_(1 / parameter[0].numel())
    side, block = 128, Block(number)
    image = torch.ones(1, 1, side, 1, 1, requires_grad=True)
    kept = []
    encoder.get_submodule(block.name).register_forward_hook(lambda module, given, out: kept.append(out))
    # One row of voxels along depth would vanish in the pools of the other axes: repeat it to a small block.
    encoder.features(image.expand(1, 1, side, 32, 32))
    voxel = side // block.step // 2
    (gradient,) = torch.autograd.grad(kept[0][0, 0, voxel].sum(), image)
    weights = gradient[0, 0, :, 0, 0].double()
    centre = float((weights * torch.arange(side)).sum() / weights.sum())
    assert centre == pytest.approx(block.start + block.step * voxel, abs=1e-3)


def test_upsampling_is_exact_on_a_ramp():
    block = Block(2)
    ramp = np.arange(4, dtype=np.float32)[:, None, None] + np.zeros((4, 4, 4), dtype=np.float32)
    maps = HeatMaps(block, ramp[None], (32, 32, 32))
    along = maps.upsampled(0)[:, 5, 7]
    expected = np.clip((np.arange(32) - block.start) / block.step, 0, 3)
    np.testing.assert_allclose(along, expected, atol=1e-6)


def test_without_captum_the_remedy_is_said(network, batch, monkeypatch):
    original = builtins.__import__

    def refuse(name, *arguments, **settings):
        if name.startswith("captum"):
            raise ImportError(name)
        return original(name, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(RunError, match=r"pip install '\.\[compare\]'"):
        grad_cam(network, batch, endpoint=0, block=Block(1))
