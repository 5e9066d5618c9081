"""Replies that do not fit are left out with a reason; the round goes on, and nothing of a site is in the reason."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord
from sent_weights import weights_in, with_weights

from stsmm_core import protocol
from stsmm_core.config import parse_experiment
from stsmm_core.errors import RunError
from stsmm_core.protocol.rounds import losses_from_numbers
from stsmm_core.training.blending import start_blending
from stsmm_core.training.experiment import blend


def read_audit(run):
    return [json.loads(line) for line in (run / "audit.jsonl").read_text().splitlines()]


def change_arrays(change):
    def changed(reply):
        return with_weights(reply, {name: change(array) for name, array in weights_in(reply).items()})

    return changed


def with_nan(array):
    array = array.copy()
    array.flat[0] = np.nan
    return array


def renamed(reply):
    return with_weights(reply, {f"x.{name}": array for name, array in weights_in(reply).items()})


def garbled(reply):
    arrays = reply.content.array_records[protocol.ARRAYS]
    name, array = next(iter(arrays.items()))
    arrays[name] = Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=b"no array")
    return reply


def cut_off(reply):
    whole = reply.content.array_records[protocol.ARRAYS][protocol.WEIGHTS].numpy()
    reply.content[protocol.ARRAYS] = ArrayRecord({protocol.WEIGHTS: Array(whole[:-1])})
    return reply


def one_by_one(reply):
    reply.content[protocol.ARRAYS] = ArrayRecord({name: Array(value) for name, value in weights_in(reply).items()})
    return reply


def empty(reply):
    del reply.content[protocol.ARRAYS]
    return reply


def says(**numbers):
    def said(reply):
        honest = reply.content.metric_records[protocol.METRICS]
        reply.content[protocol.METRICS] = MetricRecord({**honest, **numbers})
        return reply

    return said


def failed(reply):
    return Message(Error(code=3, reason="node unavailable at /home/x"), reply_to=reply.request)


def slower(experiment):
    """At the rate of the other tests an honest site's image encoder can run away, and is left out with reason."""
    return experiment.model_copy(update={"training": experiment.training.model_copy(update={"learning_rate": 0.01})})


def enlarged(reply, factor=1000.0):
    weights = weights_in(reply)
    return with_weights(
        reply,
        {name: (before + factor * (weights[name] - before)).astype("float32") for name, before in reply.sent.items()},
    )


MISDEEDS = [
    ("a value that is not a number", change_arrays(with_nan), "not finite"),
    ("other shapes", change_arrays(lambda array: array[None]), "other arrays"),
    ("other types", change_arrays(lambda array: array.astype(np.float64)), "other arrays"),
    ("other names", renamed, "other arrays"),
    ("bytes that are no array", garbled, "cannot be read"),
    ("bytes that end too soon", cut_off, "weights cannot be read"),
    ("an array each", one_by_one, "agreed records"),
    ("no arrays", empty, "agreed records"),
    ("a weight that is not a number", says(weight=float("nan")), "not a number"),
    ("a weight below 0", says(weight=-3.0), "no valid weight"),
    ("a weight above its count", says(weight=1e6), "no valid weight"),
    ("half an event", says(events=2.5, weight=2.5), "not a count"),
    ("more patients than it has", says(patients=10**6, weight=1e6), "'patients' holds a number that is not from 0 to"),
    ("more events than patients", says(events=10**6), "'events' holds a number that is not from 0 to"),
    ("no word on its modalities", says(**{protocol.SEEN: [2, 2]}), "what it was trained on"),
    ("no word on its events", says(**{protocol.TAUGHT: [2] * 6}), "what it was trained on"),
    ("an error", failed, "no answer: the message or its answer did not come across whole"),
    ("silence", lambda reply: None, "no answer within"),
    ("an update a thousand times as large", enlarged, "times as large as the other sites' median"),
]


