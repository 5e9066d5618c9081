import json

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from simulation.simulate import parallel_centres
from stsmm_core.config import to_toml
from stsmm_core.imaging.flag_kinds import FLAG_KINDS, KINDS_AS_READ
from stsmm_core.training.train import train_run


def train(experiment, cohorts, out, cache):
    config = out.parent / f"{out.name}.toml"
    config.write_text(to_toml(experiment))
    train_run(Console(quiet=True), config, cohorts, out, cache=cache)


def weights(run, name):
    return torch.load(run / "checkpoints" / "fold-0.pt", weights_only=True)[name]


@pytest.fixture
def same_threads():
    """Sums of floats depend on how many threads share them: both take as many as a single virtual centre."""
    before = torch.get_num_threads()
    torch.set_num_threads(parallel_centres(1)[1])
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "evaluation", [{}, {"scheme": "cv", "folds": 2, "repeats": 2}, {"scheme": "cv", "folds": 2, "members": 2}]
)
def test_a_federation_of_one_centre_equals_centralised_training(
    experiment, cohorts, federate, tmp_path, same_threads, cache, evaluation
):
    experiment = experiment.model_copy(
        update={
            "evaluation": experiment.evaluation.model_copy(update=evaluation),
            "model": experiment.model.model_copy(update={"modality_dropout": 0.3}),
        }
    )
    train(experiment, [cohorts / "site_1"], tmp_path / "centralised", cache)
    federate(experiment, [cohorts / "site_1"], tmp_path / "federated")
    histories = [pd.read_csv(tmp_path / mode / "history.csv") for mode in ("centralised", "federated")]
    pd.testing.assert_frame_equal(*histories, rtol=1e-6)
    for name in ("weights", "selected"):
        alone, together = weights(tmp_path / "centralised", name), weights(tmp_path / "federated", name)
        assert alone.keys() == together.keys()
        for key in alone:
            torch.testing.assert_close(together[key], alone[key], rtol=1e-5, atol=1e-6)
    alone, together = (
        json.loads((tmp_path / mode / "metrics.json").read_text()) for mode in ("centralised", "federated")
    )
    for head, results in alone["heads"].items():
        for endpoint, figures in results.items():
            assert figures["harrell_c"] == together["heads"][head][endpoint]["harrell_c"]
    (flags,) = (site["image_flags"] for site in alone["cohorts"])
    for kind in set(FLAG_KINDS) - set(KINDS_AS_READ):  # they stay at the site
        del flags[kind]
    assert alone["cohorts"] == together["cohorts"]
    assert alone["selected_rounds"] == together["selected_rounds"]
    assert len(alone["selected_rounds"]) == experiment.evaluation.runs
    if evaluation:  # every patient is tested, and counts once
        assert alone["test"]["os"]["harrell_c"]["n"] == alone["cohorts"][0]["patients"]


def test_training_changes_the_weights_and_blending_its_own(experiment, cohorts, federate, tmp_path):
    federate(experiment, [cohorts], tmp_path / "run")
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    fusion = history[history["head"] == "fusion"]
    assert list(fusion["round"]) == [0, 1, 2, 3, 4]
    assert fusion["train_loss"].notna().tolist() == [True, False, True, False, True]
    assert fusion["validation_loss"].nunique() == 5
    sums = history.groupby("round")["weight"].sum()
    np.testing.assert_allclose(sums, 1)
    assert history[history["round"] == 4]["weight"].nunique() > 1
