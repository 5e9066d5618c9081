"""Blending by all sites' losses, by each site's own, and by the mean of the sites' weights."""

import numpy as np
import pandas as pd
import pytest
import torch
from sent_weights import weights_in

from stsmm_core import protocol
from stsmm_core.config import Blending
from stsmm_core.training.state import SiteState


def with_scope(experiment, scope, **settings):
    """A learning rate at which the heads differ enough for the weights to move; nothing is clipped or smoothed away."""
    blending = experiment.blending.model_copy(update={"scope": scope, **settings})
    return experiment.model_copy(update={"blending": blending})


def record(federate, experiment, cohorts, out):
    """Metrics of the evaluate replies, {round: {site: numbers}}, and the blending weights sent with each round."""
    replies, sent = {}, {}

    def deliver(site, message, answer):
        reply = answer()
        config = message.content.config_records[protocol.CONFIG]
        if message.metadata.message_type == "evaluate":
            numbers = dict(reply.content.metric_records[protocol.METRICS])
            replies.setdefault(config[protocol.ROUND], {})[site] = numbers
        if message.metadata.message_type == "train":
            sent[config[protocol.ROUND]] = list(config[protocol.BLENDING])
        return reply

    federate(experiment, cohorts, out, deliver=deliver)
    return replies, sent


def robust_weights(sites, before, config, heads=3, endpoints=2):
    """The robust rule from the sum of some sites' numbers, written down anew."""
    shape = (heads, endpoints)

    def total(key, size):
        return sum(np.array(numbers[key]).reshape(size) for numbers in sites)

    def per_event(kind):
        change, events = total(f"{kind}.change", shape), np.maximum(total(f"{kind}.events", shape), 1)
        covariance = total(f"{kind}.covariance", (heads, 2 * endpoints, 2 * endpoints))
        slope = np.hstack([1 / events, -change / events**2])
        return (change / events).sum(axis=1), [slope[k] @ covariance[k] @ slope[k] for k in range(heads)]

    train, train_variance = per_event("train-change")
    validation, validation_variance = per_event("validation-change")
    gain = np.maximum(-validation - config.z * np.sqrt(validation_variance), 0)
    spread = (validation - train) ** 2 + np.add(train_variance, validation_variance) + config.tau**2
    if not gain.any():
        return np.array(before)
    ratio = gain / spread / (gain / spread).sum()
    blended = (1 - config.shrink) * ratio + config.shrink / heads
    shifts = np.linspace(-1, 1, 2_000_001)
    clipped = np.clip(blended[:, None] + shifts, config.floor, config.ceiling).sum(axis=0)
    shift = np.interp(1, clipped[np.r_[True, np.diff(clipped) > 0]], shifts[np.r_[True, np.diff(clipped) > 0]])
    bounded = np.clip(blended + shift, config.floor, config.ceiling)
    return config.smoothing * np.array(before) + (1 - config.smoothing) * bounded


EASY = {"z": 0.0, "floor": 0.0, "ceiling": 1.0}
"""Every gain counts, so that the weights move on sites of twenty patients."""


@pytest.fixture
def experiment(experiment):
    training = experiment.training.model_copy(update={"epochs": 6, "schedule": "constant"})
    return experiment.model_copy(update={"training": training})


def test_global_weights_are_those_of_the_pooled_sums(experiment, cohorts, federate, tmp_path):
    replies, sent = record(federate, with_scope(experiment, "global", **EASY), [cohorts], tmp_path / "run")
    config, weights = Blending(**EASY), [1 / 3] * 3
    for checkpoint in (2, 4):
        weights = robust_weights(list(replies[checkpoint].values()), weights, config)
        np.testing.assert_allclose(sent[checkpoint + 1], weights, rtol=0, atol=1e-9)
    assert np.ptp(weights) > 0.05
    assert not (tmp_path / "run" / "blending_sites.csv").exists()
    assert all(protocol.BLENDING not in numbers for each in replies.values() for numbers in each.values())