def test_bad_updates_are_left_out_and_the_run_goes_on(experiment, cohorts, federate, tmp_path):
    """A misdeed a round; the models are those of a site that always fails."""
    training = experiment.training.model_copy(update={"epochs": len(MISDEEDS) + len(MISDEEDS) % 2})
    longer = experiment.model_copy(update={"training": training})
    models = {"spoilt": {}, "failing": {}}

    def deliver(run):
        def answers(site, message, answer):
            reply = answer()
            round_number = message.content.config_records[protocol.CONFIG].get(protocol.ROUND)
            if message.metadata.message_type == "train" and site == 0:
                models[run][round_number] = list(weights_in(message).values())
            if site == 1 and message.metadata.message_type == "train" and round_number <= len(MISDEEDS):
                sent = weights_in(message)
                reply.sent, reply.request = sent, message
                return MISDEEDS[round_number - 1][1](reply) if run == "spoilt" else failed(reply)
            return reply

        return answers

    for run in models:
        federate(longer, [cohorts], tmp_path / run, deliver=deliver(run))
    audit = read_audit(tmp_path / "spoilt")
    assert [entry["round"] for entry in audit] == [*range(1, len(MISDEEDS) + 1)]
    for entry, (name, _, reason) in zip(audit, MISDEEDS, strict=True):
        assert (entry["site"], entry["stage"], entry["decision"], entry["fold"]) == ("site_2", "train", "left out", 0)
        assert reason in entry["reason"], name
        assert entry["time"]
    for round_number, arrays in models["spoilt"].items():
        for one, other in zip(arrays, models["failing"][round_number], strict=True):
            np.testing.assert_array_equal(one, other)
    metrics = json.loads((tmp_path / "spoilt" / "metrics.json").read_text())
    assert metrics["test"]["os"]["harrell_c"]["n"] > 0


@pytest.fixture
def quick():
    """A round of a small clinical network with batch normalisation."""
    return parse_experiment(
        """
        seed = 5
        data.modalities = ["clinical"]
        model = { norm = "batch", dropout = 0.1 }
        training = { epochs = 1, batch_size = 16, risk_window = 32, learning_rate = 0.01 }
        blending.interval = 1
        evaluation.bootstrap_replicates = 100
        """,
        source="test",
    )


def statistics(kind, value):
    """Running statistics of that kind, all of one value."""

    def changed(reply):
        weights = weights_in(reply)
        return with_weights(
            reply, weights | {name: np.full_like(each, value) for name, each in weights.items() if name.endswith(kind)}
        )

    return changed


TRAINED_STATISTICS = [
    (statistics("running_var", -1000), "running variance below 0"),
    (statistics("running_var", 1e30), "times the other sites'"),
    (statistics("running_mean", 1e30), "times the other sites'"),
    (statistics("running_mean", -1e30), "times the other sites'"),
]


@pytest.mark.parametrize(("deed", "reason"), TRAINED_STATISTICS)
@pytest.mark.parametrize("sites", [2, 3])
def test_running_statistics_that_cannot_be_are_left_out(quick, cohorts, federate, tmp_path, deed, reason, sites):
    def deliver(site, message, answer):
        return deed(answer()) if site == 1 and message.metadata.message_type == "train" else answer()

    federate(quick, [cohorts / f"site_{number + 1}" for number in range(sites)], tmp_path, deliver=deliver)
    (entry,) = read_audit(tmp_path)
    assert (entry["site"], entry["stage"], entry["decision"]) == ("site_2", "train", "left out")
    assert reason in entry["reason"]


@pytest.mark.parametrize("kind", ["running_var", "running_mean"])
def test_running_statistics_of_another_scanner_take_part(quick, cohorts, federate, tmp_path, kind):
    def deliver(site, message, answer):
        return statistics(kind, 50.0)(answer()) if site == 1 and message.metadata.message_type == "train" else answer()

    federate(quick, [cohorts], tmp_path, deliver=deliver)
    assert not (tmp_path / "audit.jsonl").exists()


COX = """
seed = 5
data.modalities = ["clinical"]
model.kind = "cox"
cox.stratified = STRATIFIED
evaluation.bootstrap_replicates = 100
"""


