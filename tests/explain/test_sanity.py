import copy

import numpy as np
import pytest
import torch

from stsmm_core.explain.grad_cam import Block, dense_blocks, grad_cam, hires_cam
from stsmm_core.explain.sanity import ANOTHER_PATIENT, cascade, randomisation_test, rank_correlations, summarise
from stsmm_core.model.mmnn import ModalityBatch


def test_one_patient_has_no_other_to_compare_with(network, batch):
    alone = {name: ModalityBatch(each.values[:1], each.present[:1]) for name, each in batch.items()}
    yardstick, *_, whole = randomisation_test(network, alone, endpoint=0, block=Block(1), seed=0, method=hires_cam)
    assert (yardstick.mean, yardstick.n, yardstick.patients) == (None, 0, 1)
    assert whole.mean is not None


def test_layers_become_random_from_the_output_to_the_input(network):
    before = copy.deepcopy(network.state_dict())
    changed_parts = []
    for changed in cascade(network, seed=1).values():
        state = changed.state_dict()
        moved = {name for name in before if not torch.equal(before[name], state[name])}
        assert all(name.startswith("encoders.image.") for name in moved)
        changed_parts.append({name.split(".")[3] for name in moved if name.startswith("encoders.image.features.")})
    assert "denseblock3" not in changed_parts[0]
    assert changed_parts[1] == changed_parts[0] | {"denseblock3"}
    assert changed_parts[2] == changed_parts[1] | {"denseblock2", "transition2"}
    assert changed_parts[-1] >= {"conv0", "denseblock1", "denseblock2", "denseblock3"}
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_check_repeats_itself_and_leaves_the_global_draws_alone(network, batch):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = randomisation_test(network, batch, endpoint=0, block=Block(2), seed=3)
    assert torch.equal(torch.rand(1), expected)
    assert first == randomisation_test(network, batch, endpoint=0, block=Block(2), seed=3)
    assert [each.layers for each in first] == [
        ANOTHER_PATIENT,
        "features to output",
        "down to block 3",
        "down to block 2",
        "down to block 1",
        "whole image encoder",
    ]


def test_correlations_of_known_maps():
    rng = np.random.default_rng(0)
    maps = rng.random((3, 4, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(rank_correlations(maps, maps**3), 1)
    np.testing.assert_allclose(rank_correlations(maps, -maps), -1)
    flat = maps.copy()
    flat[1] = 0
    assert np.isnan(rank_correlations(maps, flat)).tolist() == [False, True, False]


def test_the_interval_is_over_the_patients_who_have_a_correlation():
    values = np.array([0.1, 0.2, np.nan, 0.3, 0.6])
    found = summarise("x", values, seed=0)
    assert (found.n, found.patients) == (4, 5)
    assert found.mean == pytest.approx(0.3)
    assert 0.1 < found.low < 0.3 < found.high < 0.6
    nobody = summarise("x", np.full(3, np.nan), seed=0)
    assert (nobody.mean, nobody.low, nobody.high, nobody.n) == (None, None, None, 0)


def test_a_random_network_has_other_maps(network, batch):
    whole = list(cascade(network, seed=1).values())[-1]
    block = dense_blocks(network)[0]
    first, second = (grad_cam(each, batch, endpoint=0, block=block).native for each in (network, whole))
    correlations = rank_correlations(first, second)
    assert np.nanmax(correlations) < 0.9
