"""Replies that do not fit are left out with a reason; the round goes on, and nothing of a site is in the reason."""

import json

import numpy as np
import pandas as pd
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord

from stsmm_core import protocol
from stsmm_core.errors import RunError
from stsmm_core.protocol import losses_from_numbers
from stsmm_core.training.blending import start_blending
from stsmm_core.training.experiment import blend


def replace_arrays(reply, change):
    arrays = reply.content.array_records[protocol.ARRAYS]
    changed = {name: Array(change(array.numpy())) for name, array in arrays.items()}
    reply.content[protocol.ARRAYS] = ArrayRecord(changed)
    return reply


def poisoned(reply):
    def change(array):
        array = array.copy()
        array.flat[0] = np.nan
        return array

    return replace_arrays(reply, change)


def misshapen(reply):
    return replace_arrays(reply, lambda array: array[None])


def renamed(reply):
    arrays = reply.content.array_records[protocol.ARRAYS]
    reply.content[protocol.ARRAYS] = ArrayRecord({f"x.{name}": array for name, array in arrays.items()})
    return reply


def empty(reply):
    del reply.content[protocol.ARRAYS]
    return reply


def weightless(reply):
    numbers = reply.content.metric_records[protocol.METRICS]
    reply.content[protocol.METRICS] = MetricRecord({**numbers, protocol.WEIGHT: float("nan")})
    return reply


def test_bad_updates_are_left_out_and_the_run_goes_on(experiment, cohorts, federate, tmp_path):
    spoilt = {1: (poisoned, "not finite"), 2: (misshapen, "other arrays"), 3: (renamed, "other arrays")}
    spoilt |= {4: (empty, "agreed records"), 5: (weightless, "no valid weight")}
    longer = experiment.model_copy(update={"training": experiment.training.model_copy(update={"epochs": 6})})

    def deliver(site, message, answer):
        reply = answer()
        round_number = message.content.config_records[protocol.CONFIG].get(protocol.ROUND)
        if site == 1 and message.metadata.message_type == "train" and round_number in spoilt:
            return spoilt[round_number][0](reply)
        return reply

    federate(longer, [cohorts], tmp_path / "run", deliver=deliver)
    lines = (tmp_path / "run" / "left_out.log").read_text().splitlines()
    assert len(lines) == len(spoilt)
    for line, (round_number, (_, reason)) in zip(lines, spoilt.items(), strict=True):
        assert line.startswith(f"site_2: round {round_number}: ")
        assert reason in line
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["os"]["harrell_c"]["n"] > 0


def test_a_site_that_misses_a_checkpoint_is_no_change_of_the_loss(experiment, cohorts, federate, tmp_path):
    """Changes are taken on the same patients at both ends: a site seen at one end only contributes nothing."""
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
    assert (tmp_path / "run" / "left_out.log").read_text() == "site_1: round 2: no answer (Flower error 3)\n"
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
    log = (tmp_path / "run" / "left_out.log").read_text()
    assert "refused: the experiment leaves a set of fewer patients than the site's minimum cell size" in log
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["tested_sites"] == ["site_2", "site_3"]


def test_too_few_sites_stop_the_run_with_a_reason(experiment, cohorts, federate, tmp_path):
    strict = experiment.model_copy(update={"federation": experiment.federation.model_copy(update={"min_sites": 3})})

    def deliver(site, message, answer):
        gone = site == 2 and message.metadata.message_type == "train"
        return Message(Error(code=3, reason="gone"), reply_to=message) if gone else answer()

    with pytest.raises(RunError, match="2 of 3 sites gave a usable reply"):
        federate(strict, [cohorts], tmp_path / "run", deliver=deliver)
    assert "min_sites" in (tmp_path / "run" / "failure.txt").read_text()


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
    log = (tmp_path / "run" / "left_out.log").read_text()
    assert "stsmm cohort check" in log
    assert "site_2" not in log  # a node that never said its name has none
    patients = (broken / "site_2" / "clinical.csv").read_text().splitlines()[1:]
    for line in patients:
        assert line.split(",")[0] not in log
    assert str(tmp_path) not in log
    own = (tmp_path / "run" / "sites" / "site_2" / "site.log").read_text()
    assert "t1.nii.gz" in own