def fields(ends, change):
    """All fields whose names end so: their numbers, changed."""

    def changed(reply):
        honest = dict(reply.content.metric_records[protocol.METRICS])
        chosen = {key: value for key, value in honest.items() if key.endswith(ends)}
        assert chosen, ends
        changes = {
            key: [change(number) for number in value] if isinstance(value, list) else change(value)
            for key, value in chosen.items()
        }
        reply.content[protocol.METRICS] = MetricRecord({**honest, **changes})
        return reply

    return changed


def always(value):
    return lambda _: value


def made_up_times(reply):
    """Two hundred thousand patients, each censored at a time of one's own."""
    honest = dict(reply.content.metric_records[protocol.METRICS])
    for key in [key for key in honest if key.endswith(".times")]:
        times, name = [0.01 * number for number in range(200_000)], key.removesuffix(".times")
        honest[key] = times
        for field, value in (("events", 0.0), ("censored", 1.0), ("log-hazards", 0.0)):
            if f"{name}.{field}" in honest:
                honest[f"{name}.{field}"] = [value] * len(times)
    reply.content[protocol.METRICS] = MetricRecord(honest)
    return reply


LIES = [
    ("query", says(**{"training.age": [1e-300, 1e300, 1e300]}), "training.age"),
    ("query", says(**{"training.age": [-1.0, 1.0, 1.0]}), "training.age"),
    ("query", says(**{"training.age": [1e6, 6e7, 3.6e9]}), "training.age"),
    ("query", says(**{"training.age": [10.0, 600.0, 1.0]}), "training.age"),
    ("query", says(**{"cohort.age": [0.0, 0.0, 1e11]}), "cohort.age"),
    ("query", says(**{"with-image": 1e300}), "with-image"),
    ("evaluate", fields(".events", always(1e300)), "events"),
    ("evaluate", fields(".loss", always(1.7e308)), "loss"),
    ("evaluate.scale", fields(".squares", always(1e308)), "outputs.squares"),
    ("evaluate.scale", fields(".squares", always(0.0)), "outputs.squares"),
    ("evaluate.scale", fields(".total", always(1e308)), "outputs.total"),
    ("evaluate.scale", fields(".n", always(-1e6)), "outputs.n"),
    ("evaluate.development", fields(".log-hazards", always(1.7e308)), "log-hazards"),
    ("evaluate.development", fields(".events", always(1.7e308)), "events"),
    ("evaluate.development", fields(".events", always(1e6)), "events"),
    ("evaluate.development", made_up_times, "times, more than"),
    ("evaluate.development", fields((".events", ".censored"), always(0.0)), "at which no patient left"),
    ("evaluate.test", fields((".brier", ".size"), always(-1.7e308)), "negative"),
    ("evaluate.test", fields((".patients",), always(1e300)), "patients"),
    ("evaluate.pairs", fields("events", always(-1.7e308)), "events"),
    ("evaluate.pairs", fields("patients", always(0)), "'events' holds more than field 'patients'"),
    ("evaluate.pairs", fields("concordant", always(1e6)), "concordant"),
    ("evaluate.time_counts", fields(".events", always(1.7e308)), "events"),
    ("evaluate.time_counts", fields(".times", lambda time: 1e6 + time), "times"),
    ("evaluate.time_counts", made_up_times, "times, more than"),
]
COX_LIES = [
    ("evaluate.cox_columns", fields(("first", "second"), always(1.7e308)), "first"),
    ("evaluate.cox_columns", fields("second", always(0.0)), "second"),
    ("evaluate.cox_columns", says(patients=-100000), "patients"),
    ("evaluate.cox_columns", says(patients=10**9), "patients"),
    ("evaluate.cox_columns", says(events=1000), "events"),
    ("evaluate.cox_columns", says(**{"event-times": [0.001 * number for number in range(20_000)]}), "times, more than"),
    ("evaluate.cox_columns", says(**{"event-times": [1e6]}), "event-times"),
    ("evaluate.cox_sums", fields("at-risk.zeroth", always(1.7e308)), "at-risk.zeroth"),
    ("evaluate.cox_sums", fields("at-risk.zeroth", always(0.0)), "at-risk"),
    ("evaluate.cox_sums", fields("at-risk.second", always(-1e6)), "at-risk.second"),
    ("evaluate.cox_sums", fields("at-risk.second", always(1e100)), "at-risk.second"),
    ("evaluate.cox_sums", fields("at-risk.first", always(1e6)), "at-risk.second"),
    ("evaluate.cox_sums", fields("events", always(1e6)), "events"),
    ("evaluate.cox_likelihood", fields("information", always(-1e6)), "information"),
    ("evaluate.cox_likelihood", fields("value", always(-1.7e308)), "value"),
    ("evaluate.cox_baseline", fields("log-cumulative-hazard", always(1.7e308)), "log-cumulative-hazard"),
]