def test_the_mean_of_the_sites_weights(experiment, cohorts, federate, tmp_path):
    replies, sent = record(federate, with_scope(experiment, "mean", **EASY), [cohorts], tmp_path / "run")
    config, mean = Blending(**EASY), np.full(3, 1 / 3)
    table = pd.read_csv(tmp_path / "run" / "blending_sites.csv")
    for checkpoint in (2, 4):
        own = np.stack([robust_weights([replies[checkpoint][site]], mean, config) for site in range(3)])
        events = [sum(replies[checkpoint][site]["train.events"][:2]) for site in range(3)]
        mean = np.average(own, axis=0, weights=events)
        np.testing.assert_allclose(sent[checkpoint + 1], mean, rtol=0, atol=1e-9)
        rows = table[table["round"] == checkpoint].pivot(index="site", columns="head", values="weight")
        np.testing.assert_allclose(rows[["fusion", "image", "clinical"]], own, rtol=0, atol=1e-9)
    assert own.std(axis=0).max() > 0.01


def test_a_site_trains_with_its_own_weights(experiment, cohorts, federate, tmp_path):
    replies, _ = record(federate, with_scope(experiment, "site", **EASY), [cohorts], tmp_path / "run")
    config = Blending(**EASY)
    table = pd.read_csv(tmp_path / "run" / "blending_sites.csv")
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    own = np.full((3, 3), 1 / 3)
    for checkpoint in (2, 4):
        own = np.stack([robust_weights([replies[checkpoint][site]], own[site], config) for site in range(3)])
        rows = table[table["round"] == checkpoint].pivot(index="site", columns="head", values="weight")
        np.testing.assert_allclose(rows[["fusion", "image", "clinical"]], own, rtol=0, atol=1e-9)
        events = [sum(replies[checkpoint][site]["train.events"][:2]) for site in range(3)]
        mean = history[history["round"] == checkpoint]["weight"]
        np.testing.assert_allclose(mean, np.average(own, axis=0, weights=events), atol=1e-9)
    kept = SiteState(tmp_path / "run" / "sites" / "site_2" / "state", 0)
    np.testing.assert_allclose(kept.latest("blending", 5), own[1], atol=1e-9)


def test_the_weights_of_a_site_change_its_update(experiment, cohorts, federate, tmp_path):
    """From the first checkpoint on, the two scopes part."""
    models = {}
    for scope in ("global", "site"):

        def deliver(site, message, answer, scope=scope):
            if message.metadata.message_type == "train" and site == 0:
                number = message.content.config_records[protocol.CONFIG][protocol.ROUND]
                models[scope, number] = np.concatenate([each.ravel() for each in weights_in(message).values()])
            return answer()

        federate(with_scope(experiment, scope, **EASY), [cohorts], tmp_path / scope, deliver=deliver)
    parted = [not np.array_equal(models["global", number], models["site", number]) for number in range(1, 7)]
    assert parted == [False, False, False, True, True, True]


def test_with_one_centre_all_scopes_are_one(experiment, cohorts, federate, tmp_path):
    for scope in ("global", "site", "mean"):
        federate(with_scope(experiment, scope, **EASY), [cohorts / "site_1"], tmp_path / scope)
    histories = [pd.read_csv(tmp_path / scope / "history.csv") for scope in ("global", "site", "mean")]
    assert histories[0]["weight"].nunique() > 3
    for other in histories[1:]:
        pd.testing.assert_frame_equal(other, histories[0], rtol=1e-6)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_what_sites_keep_outlives_a_kill(experiment, cohorts, federate, tmp_path, stage):
    """Own blending weights, factors, normalisation layers and heads, in a crash that some sites did not notice."""
    federation = {"site_factor": "generalisation", "local_normalisation": True, "personal_epochs": 3}
    experiment = with_scope(experiment, "site", **EASY).model_copy(
        update={"federation": experiment.federation.model_copy(update=federation)}
    )

    def deliver(site, message, answer):
        number = message.content.config_records[protocol.CONFIG].get(protocol.ROUND)
        if site == 2 and message.metadata.message_type == stage and number == 4:
            raise Killed
        return answer()

    federate(experiment, [cohorts], tmp_path / "whole")
    with pytest.raises(Killed):
        federate(experiment, [cohorts], tmp_path / "broken", deliver=deliver)
    federate(experiment, [cohorts], tmp_path / "broken")
    for name in ("blending_sites.csv", "history.csv", *(f"sites/site_{k}/predictions-0.csv" for k in (1, 2, 3))):
        assert (tmp_path / "broken" / name).read_text() == (tmp_path / "whole" / name).read_text()
    one, other = (
        torch.load(tmp_path / run / "checkpoints" / "fold-0.pt", weights_only=True)["weights"]
        for run in ("whole", "broken")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
