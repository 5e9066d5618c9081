import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stsmm_core.config import Augmentation
from stsmm_core.imaging.augment import augment, flip, rotate_and_zoom

OFF = Augmentation(flip=False, rotation_degrees=0, zoom=0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_batch(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(1000 + seed))


def test_off_is_the_same_batch():
    batch = random_batch(3, 2, 4, 5, 6)
    kept = batch.clone()
    result = augment(batch, OFF, seeded())
    assert torch.equal(result, kept)


def test_flips_are_exact_and_independent():
    """Every patient is one of the four mirror images along H and W, to the bit; D is never turned over."""
    batch = random_batch(200, 2, 3, 5, 7)
    result = augment(batch, Augmentation(flip=True, rotation_degrees=0, zoom=0), seeded())
    counts = []
    for axes in ([], [-2], [-1], [-2, -1]):
        counts.append(sum(torch.equal(a, b.flip(axes)) for a, b in zip(result, batch, strict=True)))
    assert sum(counts) == 200
    # Binomial(200, 1/4): 25 to 75 is four standard deviations.
    assert all(25 < count < 75 for count in counts)


def test_flip_turns_only_the_chosen():
    batch = random_batch(2, 1, 2, 3, 4)
    result = flip(batch, torch.tensor([True, False]), axis=-1)
    assert torch.equal(result[0], batch[0].flip(-1))
    assert torch.equal(result[1], batch[1])


def test_same_seed_same_result_other_seed_another():
    batch = random_batch(4, 2, 8, 8, 8)
    config = Augmentation()
    assert torch.equal(augment(batch, config, seeded(1)), augment(batch, config, seeded(1)))
    assert not torch.equal(augment(batch, config, seeded(1)), augment(batch, config, seeded(2)))


def test_no_other_source_of_chance_and_input_untouched():
    batch = random_batch(4, 2, 8, 8, 8)
    kept, state = batch.clone(), torch.random.get_rng_state()
    augment(batch, Augmentation(), seeded())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(batch, kept)


def test_each_patient_its_own_draw():
    batch = random_batch(1, 1, 8, 8, 8).expand(6, -1, -1, -1, -1)
    result = augment(batch, Augmentation(flip=False), seeded())
    for one in range(6):
        for other in range(one):
            assert not torch.allclose(result[one], result[other], atol=1e-3)


def test_one_transform_does_not_shift_the_draws_of_another():
    batch = random_batch(30, 1, 2, 6, 6)
    flips = augment(batch, Augmentation(flip=True, rotation_degrees=0, zoom=0), seeded(5))
    all_on = augment(flips, Augmentation(flip=False, rotation_degrees=20, zoom=0.2), seeded(5))
    assert torch.equal(augment(batch, Augmentation(flip=True, rotation_degrees=20, zoom=0.2), seeded(5)), all_on)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), *[st.integers(3, 9)] * 3),
    seed=st.integers(0, 2**31),
    degrees=st.floats(0, 180),
    zoom=st.floats(0, 0.9),
)
def test_channels_and_mask_stay_aligned(shape, seed, degrees, zoom):
    """A channel that is a linear function of another before is so after; a mask covers what it covered."""
    patients, *space = shape
    first = random_batch(patients, 1, *space, seed=seed % 1000)
    mask = (first > 0.5).float()
    batch = torch.cat([first, -3 * first, mask, first + 2 * mask], dim=1)
    result = augment(batch, Augmentation(flip=True, rotation_degrees=degrees, zoom=zoom), seeded(seed))
    assert result.shape == batch.shape
    assert torch.isfinite(result).all()
    torch.testing.assert_close(result[:, 1], -3 * result[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result[:, 3], result[:, 0] + 2 * result[:, 2], atol=1e-5, rtol=1e-5)
    assert result[:, 2].min() >= 0
    assert result[:, 2].max() <= 1 + 1e-5


def letter():
    """An L in the middle of an otherwise empty volume, shape (1, 1, 3, 8, 12): H and W differ."""
    volume = torch.zeros(1, 1, 3, 8, 12)
    volume[..., 2:6, 4] = 1
    volume[..., 5, 4:7] = 2
    return volume


@pytest.mark.parametrize(("degrees", "quarter_turns"), [(0, 0), (90, -1), (-90, 1), (180, 2)])
def test_degrees(degrees, quarter_turns):
    """90 is a right angle, exactly, in a volume that is wider than high."""
    turned = rotate_and_zoom(letter(), torch.tensor([float(degrees)]), torch.ones(1))
    expected = torch.zeros_like(letter())
    expected[..., 2:10] = torch.rot90(letter()[..., 2:10], quarter_turns, (-2, -1))
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)