@pytest.mark.parametrize(
    ("stage", "lie", "reason"),
    LIES + COX_LIES,
    ids=[f"{stage} {number}" for number, (stage, *_) in enumerate(LIES + COX_LIES)],
)
def test_numbers_that_cannot_be_are_of_the_site_that_sent_them(quick, cohorts, federate, tmp_path, stage, lie, reason):
    """One lie in any field: the run goes on without it, and the audit log names the liar and the field."""
    stratified = stage in ("evaluate.cox_likelihood", "evaluate.cox_baseline")
    cox = parse_experiment(COX.replace("STRATIFIED", str(stratified).lower()), source="test")

    def deliver(site, message, answer):
        return lie(answer()) if site == 1 and message.metadata.message_type == stage else answer()

    federate(cox if ".cox_" in stage else quick, [cohorts], tmp_path, deliver=deliver)
    audit = read_audit(tmp_path)
    # In a simulation a node that never said who it is has no name but its number.
    assert {entry["site"] for entry in audit} == {"node 101" if stage == "query" else "site_2"}
    assert reason in audit[0]["reason"]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= metrics["test"]["os"]["harrell_c"]["value"] <= 1


def test_a_validation_set_does_not_grow(quick, cohorts, federate, tmp_path):
    """One round with more events would be the only one that compares, and be selected."""

    def deliver(site, message, answer):
        number = message.content.config_records[protocol.CONFIG].get(protocol.ROUND)
        if (site, message.metadata.message_type, number) == (1, "evaluate", 1):
            return fields("validation.events", lambda count: count + 1)(answer())
        return answer()

    federate(quick, [cohorts], tmp_path, deliver=deliver)
    (entry,) = read_audit(tmp_path)
    assert (entry["site"], entry["stage"], entry["round"]) == ("site_2", "evaluate", 1)
    assert "another number of events than before" in entry["reason"]


@pytest.mark.parametrize(("factor", "decision"), [(1e9, "left out"), (40.0, "warning")])
def test_of_two_sites_a_large_update_is_left_out_where_it_exceeds_the_weights(
    experiment, cohorts, federate, tmp_path, factor, decision
):
    training = experiment.training.model_copy(update={"learning_rate": 1e-5, "epochs": 2, "schedule": "constant"})

    def deliver(site, message, answer):
        reply = answer()
        if site == 1 and message.metadata.message_type == "train":
            reply.sent = weights_in(message)
            return enlarged(reply, factor)
        return reply

    sites = [cohorts / "site_1", cohorts / "site_2"]
    federate(experiment.model_copy(update={"training": training}), sites, tmp_path / "run", deliver=deliver)
    audit = read_audit(tmp_path / "run")
    assert {(entry["site"], entry["decision"]) for entry in audit} == {("site_2", decision)}


