"""Every strategy through the real server and sites, against its own formula in plain numpy."""

import numpy as np
import pytest
import torch
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from scipy.stats import trim_mean
from sent_weights import weights_in

from stsmm_core import protocol
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.config import Experiment, Federation
from stsmm_core.errors import RunError

SETTINGS = {
    "fedavg": {},
    "fedprox": {"proximal_mu": 0.5},
    "fedadam": {},
    "fedyogi": {},
    "fedavgm": {},
    "fedmedian": {},
    "fedtrimmedavg": {"trim_fraction": 0.25},
    "krum": {"malicious_sites": 0},
}


@pytest.fixture(scope="module")
def four_cohorts(tmp_path_factory):
    out = tmp_path_factory.mktemp("four") / "cohorts"
    write_synthetic_cohorts(out, sites=4, patients=100, seed=8)
    return out


@pytest.fixture
def quick(experiment) -> Experiment:
    """Clinical variables alone, batch norm, so that there are running statistics."""
    return experiment.model_copy(
        update={
            "data": experiment.data.model_copy(update={"modalities": ("clinical",)}),
            "model": experiment.model.model_copy(update={"norm": "batch", "image_encoder": "densenet121"}),
        }
    )


def with_strategy(experiment, name, **settings):
    federation = experiment.federation.model_copy(update={"strategy": name, **settings})
    return experiment.model_copy(update={"federation": federation})


def run_and_record(federate, experiment, cohorts, out):
    """The weights sent in each round, and each site's reply: weight and weights."""
    sent, replies = {}, {}

    def deliver(site, message, answer):
        reply = answer()
        if message.metadata.message_type == "train":
            number = message.content.config_records[protocol.CONFIG][protocol.ROUND]
            sent[number] = arrays_of(message)
            weight = reply.content.metric_records[protocol.METRICS][protocol.WEIGHT]
            replies.setdefault(number, []).append((weight, arrays_of(reply)))
        return reply

    federate(experiment, [cohorts], out, deliver=deliver)
    final = torch.load(out / "checkpoints" / "fold-0.pt", weights_only=True)["weights"]
    sent[max(sent) + 1] = {name: value.numpy() for name, value in final.items()}
    return sent, replies


def arrays_of(message):
    return {name: array.astype(np.float64) for name, array in weights_in(message).items()}


def mean(replies, name):
    return np.average([weights[name] for _, weights in replies], axis=0, weights=[weight for weight, _ in replies])


def is_statistic(name):
    return "running" in name


def expected_models(strategy, settings, sent, replies):
    """The course of the server's model from the replies alone."""
    federation = Federation(strategy=strategy, **settings)
    first, second, momentum = {}, {}, {}
    models = {}
    for number, answers in sorted(replies.items()):
        model = {}
        for name, before in sent[number].items():
            stack = np.stack([weights[name] for _, weights in answers])
            step = mean(answers, name) - before
            if strategy == "fedmedian":
                model[name] = np.median(stack, axis=0)
            elif strategy == "fedtrimmedavg":
                model[name] = trim_mean(stack, settings["trim_fraction"], axis=0)
            elif strategy in ("fedavg", "fedprox") or is_statistic(name):
                model[name] = mean(answers, name)
            elif strategy == "fedavgm":
                momentum[name] = federation.server_momentum * momentum.get(name, 0) - step
                model[name] = before - federation.server_learning_rate * momentum[name]
            else:  # Reddi et al., Adaptive federated optimization, ICLR 2021, algorithm 2
                beta_1, beta_2 = federation.server_momentum, federation.second_momentum
                first[name] = beta_1 * first.get(name, 0) + (1 - beta_1) * step
                if strategy == "fedadam":
                    second[name] = beta_2 * second.get(name, 0) + (1 - beta_2) * step**2
                    # Flower corrects the bias of the moments, counting the round one further.
                    rate = np.sqrt(1 - beta_2 ** (number + 1)) / (1 - beta_1 ** (number + 1))
                else:
                    held = second.get(name, np.zeros_like(step))
                    second[name] = held - (1 - beta_2) * step**2 * np.sign(held - step**2)
                    rate = 1.0
                moved = first[name] / (np.sqrt(second[name]) + federation.adaptivity)
                model[name] = before + federation.adaptive_learning_rate * rate * moved
        models[number + 1] = model
    return models


@pytest.mark.parametrize("strategy", SETTINGS)
def test_a_strategy_learns_and_is_its_formula(quick, four_cohorts, federate, tmp_path, strategy):
    settings = SETTINGS[strategy]
    sent, replies = run_and_record(
        federate, with_strategy(quick, strategy, **settings), four_cohorts, tmp_path / strategy
    )
    assert any(np.abs(sent[5][name] - sent[1][name]).max() > 1e-3 for name in sent[1])
    assert all((value > 0).all() for name, value in sent[5].items() if name.endswith("running_var"))
    if strategy == "krum":
        for number, answers in replies.items():
            chosen = [
                all(np.array_equal(weights[name], sent[number + 1][name]) for name in weights) for _, weights in answers
            ]
            assert sum(chosen) == 1
        return
    for number, model in expected_models(strategy, settings, sent, replies).items():
        for name, value in model.items():
            np.testing.assert_allclose(sent[number][name], value, rtol=2e-4, atol=2e-5)


