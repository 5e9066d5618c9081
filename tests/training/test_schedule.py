import warnings

import numpy as np
import pytest
import torch

from stsmm_core.training.schedule import WARM_UP, learning_rate

PEAK = 5e-4


def rates_of_torch(steps):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=PEAK, total_steps=steps, cycle_momentum=False)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimiser step: only the rates are wanted
        for step in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            if step < steps - 1:
                scheduler.step()
    return np.array(rates)


def one_cycle(progress):
    return learning_rate(progress, peak=PEAK, schedule="one_cycle")


@pytest.mark.parametrize("steps", [20, 100, 1000])
def test_equals_one_cycle_of_torch(steps):
    # Torch's phases end at steps 0.3 n - 1 and n - 1; ours at shares 0.3 and 1 of all steps.
    peak_at = WARM_UP * steps - 1
    step = np.arange(steps)
    progress = np.where(
        step < peak_at, WARM_UP * step / peak_at, WARM_UP + (1 - WARM_UP) * (step - peak_at) / (steps - 1 - peak_at)
    )
    np.testing.assert_allclose([one_cycle(share) for share in progress], rates_of_torch(steps), rtol=1e-9)


def test_share_of_steps_done_is_torchs_within_a_step():
    steps = 2000
    ours = np.array([one_cycle(step / steps) for step in range(steps)])
    np.testing.assert_allclose(ours, rates_of_torch(steps), atol=0.006 * PEAK)


def test_landmarks():
    assert one_cycle(0) == pytest.approx(PEAK / 25)
    assert one_cycle(0.15) == pytest.approx((PEAK / 25 + PEAK) / 2)
    assert one_cycle(0.3) == pytest.approx(PEAK)
    assert one_cycle(1) == pytest.approx(PEAK / 25e4)


def test_rises_then_falls():
    shares = np.linspace(0, 1, 500)
    rates = np.array([one_cycle(share) for share in shares])
    assert (np.diff(rates[shares <= 0.3]) > 0).all()
    assert (np.diff(rates[shares >= 0.3]) < 0).all()


def test_past_the_end_it_stays_low():
    assert one_cycle(1.0001) == one_cycle(1) == one_cycle(2)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_constant(progress):
    assert learning_rate(progress, peak=PEAK, schedule="constant") == PEAK
