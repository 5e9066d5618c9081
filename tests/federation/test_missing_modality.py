"""A module is averaged over the sites that trained it; normalisation layers may stay at their site."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sent_weights import weights_in, with_weights

from server.modules import complete, has_trained, keep_untrained, median, weighted_mean
from server.replies import Update
from stsmm_core import protocol
from stsmm_core.model.mmnn import ModalityBatch, MultimodalNetwork
from stsmm_core.protocol.rounds import Contribution
from stsmm_core.survival.cox_loss import cox_loss

MODALITIES = ("image", "clinical")
NAMES = ("encoders.image.conv.weight", "heads.image.bias", "absent.image", "encoders.clinical.0.weight",
         "heads.clinical.bias", "absent.clinical", "heads.fusion.weight")  # fmt: skip


ENDPOINTS = 3
ALL = (True,) * ENDPOINTS


def update(site, weight, seen, missed, seed, taught=None):
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(size=(ENDPOINTS, 2)).astype(np.float32) for name in NAMES}
    taught = taught or (ALL, *(ALL if each else (False,) * ENDPOINTS for each in seen))
    return Update(site, None, Contribution(weight, seen, missed, taught), weights)


UPDATES = [
    update("a", 5.0, (True, True), (False, False), 1),
    update("b", 2.0, (True, True), (True, False), 2),
    update("c", 7.0, (False, True), (True, False), 3),
]
SENT = {name: np.full((3, 2), 9, np.float32) for name in NAMES}


def test_filling_in_leaves_the_mean_of_the_sites_that_trained():
    completed = complete(UPDATES, SENT, MODALITIES, weighted_mean)
    assert [set(each) for each in completed] == [set(NAMES)] * 3
    for name in NAMES[:-1]:
        trained = [each for each in UPDATES if has_trained(name, SENT[name], each.contribution, MODALITIES)]
        mean = np.average([each[name] for each in completed], axis=0, weights=[5, 2, 7])
        if not trained:
            assert name == "absent.clinical"  # nobody lacks clinical variables
            np.testing.assert_array_equal(mean, SENT[name])
            continue
        weights = [each.contribution.weight for each in trained]
        np.testing.assert_allclose(
            mean, np.average([each.weights[name] for each in trained], axis=0, weights=weights), atol=1e-6
        )
    assert [has_trained("absent.image", SENT["absent.image"], each.contribution, MODALITIES) for each in UPDATES] == [
        False,
        True,
        False,  # all lack it
    ]
    assert [
        has_trained("heads.image.bias", SENT["heads.image.bias"], each.contribution, MODALITIES) for each in UPDATES
    ] == [True, True, False]


def test_fusion_weights_of_a_modality_come_from_the_sites_that_have_it():
    """Without it the features are one constant, which no gradient sees: such a site would only hold them back."""
    completed = complete(UPDATES, SENT, MODALITIES, weighted_mean)
    mean = np.average([each["heads.fusion.weight"] for each in completed], axis=0, weights=[5, 2, 7])
    a, b, c = (each.weights["heads.fusion.weight"] for each in UPDATES)
    np.testing.assert_allclose(mean[:, 0], np.average([a, b], axis=0, weights=[5, 2])[:, 0], atol=1e-6)
    np.testing.assert_allclose(mean[:, 1], np.average([a, b, c], axis=0, weights=[5, 2, 7])[:, 1], atol=1e-6)
    for each, own in zip(completed, (a, b, c), strict=True):
        np.testing.assert_array_equal(each["heads.fusion.weight"][:, 1], own[:, 1])


@pytest.mark.parametrize("fill", [weighted_mean, median])
def test_sites_that_all_lack_a_modality_do_not_hold_its_absent_vector_back(fill):
    """One site teaches it, by patients without images or by modality dropout; at four registries it cannot move."""
    imaging = update("a", 1.0, (True, True), (True, False), 1)
    registries = [update(name, 1.0, (False, True), (True, False), 2) for name in "bcde"]
    for each in registries:
        each.weights["absent.image"] = SENT["absent.image"].copy()
    for completed in complete([imaging, *registries], SENT, MODALITIES, fill):
        np.testing.assert_array_equal(completed["absent.image"], imaging.weights["absent.image"])


def test_a_site_without_an_event_of_an_endpoint_does_not_count_for_its_outputs():
    """Its rows of the heads only decay."""
    deaths_only = update("d", 4.0, (True, True), (False, False), 4, taught=((True, False, True),) * 3)
    updates = [UPDATES[0], deaths_only]
    completed = complete(updates, SENT, MODALITIES, weighted_mean)
    for name in ("heads.fusion.weight", "heads.image.bias", "heads.clinical.bias"):
        mean = np.average([each[name] for each in completed], axis=0, weights=[5, 4])
        both = np.average([each.weights[name] for each in updates], axis=0, weights=[5, 4])
        np.testing.assert_allclose(mean[1], UPDATES[0].weights[name][1], atol=1e-6)
        np.testing.assert_allclose(mean[[0, 2]], both[[0, 2]], atol=1e-6)


def test_what_nobody_trained_stays_as_it_was_sent():
    nobody = [update("d", 4.0, (False, True), (True, False), 4, taught=((True, False, True),) * 3)]
    model = {name: value + 1 for name, value in SENT.items()}
    keep_untrained(model, nobody, SENT, MODALITIES)
    moved = {name: model[name] != SENT[name] for name in NAMES}
    assert not moved["encoders.image.conv.weight"].any()
    assert not moved["absent.clinical"].any()
    assert not moved["absent.image"].any()
    np.testing.assert_array_equal(moved["heads.fusion.weight"], [[False, True], [False, False], [False, True]])
    np.testing.assert_array_equal(moved["heads.clinical.bias"], [[True, True], [False, False], [True, True]])


def test_arrays_keep_the_order_in_which_they_were_sent():
    """Flower's FedAvgM pairs them by their place."""
    (shorter,) = (update("a", 1.0, (True, True), (False, False), 1),)
    del shorter.weights[NAMES[0]]
    (completed,) = complete([shorter], SENT, MODALITIES, weighted_mean)
    assert list(completed) == list(SENT)