def test_the_servers_momentum_leaves_layers_alone_that_stay_at_the_sites(quick, four_cohorts, federate, tmp_path):
    experiment = with_strategy(quick, "fedavgm", **SETTINGS["fedavgm"], local_normalisation=True)
    sent, replies = run_and_record(federate, experiment, four_cohorts, tmp_path / "run")
    shared = list(replies[1][0][1])
    assert set(shared) < set(sent[1])
    of_shared = {number: {name: weights[name] for name in shared} for number, weights in sent.items()}
    for number, model in expected_models("fedavgm", SETTINGS["fedavgm"], of_shared, replies).items():
        for name in sent[number]:
            np.testing.assert_allclose(sent[number][name], model.get(name, sent[1][name]), rtol=2e-4, atol=2e-5)


def test_a_vote_with_too_few_voters_ends_the_run_with_a_reason(quick, four_cohorts, federate, tmp_path):
    """Trimming a third of two values cuts off none."""
    experiment = with_strategy(quick, "fedtrimmedavg", trim_fraction=0.34)

    def deliver(site, message, answer):
        if message.metadata.message_type == "train" and site > 1:
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "broken"), reply_to=message)
        return answer()

    with pytest.raises(RunError, match=r"2 of 4 sites trained, with fewer than 3 .*outvotes nobody"):
        federate(experiment, [four_cohorts], tmp_path / "run", deliver=deliver)


def test_krum_picks_the_reply_nearest_to_the_others(quick, four_cohorts, federate, tmp_path):
    experiment = with_strategy(quick, "krum", malicious_sites=0)
    sent, replies = run_and_record(federate, experiment, four_cohorts, tmp_path / "run")
    for number, answers in replies.items():
        points = np.stack([np.concatenate([weights[name].ravel() for name in weights]) for _, weights in answers])
        distances = np.square(points[:, None] - points[None]).sum(axis=2)
        nearest = np.sort(distances, axis=1)[:, 1:3]  # n - f - 2 = 2 of 4
        chosen = answers[int(np.argmin(nearest.sum(axis=1)))][1]
        for name, value in chosen.items():
            np.testing.assert_array_equal(sent[number + 1][name], value)


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [("fedavgm", {"server_momentum": 0.0}), ("fedprox", {"proximal_mu": 1e-12})],
)
def test_without_its_addition_a_strategy_is_fedavg(quick, four_cohorts, federate, tmp_path, strategy, settings):
    plain, _ = run_and_record(federate, with_strategy(quick, "fedavg"), four_cohorts, tmp_path / "fedavg")
    other, _ = run_and_record(federate, with_strategy(quick, strategy, **settings), four_cohorts, tmp_path / "other")
    for name in plain[5]:
        np.testing.assert_allclose(other[5][name], plain[5][name], rtol=1e-4, atol=1e-6)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("strategy", ["fedadam", "fedyogi", "fedavgm"])
def test_a_servers_momentum_outlives_a_kill(quick, four_cohorts, federate, tmp_path, strategy):
    def deliver(site, message, answer):
        number = message.content.config_records[protocol.CONFIG].get(protocol.ROUND)
        if site == 3 and message.metadata.message_type == "evaluate" and number == 3:
            raise Killed
        return answer()

    experiment = with_strategy(quick, strategy)
    federate(experiment, [four_cohorts], tmp_path / "whole")
    with pytest.raises(Killed):
        federate(experiment, [four_cohorts], tmp_path / "broken", deliver=deliver)
    federate(experiment, [four_cohorts], tmp_path / "broken")
    whole, broken = (
        torch.load(tmp_path / run / "checkpoints" / "fold-0.pt", weights_only=True) for run in ("whole", "broken")
    )
    assert whole["memory"]
    for part in ("weights", "memory"):
        assert whole[part].keys() == broken[part].keys()
        assert all(torch.equal(whole[part][name], broken[part][name]) for name in whole[part])


@pytest.mark.parametrize(
    ("strategy", "settings", "least"),
    [("krum", {"malicious_sites": 1}, 5), ("fedtrimmedavg", {"trim_fraction": 0.2}, 5)],
)
def test_a_rule_for_more_sites_than_there_are_is_refused(
    quick, four_cohorts, federate, tmp_path, strategy, settings, least
):
    with pytest.raises(RunError, match=f"needs {least} sites"):
        federate(with_strategy(quick, strategy, **settings), [four_cohorts], tmp_path / "run")
