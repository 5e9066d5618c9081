"""A site whose manifest names no image channel trains beside sites with images."""

import json
import shutil
from functools import reduce
from operator import add

import pandas as pd
import pytest
from rich.console import Console

from simulation.trainings import open_centres, train_pooled
from stsmm_core.training.experiment import load_progress
from stsmm_core.training.inputs import open_cohorts
from stsmm_core.training.rounds import LEAST_SELECTING_EVENTS
from stsmm_core.training.site_data import pool, pool_folds
from stsmm_core.training.state import SiteState
from stsmm_core.training.trainer import Trainer


@pytest.fixture
def sites(cohorts, tmp_path):
    """Three cohorts, the second without images."""
    sites = [tmp_path / "cohorts" / f"site_{number}" for number in (1, 2, 3)]
    for site in sites:
        shutil.copytree(cohorts / site.name, site)
    without = sites[1]
    shutil.rmtree(without / "images")
    manifest = (without / "cohort.toml").read_text()
    start, end = manifest.index("channels = ["), manifest.index("]", manifest.index("channels = ["))
    (without / "cohort.toml").write_text(manifest[:start] + "channels = [" + manifest[end:])
    return sites


def test_it_trains_in_every_round_and_is_tested(federate, experiment, sites, tmp_path):
    table = pd.read_csv(sites[1] / "clinical.csv", dtype=str, keep_default_na=False)
    assert len(table) > 10
    assert experiment.imaging.augmentation.rotation_degrees > 0  # there is nothing to turn at this site
    federate(experiment, sites, tmp_path / "run")
    assert not (tmp_path / "run" / "audit.jsonl").exists()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["tested_sites"] == ["site_1", "site_2", "site_3"]
    (described,) = [site for site in metrics["cohorts"] if site["site"] == "site_2"]
    assert described["with_image"] == 0


@pytest.fixture
def much_to_validate(experiment):
    """So many patients validate that the sites with images have events enough to select."""
    evaluation = experiment.evaluation.model_copy(update={"train_fraction": 0.4, "validation_fraction": 0.45})
    return experiment.model_copy(update={"evaluation": evaluation})


def test_the_round_is_selected_by_the_sites_with_images(federate, much_to_validate, sites, tmp_path, cache):
    experiment = much_to_validate
    centres = open_centres(Console(quiet=True), experiment, open_cohorts(sites), tmp_path / "read", cache=cache)
    federate(experiment, sites, tmp_path / "federated")
    assert train_pooled(Console(quiet=True), centres, tmp_path / "pooled", name="all") is None
    federated, pooled = (load_progress(tmp_path / run / "checkpoints" / "fold-0.pt") for run in ("federated", "pooled"))
    imaging = [centres[0], centres[2]]
    by_site = [centre.trainer(0, federated.encoding, channels=2).loss_sums(federated.selected)[1] for centre in imaging]
    assert reduce(add, by_site).events[0].sum() >= LEAST_SELECTING_EVENTS
    assert federated.selected_loss == pytest.approx(reduce(add, by_site).per_event()[0], rel=1e-5)
    data = [centre.data for centre in imaging]
    together = Trainer(
        experiment,
        pool(data),
        pool_folds(data, [centre.folds[0] for centre in imaging]),
        pooled.encoding,
        channels=2,
        state=SiteState(tmp_path / "state", 0),
    )
    assert pooled.selected_loss == pytest.approx(together.loss_sums(pooled.selected)[1].per_event()[0], rel=1e-5)
    validation = pd.read_csv(tmp_path / "federated" / "history.csv").query("head == 'fusion'")["validation_loss"]
    assert abs(validation - federated.selected_loss).min() > 1e-3  # that of all sites is another


def test_where_sites_with_images_have_few_validation_events_all_select(experiment, sites, tmp_path, cache):
    centres = open_centres(Console(quiet=True), experiment, open_cohorts(sites), tmp_path / "read", cache=cache)
    validation = [centre.data.outcomes[centre.folds[0].validation] for centre in (centres[0], centres[2])]
    assert 0 < sum(outcomes.events().sum() for outcomes in validation) < LEAST_SELECTING_EVENTS
    assert train_pooled(Console(quiet=True), centres, tmp_path / "run", name="all") is None
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    history = history[(history["head"] == "fusion") & (history["round"] > 0)]
    progress = load_progress(tmp_path / "run" / "checkpoints" / "fold-0.pt")
    assert progress.selected_loss == pytest.approx(history["validation_loss"].min(), rel=1e-6)
