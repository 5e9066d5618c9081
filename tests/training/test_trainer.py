"""The trainer's two passes, its windows and its treatment of patients without a modality."""

import numpy as np
import pytest
import torch
from small_site import PATIENTS, make_data, make_trainer

from stsmm_core.errors import RunError
from stsmm_core.model.mmnn import get_weights, set_weights
from stsmm_core.training.optimisation import pull_back


def gradients(trainer):
    return {name: value.grad.clone() for name, value in trainer.network.named_parameters() if value.grad is not None}


def test_two_passes_give_the_gradient_of_one(tmp_path):
    """Against autograd through the whole window at once, with batch norm, dropouts and augmentation in the game."""
    trainer = make_trainer(tmp_path, modality_dropout=0.3)
    network, window, blending = trainer.network.train(), np.arange(20), (0.5, 0.2, 0.3)
    before = get_weights(network)
    trainer._accumulate(window, blending, (1, 0, 0))
    two_passes, statistics = gradients(trainer), get_weights(network)

    set_weights(network, before)
    network.zero_grad(set_to_none=True)
    batches = np.array_split(window, 3)
    from stsmm_core.seeds import derive_seed

    seeds = [derive_seed(*trainer._seed_parts(1, 0, 0), number) for number in range(3)]
    outputs = torch.cat([trainer._draw(*batch) for batch in zip(batches, seeds, strict=True)], dim=1)
    trainer.blended_loss(outputs, window, blending).backward()
    one_pass = gradients(trainer)

    assert two_passes.keys() == one_pass.keys()
    assert max(float(gradient.abs().max()) for gradient in one_pass.values()) > 1e-3
    for name, gradient in one_pass.items():
        torch.testing.assert_close(two_passes[name], gradient, rtol=1e-4, atol=1e-6)
    for name, value in get_weights(network).items():  # running statistics are counted once
        np.testing.assert_allclose(statistics[name], value, rtol=1e-6)


def test_a_batch_sees_the_risk_set_of_the_window(tmp_path):
    """Batches of 8 with a window of 20 must not give the gradients of three risk sets."""
    trainer = make_trainer(tmp_path)
    trainer.network.train()
    before = get_weights(trainer.network)
    trainer._accumulate(np.arange(20), (1.0, 0.0, 0.0), (1, 0, 0))
    window = gradients(trainer)
    set_weights(trainer.network, before)
    trainer.network.zero_grad(set_to_none=True)
    for batch in np.array_split(np.arange(20), 3):
        trainer._accumulate(batch, (1 / 3, 0.0, 0.0), (1, 0, 0))
    batches = gradients(trainer)
    name = "heads.fusion.weight"
    assert not torch.allclose(window[name], batches[name], rtol=1e-2)


@pytest.mark.parametrize("risk_window", [8, 9, 20, 64])
def test_windows_hold_every_patient_once_and_share_the_events(tmp_path, risk_window):
    data = make_data()
    trainer = make_trainer(tmp_path, data, risk_window=risk_window)
    windows = trainer._windows(np.arange(20), 1, 0)
    assert sorted(np.concatenate(windows)) == list(range(20))
    sizes = [len(window) for window in windows]
    assert max(sizes) <= risk_window
    assert max(sizes) - min(sizes) <= 1
    with_event = [int((np.nansum(data.outcomes.event[window], axis=1) > 0).sum()) for window in windows]
    assert max(with_event) - min(with_event) <= 1
    again = trainer._windows(np.arange(20), 1, 0)
    other = trainer._windows(np.arange(20), 2, 0)
    assert [list(window) for window in windows] == [list(window) for window in again]
    assert [list(window) for window in windows] != [list(window) for window in other]


def test_test_patients_cannot_change_the_training(tmp_path):
    data, changed = make_data(), make_data()
    changed.images[26:] = 7.0
    changed.outcomes.time[26:] = 1.0
    changed.outcomes.event[26:] = 1.0
    trainers = [make_trainer(tmp_path / name, each) for name, each in (("a", data), ("b", changed))]
    weights = get_weights(trainers[0].network)
    first, second = (trainer.train_round(1, weights, (0.4, 0.3, 0.3)).weights for trainer in trainers)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    losses = [trainer.losses(1, first) for trainer in trainers]
    np.testing.assert_array_equal(losses[0].validation.loss, losses[1].validation.loss)


def test_risks_are_relative_to_the_training_patients(tmp_path):
    """The mean over training patients is the origin, for a head that hears only some of them too."""
    trainer = make_trainer(tmp_path)
    weights = get_weights(trainer.network)
    risks = trainer.risks(weights, np.arange(26, PATIENTS))
    outputs = trainer._outputs(weights, np.arange(PATIENTS))
    has_image = make_data().has_image
    test = np.arange(26, PATIENTS)
    heard = has_image[:20]
    np.testing.assert_allclose(risks[0], outputs[0, test] - outputs[0, :20].mean(axis=0), atol=1e-6)
    expected = outputs[1, test] - outputs[1, :20][heard].mean(axis=0)
    np.testing.assert_allclose(risks[1][has_image[test]], expected[has_image[test]], atol=1e-6)
    assert np.isnan(risks[1][~has_image[test]]).all()
    assert (~has_image[test]).any()