def test_min_sites_unmet_stops_with_a_checkpoint_from_which_the_same_command_goes_on(
    experiment, cohorts, federate, tmp_path
):
    federation = experiment.federation.model_copy(update={"min_sites": 3})
    strict = slower(experiment).model_copy(update={"federation": federation})

    def deliver(site, message, answer):
        round_number = message.content.config_records[protocol.CONFIG].get(protocol.ROUND)
        if site == 2 and message.metadata.message_type == "train" and round_number == 3:
            return None
        return answer()

    federate(strict, [cohorts], tmp_path / "whole")
    with pytest.raises(RunError, match=r"2 of 3 sites gave a usable reply.*same command .* goes on"):
        federate(strict, [cohorts], tmp_path / "broken", deliver=deliver)
    assert "min_sites" in (tmp_path / "broken" / "failure.txt").read_text()
    assert torch.load(tmp_path / "broken" / "checkpoints" / "fold-0.pt", weights_only=True)["round"] == 2
    federate(strict, [cohorts], tmp_path / "broken")
    one, other = (torch.load(tmp_path / run / "checkpoints" / "fold-0.pt", weights_only=True)["weights"]
                  for run in ("whole", "broken"))  # fmt: skip
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_site_that_misses_a_checkpoint_is_no_change_of_the_loss(experiment, cohorts, federate, tmp_path):
    """Changes are taken on the same patients at both ends: a site seen at one end only contributes nothing."""
    experiment = slower(experiment)
    sums = []

    def deliver(site, message, answer):
        reply = answer()
        if message.metadata.message_type == "evaluate":
            round_number = message.content.config_records[protocol.CONFIG][protocol.ROUND]
            sums.append((round_number, site, reply.content.metric_records[protocol.METRICS]))
            if site == 0 and round_number == 2:
                return Message(Error(code=3, reason="node unavailable at /home/x"), reply_to=message)
        return reply

    federate(experiment, [cohorts], tmp_path / "run", deliver=deliver)
    (entry,) = read_audit(tmp_path / "run")
    assert (entry["site"], entry["round"], entry["stage"]) == ("site_1", 2, "evaluate")
    assert (
        entry["reason"] == "no answer: the message or its answer did not come across whole"
    )  # and not what Flower's error says of the site
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    replies = {site: numbers for round_number, site, numbers in sums if round_number == 2}
    present = [losses_from_numbers(replies[site], experiment, 2) for site in (1, 2)]
    expected = blend(start_blending(experiment.blending, 3), present[0] + present[1], experiment)
    assert history[history["round"] == 2]["weight"].tolist() == pytest.approx(expected.weights)
    assert metrics_round(tmp_path / "run") in (1, 3, 4)  # the loss of round 2 rests on other patients


def metrics_round(run):
    return json.loads((run / "metrics.json").read_text())["selected_rounds"][0]


def test_a_site_whose_sets_are_below_its_minimum_does_not_take_part(experiment, cohorts, federate, tmp_path):
    def deliver(site, message, answer):
        if site == 0 and message.metadata.message_type == "query":
            file = tmp_path / "run" / "sites" / "0.toml"
            file.write_text(file.read_text().replace("min_cell_size = 1", "min_cell_size = 10"))
        return answer()

    federate(experiment, [cohorts], tmp_path / "run", deliver=deliver)
    log = (tmp_path / "run" / "audit.jsonl").read_text()
    assert "refused: the experiment leaves a set of fewer patients than the site's minimum cell size" in log
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["tested_sites"] == ["site_2", "site_3"]


def test_a_fault_at_a_site_reaches_the_server_as_a_safe_sentence(experiment, cohorts, federate, tmp_path):
    """The image of a patient breaks between the check and the run."""
    import shutil

    broken = tmp_path / "cohorts"
    shutil.copytree(cohorts, broken)

    def deliver(site, message, answer):
        if site == 1 and message.metadata.message_type == "query":
            for image in (broken / "site_2" / "images").glob("*/t1.nii.gz"):
                image.write_bytes(b"not an image")
        return answer()

    federate(experiment, [broken], tmp_path / "run", deliver=deliver)
    log = (tmp_path / "run" / "audit.jsonl").read_text()
    assert "stsmm cohort check" in log
    assert "site_2" not in log  # a node that never said its name has none
    patients = (broken / "site_2" / "clinical.csv").read_text().splitlines()[1:]
    for line in patients:
        assert line.split(",")[0] not in log
    assert str(tmp_path) not in log
    own = tmp_path / "run" / "sites" / "site_2" / "site.log"
    assert "t1.nii.gz" in own.read_text()
    assert own.stat().st_mode & 0o077 == 0  # it names patients and paths
