"""What a site keeps to itself: its factor, its normalisation layers, its heads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_site import make_data, make_trainer

from stsmm_core.config import parse_experiment
from stsmm_core.model.mmnn import get_weights, normalisation_names
from stsmm_core.training import kept_at_site
from stsmm_core.training.losses import LossSums
from stsmm_core.training.personal_heads import personalise
from stsmm_core.training.state import SiteState


def sums(loss, events):
    return LossSums(np.full((3, 1), loss * events), np.full((3, 1), float(events)))


def factor(train, validation, events):
    return kept_at_site.generalisation_factor(
        (sums(train[0], 30), sums(validation[0], events)), (sums(train[1], 30), sums(validation[1], events))
    )


def test_the_factor_of_a_worked_example():
    # dG = 0.3, dO = 0.1, so OGR = 1/3 and (1 - OGR) / (1 + OGR) = 1/2; 30 events count three quarters.
    assert factor((2.0, 1.6), (1.5, 1.2), 30) == pytest.approx(2 ** (0.75 / 2))


@pytest.mark.parametrize(
    ("train", "validation", "limit"),
    [((2, 1), (2, 1), 2), ((2, 1), (2, 2), 0.5), ((2, 1), (2, 3), 0.5), ((2, 1), (2, 1.5), 1), ((1, 2), (2, 3), 1)],
)
def test_the_factor_with_many_events(train, validation, limit):
    assert factor(train, validation, 10**9) == pytest.approx(limit)


@given(st.lists(st.floats(0, 10), min_size=4, max_size=4), st.integers(0, 1000))
def test_the_factor_is_bounded_and_near_1_for_few_events(losses, events):
    value = factor(losses[:2], losses[2:], events)
    assert 0.5 <= value <= 2
    assert abs(np.log2(value)) <= events / (events + 10) + 1e-12


def test_own_normalisation_is_the_rounds(tmp_path):
    state = SiteState(tmp_path, 0)
    sent = {"norm.weight": np.zeros(2, np.float32), "linear.weight": np.ones(2, np.float32)}
    assert kept_at_site.with_own_normalisation(state, sent, 5) is sent
    for number in (1, 2, 3, 5):
        trained = {"norm.weight": np.full(2, number, np.float32), "linear.weight": np.full(2, 9, np.float32)}
        shared = kept_at_site.keep_normalisation(state, trained, number, {"norm.weight"})
        assert set(shared) == {"linear.weight"}
    for asked, found in ((1, 1), (2, 2), (4, 3), (5, 5), (9, 5)):
        weights = kept_at_site.with_own_normalisation(state, sent, asked)
        assert weights["norm.weight"].tolist() == [found, found]
        assert weights["linear.weight"].tolist() == [1, 1]
    state.forget_but_latest(kept_at_site.NORMALISATION, 4)
    assert kept_at_site.with_own_normalisation(state, sent, 9)["norm.weight"].tolist() == [3, 3]


def test_a_round_done_again_forgets_what_came_after(tmp_path):
    state = SiteState(tmp_path, 0)
    for number in (1, 2, 3):
        kept_at_site.keep_normalisation(state, {"norm.weight": np.full(1, number, np.float32)}, number, {"norm.weight"})
    kept_at_site.keep_normalisation(state, {"norm.weight": np.full(1, 7, np.float32)}, 2, {"norm.weight"})
    assert kept_at_site.with_own_normalisation(state, {}, 3)["norm.weight"].tolist() == [7]


@pytest.mark.parametrize(("norm", "layers"), [("batch", 4), ("group", 2)])
def test_normalisation_layers_are_found_by_kind(tmp_path, norm, layers):
    trainer = make_trainer(tmp_path)
    experiment = parse_experiment(
        f"imaging.shape = [16, 16, 16]\nmodel = {{ image_encoder = 'small_densenet', norm = '{norm}' }}",
        source="test",
    )
    from stsmm_core.model.mmnn import build_network

    network = build_network(experiment, channels=2, clinical_inputs=5, fold=0)
    names = normalisation_names(network)
    clinical = {name for name in names if name.startswith("encoders.clinical.")}
    assert len(clinical) == 5 * layers  # five hidden layers; batch norm has two statistics besides
    assert names < set(get_weights(network))
    assert trainer.site == "a"


def personal(epochs, learning_rate=0.05):
    return parse_experiment(
        f"training.learning_rate = {learning_rate}\nfederation.personal_epochs = {epochs}", source="test"
    )


def test_own_heads_are_never_worse_on_the_sites_validation_set(tmp_path):
    trainer = make_trainer(tmp_path)
    weights = get_weights(trainer.network)
    own_weights = personalise(trainer, weights, personal(30))
    changed = {name for name in weights if not np.array_equal(weights[name], own_weights[name])}
    assert changed
    assert all(name.startswith("heads.") for name in changed)
    before, after = (trainer.loss_sums(each)[1].per_event() for each in (weights, own_weights))
    assert (after <= before + 1e-6).all()
    assert (after < before - 1e-4).any()
    again = personalise(make_trainer(tmp_path), weights, personal(30))
    assert all(np.array_equal(again[name], own_weights[name]) for name in weights)


def test_without_a_validation_event_the_heads_stay(tmp_path):
    data = make_data()
    data.outcomes.event[20:26] = 0
    trainer = make_trainer(tmp_path, data)
    weights = get_weights(trainer.network)
    own_weights = personalise(trainer, weights, personal(5))
    assert all(np.array_equal(own_weights[name], weights[name]) for name in weights)


def test_the_fit_of_own_heads_leaves_the_encoders_in_evaluation_mode(tmp_path):
    """Dropout and batch statistics of a training mode would make the features noisy."""
    trainer = make_trainer(tmp_path)
    trainer.network.train()
    weights = get_weights(trainer.network)
    rows = trainer.fold.train
    features = trainer.encoded(weights, rows)
    outputs = trainer.network.decode(features).detach().numpy()
    np.testing.assert_allclose(outputs, trainer._outputs(weights, rows), atol=1e-6)
    assert all(torch.isfinite(each).all() for each in features.values())