def test_a_site_without_an_event_returns_the_weights_it_got(tmp_path):
    data = make_data()
    data.outcomes.event[:20] = 0
    trainer = make_trainer(tmp_path, data)
    weights = get_weights(trainer.network)
    trained = trainer.train_round(1, weights, (0.4, 0.3, 0.3))
    assert (trained.patients, trained.events) == (20, 0)
    assert all(np.array_equal(trained.weights[name], weights[name]) for name in weights)


def test_divergence_is_said_when_it_shows(tmp_path):
    """In the outputs of the next window, before any weight is infinite."""
    trainer = make_trainer(tmp_path, risk_window=8, learning_rate=1e30)
    with pytest.raises(RunError, match="training diverged"):
        trainer.train_round(1, get_weights(trainer.network), (0.4, 0.3, 0.3))


def test_the_proximal_term_is_its_gradient():
    """Against autograd of mu / 2 |w - start|^2; a weight outside the step stays outside."""
    network = torch.nn.ModuleList([torch.nn.Linear(3, 2), torch.nn.Linear(2, 1)])
    start = [parameter.detach() + 1 for parameter in network.parameters()]
    network[0](torch.ones(4, 3)).square().sum().backward()
    plain = [parameter.grad.clone() for parameter in network[0].parameters()]
    pull_back(network.parameters(), start, 0.7)
    for parameter, before, gradient in zip(network[0].parameters(), start[:2], plain, strict=True):
        term = 0.35 * (parameter - before).square().sum()
        (expected,) = torch.autograd.grad(term, parameter)
        torch.testing.assert_close(parameter.grad, gradient + expected)
    assert all(parameter.grad is None for parameter in network[1].parameters())


def test_the_proximal_term_holds_a_site_back(tmp_path):
    moved = []
    for mu in (0.0, 5.0):
        trainer = make_trainer(tmp_path / str(mu), epochs=8, local_epochs=4, learning_rate=0.01, schedule="constant")
        start = get_weights(trainer.network)
        weights = trainer.train_round(1, start, (0.4, 0.3, 0.3), proximal_mu=mu).weights
        moved.append(sum(np.square(weights[name] - start[name]).sum() for name in start if "running" not in name))
    assert moved[1] < 0.8 * moved[0]


def test_in_the_last_round_sites_of_few_and_of_many_steps_move_alike(tmp_path):
    """Else the server takes the one with more steps for one that sends absurd updates."""
    moved = []
    for risk_window in (8, 64):
        trainer = make_trainer(tmp_path / str(risk_window), epochs=20, risk_window=risk_window, schedule="one_cycle")
        start = get_weights(trainer.network)
        weights = trainer.train_round(20, start, (0.4, 0.3, 0.3)).weights
        moved.append(
            np.sqrt(sum(np.square(weights[name] - start[name]).sum() for name in start if "running" not in name))
        )
    assert moved[1] < moved[0] < 10 * moved[1]


def test_a_round_says_which_modalities_it_saw(tmp_path):
    weights = get_weights(make_trainer(tmp_path / "a").network)
    trained = make_trainer(tmp_path / "a").train_round(1, weights, (0.4, 0.3, 0.3))
    assert (trained.seen, trained.missed) == ((True, True), (True, False))
    data = make_data()
    data.has_image[:20] = False
    trained = make_trainer(tmp_path / "b", data).train_round(1, weights, (0.4, 0.3, 0.3))
    assert (trained.seen, trained.missed) == ((False, True), (True, False))
    assert trained.taught == ((True, True), (False, False), (True, True))
    for name, value in trained.weights.items():  # nor do running statistics move
        if name.startswith(("encoders.image.", "heads.image.", "absent.clinical")):
            np.testing.assert_array_equal(value, weights[name])


def test_modality_dropout_counts_as_patients_without_a_modality(tmp_path):
    weights = get_weights(make_trainer(tmp_path / "a").network)
    data = make_data()
    data.has_image[:] = True
    trained = make_trainer(tmp_path / "b", data, modality_dropout=0.5).train_round(1, weights, (0.4, 0.3, 0.3))
    assert (trained.seen, trained.missed) == ((True, True), (True, True))
    assert np.any(trained.weights["absent.clinical"])
    data.has_image[:20] = False  # nobody has both: nothing to drop
    trained = make_trainer(tmp_path / "c", data, modality_dropout=0.5).train_round(1, weights, (0.4, 0.3, 0.3))
    assert (trained.seen, trained.missed) == ((False, True), (True, False))


def test_a_round_without_an_event_saw_nothing(tmp_path):
    data = make_data()
    data.outcomes.event[:20] = 0
    trainer = make_trainer(tmp_path, data)
    trained = trainer.train_round(1, get_weights(trainer.network), (0.4, 0.3, 0.3))
    assert not any((*trained.seen, *trained.missed))
    assert not np.any(trained.taught)


def test_a_round_says_of_which_endpoint_it_saw_events(tmp_path):
    data = make_data()
    data.outcomes.event[:20, 1] = 0
    trainer = make_trainer(tmp_path, data)
    trained = trainer.train_round(1, get_weights(trainer.network), (0.4, 0.3, 0.3))
    assert trained.taught == ((True, False),) * 3