def test_right_angle_of_a_random_cube_is_exact():
    batch = random_batch(2, 2, 16, 16, 16)
    turned = rotate_and_zoom(batch, torch.tensor([90.0, 180.0]), torch.ones(2))
    torch.testing.assert_close(turned[0], torch.rot90(batch[0], -1, (-2, -1)), atol=1e-4, rtol=0)
    torch.testing.assert_close(turned[1], torch.rot90(batch[1], 2, (-2, -1)), atol=1e-4, rtol=0)


def test_zoom_enlarges_all_three_axes_about_the_centre():
    batch = torch.zeros(1, 1, 16, 24, 32)
    batch[..., 6:10, 9:15, 12:20] = 1
    result = rotate_and_zoom(batch, torch.zeros(1), torch.tensor([2.0]))
    assert result.sum().item() == pytest.approx(8 * 4 * 6 * 8, rel=0.02)
    inside = (result[0, 0] > 0.5).nonzero()
    assert inside.min(dim=0).values.tolist() == [4, 6, 8]
    assert inside.max(dim=0).values.tolist() == [11, 17, 23]
    smaller = rotate_and_zoom(result, torch.zeros(1), torch.tensor([0.5]))
    assert smaller.sum().item() == pytest.approx(4 * 6 * 8, rel=0.05)


def test_draws_cover_the_configured_range_and_no_more():
    """Angle and magnification read back from what becomes of the ramps x, y and z in the middle of the volume."""
    ramps = torch.stack(torch.meshgrid(*[torch.arange(12.0)] * 3, indexing="ij"))
    batch = ramps.expand(300, -1, -1, -1, -1)
    result = augment(batch, Augmentation(flip=False, rotation_degrees=15, zoom=0.1), seeded(3)).double()
    middle = result[:, :, 5:7, 5:7, 5:7]
    along_height = (middle[..., 1, :] - middle[..., 0, :]).mean(dim=(-1, -2))
    along_width = (middle[..., 1] - middle[..., 0]).mean(dim=(-1, -2))
    along_depth = (middle[:, :, 1] - middle[:, :, 0]).mean(dim=(-1, -2))
    degrees = torch.atan2(along_height[:, 2], along_width[:, 2]) * 180 / math.pi
    magnification = 1 / torch.hypot(along_height[:, 2], along_width[:, 2])
    for draws, centre, reach in ((degrees, 0.0, 15.0), (magnification, 1.0, 0.1)):
        assert (draws - centre).abs().max() <= reach * 1.01
        # Uniform: the extremes of 300 draws come close to the bounds, and the SD is reach / sqrt(3).
        assert draws.max() > centre + 0.95 * reach
        assert draws.min() < centre - 0.95 * reach
        assert draws.std() == pytest.approx(reach / math.sqrt(3), rel=0.1)
    torch.testing.assert_close(1 / along_depth[:, 0], magnification, atol=1e-3, rtol=0)
    assert along_depth[:, 1:].abs().max() < 1e-4


def test_zero_beyond_the_edges():
    result = rotate_and_zoom(torch.ones(1, 1, 8, 8, 8), torch.tensor([45.0]), torch.tensor([0.5]))
    assert result[0, 0, 0].abs().max() == 0
    assert result[0, 0, 4, 0, 0] == 0
    assert result[0, 0, 4, 4, 4].item() == pytest.approx(1)


def test_double_precision_is_kept():
    batch = random_batch(2, 1, 6, 6, 6).double()
    assert augment(batch, Augmentation(), seeded()).dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_what_the_cpu_gives():
    batch = random_batch(4, 2, 16, 16, 16)
    on_gpu = augment(batch.cuda(), Augmentation(), seeded(9))
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), augment(batch, Augmentation(), seeded(9)), atol=1e-4, rtol=0)


def test_a_site_without_images_has_nothing_to_turn():
    batch = torch.zeros(3, 0, 8, 8, 8)
    assert augment(batch, Augmentation(), torch.Generator().manual_seed(0)) is batch