def test_the_cox_loss_cannot_see_a_constant_feature():
    """What the rules above rest on: no gradient reaches the fusion weights and the absent vector of a modality that
    every patient lacks."""
    network = MultimodalNetwork({name: torch.nn.Linear(4, 3) for name in MODALITIES}, features=3, endpoints=1)
    with torch.no_grad():
        network.absent["image"].normal_()
    present = {"image": torch.zeros(9, dtype=torch.bool), "clinical": torch.ones(9, dtype=torch.bool)}
    batch = {name: ModalityBatch(torch.randn(9, 4), present[name]) for name in MODALITIES}
    risk = network(batch)[0, :, 0]
    cox_loss(risk, time=torch.rand(9), event=torch.tensor([1, 0, 1, 1, 0, 1, 0, 1, 1], dtype=torch.bool)).backward()
    gradient = network.heads["fusion"].weight.grad[0]
    assert gradient[:3].abs().max() < 1e-6 < gradient[3:].abs().max()
    assert network.absent["image"].grad.abs().max() < 1e-6


def test_filling_in_leaves_the_median_of_the_sites_that_trained():
    """A fourth site's absurd encoder must not come back through what others are filled in with."""
    absurd = update("d", 5.0, (True, True), (False, False), 4)
    absurd.weights["encoders.image.conv.weight"][:] = 1e9
    updates = [*UPDATES, absurd]
    name = "encoders.image.conv.weight"
    completed = complete(updates, SENT, MODALITIES, median)
    result = np.median([each[name] for each in completed], axis=0)
    np.testing.assert_array_equal(result, np.median([updates[k].weights[name] for k in (0, 1, 3)], axis=0))
    assert np.abs(result).max() < 10


@pytest.fixture
def without_images(cohorts, tmp_path):
    """The consortium, site_2 with clinical variables alone."""
    out = tmp_path / "changed"
    shutil.copytree(cohorts, out)
    for patient in pd.read_csv(out / "site_2" / "clinical.csv", dtype=str)["patient_id"]:
        shutil.rmtree(out / "site_2" / "images" / patient, ignore_errors=True)
    return out


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedmedian"])
def test_a_site_without_images_does_not_count_for_the_image_encoder(
    experiment, without_images, federate, tmp_path, strategy
):
    """Its copy of the encoder may hold anything: the run is the same."""
    experiment = experiment.model_copy(
        update={
            "model": experiment.model.model_copy(update={"norm": "batch"}),
            "federation": experiment.federation.model_copy(update={"strategy": strategy}),
        }
    )

    def deliver(site, message, answer):
        reply = answer()
        if site == 1 and message.metadata.message_type == "train":
            numbers = reply.content.metric_records[protocol.METRICS]
            assert (numbers[protocol.SEEN], numbers[protocol.MISSED]) == ([0, 1], [1, 0])
            sent, weights = weights_in(message), weights_in(reply)
            for name in weights:
                if name.startswith("encoders.image."):
                    np.testing.assert_array_equal(weights[name], sent[name])  # batch statistics too
                if name.startswith(("encoders.image.", "heads.image.")):  # weight decay moves an idle head
                    weights[name] = weights[name] * np.float32(3)
            return with_weights(reply, weights)
        return reply

    federate(experiment, [without_images], tmp_path / "plain")
    federate(experiment, [without_images], tmp_path / "spoilt", deliver=deliver)
    plain, spoilt = (
        torch.load(tmp_path / run / "checkpoints" / "fold-0.pt", weights_only=True)["weights"]
        for run in ("plain", "spoilt")
    )
    assert all(torch.equal(plain[name], spoilt[name]) for name in plain)


