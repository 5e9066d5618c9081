import numpy as np
import pytest
import torch

from stsmm_core.training.state import SiteState, load_predictions, save_predictions

HEADS, ENDPOINTS = ("fusion", "image", "clinical"), ("os", "dm")


def optimizer_after_steps(steps):
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    for _ in range(steps):
        layer(torch.ones(4, 3)).sum().backward()
        optimizer.step()
    return optimizer


def test_optimizer_state_comes_back_and_fits(tmp_path):
    optimizer = optimizer_after_steps(3)
    state = SiteState(tmp_path, 0)
    state.save_optimizer(3, optimizer.state_dict())
    loaded = state.load_optimizer(3)
    fresh = optimizer_after_steps(0)
    fresh.load_state_dict(loaded)
    for key, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            torch.testing.assert_close(fresh.state_dict()["state"][key][name], value, rtol=0, atol=0)


def test_a_round_this_site_did_not_see(tmp_path):
    state = SiteState(tmp_path, 0)
    assert state.load_optimizer(1) is None
    assert state.load_outputs(0) is None
    state.save_optimizer(2, {})
    assert state.load_optimizer(1) is None


def test_outputs_come_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    train, validation = rng.normal(size=(3, 7, 2)), rng.normal(size=(3, 0, 2))
    state = SiteState(tmp_path, 0)
    state.save_outputs(5, train, validation)
    loaded = state.load_outputs(5)
    assert [part.dtype for part in loaded] == [np.float64, np.float64]
    np.testing.assert_array_equal(loaded[0], train)
    np.testing.assert_array_equal(loaded[1], validation)


def test_folds_do_not_mix(tmp_path):
    SiteState(tmp_path, 0).save_optimizer(1, {"fold": 0})
    SiteState(tmp_path, 1).save_optimizer(1, {"fold": 1})
    assert SiteState(tmp_path, 0).load_optimizer(1) == {"fold": 0}
    assert SiteState(tmp_path, 1).load_optimizer(1) == {"fold": 1}


def test_the_last_three_rounds_are_kept(tmp_path):
    state = SiteState(tmp_path, 0)
    for round_number in range(1, 13):
        state.save_optimizer(round_number, {"round": round_number})
    assert state.load_optimizer(9) is None
    assert state.load_optimizer(10) == {"round": 10}
    assert state.load_optimizer(11) == {"round": 11}
    assert state.load_optimizer(12) == {"round": 12}
    assert len(list((tmp_path / "fold-0").iterdir())) == 3


def test_a_resumed_run_forgets_the_rounds_it_does_again(tmp_path):
    state = SiteState(tmp_path, 0)
    for round_number in (3, 4):
        state.save_optimizer(round_number, {"run": "first"})
        state.save_outputs(round_number, np.zeros((1, 1, 1)), np.zeros((1, 1, 1)))
    state.save_optimizer(3, {"run": "second"})
    assert state.load_optimizer(3) == {"run": "second"}
    assert state.load_optimizer(4) is None
    assert state.load_outputs(4) is not None  # its own kind only


def save(folder, fold, outputs, patients):
    save_predictions(folder, fold, outputs, patients=patients, heads=HEADS, endpoints=ENDPOINTS)


def load(folder, folds, patients):
    return load_predictions(folder, folds, patients=patients, heads=HEADS, endpoints=ENDPOINTS)


def test_predictions_come_back_exactly_in_the_order_asked_for(tmp_path):
    # Many values over many magnitudes: a decimal parser that is off by one bit shows.
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(3, 100, 2)) * 10.0 ** rng.integers(-12, 6, size=(3, 100, 2))
    order = rng.permutation(100)
    save(tmp_path, 0, outputs, [f"P{number:03d}" for number in order])
    loaded = load(tmp_path, 1, [f"P{number:03d}" for number in range(100)])
    np.testing.assert_array_equal(loaded, outputs[:, np.argsort(order)])


def test_predictions_of_repeats_are_averaged(tmp_path):
    first, second = np.random.default_rng(1).normal(size=(2, 3, 2, 2))
    save(tmp_path, 0, first, ["P1", "P2"])
    save(tmp_path, 1, second, ["P2", "P3"])
    loaded = load(tmp_path, 2, ["P1", "P2", "P3"])
    np.testing.assert_allclose(loaded[:, 0], first[:, 0], rtol=0)
    np.testing.assert_allclose(loaded[:, 1], (first[:, 1] + second[:, 0]) / 2)
    np.testing.assert_allclose(loaded[:, 2], second[:, 1], rtol=0)


def test_who_was_not_tested_or_not_heard_is_nan(tmp_path):
    outputs = np.ones((3, 2, 2))
    outputs[1, 0] = np.nan
    save(tmp_path, 0, outputs, ["P1", "P2"])
    loaded = load(tmp_path, 1, ["P1", "P2", "P3"])
    assert np.isnan(loaded[1, 0]).all()
    assert np.isnan(loaded[:, 2]).all()
    assert np.isfinite(loaded[[0, 2], 0]).all()
    assert np.isfinite(loaded[:, 1]).all()


@pytest.mark.parametrize("patient", ["007", "1e5", "NA", "nan", "None", "null", "True"])
def test_identifiers_are_text_whatever_they_look_like(tmp_path, patient):
    save(tmp_path, 0, np.full((3, 1, 2), 0.5), [patient])
    assert load(tmp_path, 1, [patient]).tolist() == [[[0.5, 0.5]]] * 3


def test_a_fold_without_a_test_patient(tmp_path):
    save(tmp_path, 0, np.zeros((3, 0, 2)), [])
    save(tmp_path, 1, np.ones((3, 1, 2)), ["P1"])
    assert load(tmp_path, 2, ["P1", "P2"])[0, :, 0].tolist() == [1, pytest.approx(np.nan, nan_ok=True)]


def test_a_site_without_any_test_patient(tmp_path):
    save(tmp_path, 0, np.zeros((3, 0, 2)), [])
    loaded = load(tmp_path, 1, ["P1"])
    assert loaded.dtype == float
    assert np.isnan(loaded).all()