def test_normalisation_layers_stay_at_their_site(experiment, cohorts, federate, tmp_path):
    """FedBN: never on the wire to the server, whose own stay the initial ones; test risks come from each site's own."""
    experiment = experiment.model_copy(
        update={
            "model": experiment.model.model_copy(update={"norm": "batch"}),
            "federation": experiment.federation.model_copy(update={"local_normalisation": True}),
        }
    )
    names, selected = set(), {}

    def deliver(site, message, answer):
        reply = answer()
        if message.metadata.message_type == "train":
            names.update(weights_in(reply))
        if message.metadata.message_type == "evaluate.predict":
            selected[site] = message.content.config_records[protocol.CONFIG][protocol.ROUND]
        return reply

    federate(experiment, [cohorts], tmp_path / "run", deliver=deliver)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "fold-0.pt", weights_only=True)
    kept = set(saved["weights"]) - names
    assert kept
    assert all(name.endswith(("weight", "bias", "running_mean", "running_var")) for name in kept)
    for name in kept:
        initial = 1.0 if name.endswith(("weight", "running_var")) else 0.0
        assert (saved["weights"][name] == initial).all()
    assert any("running_mean" in name for name in kept)
    assert not any("running" in name for name in names)
    assert set(selected.values()) == {saved["selected_round"]}
    own = {}
    for site in ("site_1", "site_2", "site_3"):
        files = sorted((tmp_path / "run" / "sites" / site / "state" / "fold-0").glob("normalisation-*.pt"))
        assert [file.stem for file in files] == [f"normalisation-{saved['selected_round']:05d}"]
        own[site] = torch.load(files[0], weights_only=True)
        assert set(own[site]) == kept
    mean = next(name for name in kept if name.endswith("running_mean"))
    assert not torch.equal(own["site_1"][mean], own["site_2"][mean])


def test_with_one_centre_it_is_the_same_where_normalisation_layers_stay(experiment, cohorts, federate, tmp_path):
    """Losses, selection and test risks use the site's own layers of the right round."""
    batch_norm = experiment.model_copy(update={"model": experiment.model.model_copy(update={"norm": "batch"})})
    for local in (False, True):
        federation = experiment.federation.model_copy(update={"local_normalisation": local})
        federate(batch_norm.model_copy(update={"federation": federation}), [cohorts / "site_1"], tmp_path / str(local))
    files = ("history.csv", "sites/site_1/predictions-0.csv")
    for file in files:
        shared, own = (pd.read_csv(tmp_path / str(local) / file) for local in (False, True))
        pd.testing.assert_frame_equal(shared, own, check_exact=True)
    selected = torch.load(tmp_path / "True" / "checkpoints" / "fold-0.pt", weights_only=True)["selected_round"]
    assert selected > 0


def test_a_sites_factor_is_in_the_weight_that_it_sends(experiment, cohorts, federate, tmp_path):
    """From the first checkpoint round on, and kept until the next."""
    federation = experiment.federation.model_copy(update={"site_factor": "generalisation"})
    training = experiment.training.model_copy(update={"learning_rate": 0.01})
    changed = experiment.model_copy(update={"federation": federation, "training": training})
    factors = {}

    def deliver(site, message, answer):
        reply = answer()
        if message.metadata.message_type == "train":
            numbers = reply.content.metric_records[protocol.METRICS]
            number = message.content.config_records[protocol.CONFIG][protocol.ROUND]
            factors.setdefault(number, {})[site] = numbers[protocol.WEIGHT] / numbers[protocol.PATIENTS]
        return reply

    federate(changed, [cohorts], tmp_path / "run", deliver=deliver)
    assert factors[1] == {0: 1, 1: 1, 2: 1}
    assert factors[2] == factors[3]
    assert len(set(factors[2].values())) > 1
    assert all(0.5 <= factor <= 2 for each in factors.values() for factor in each.values())
    assert not (tmp_path / "run" / "audit.jsonl").exists()
