"""stsmm simulate --compare over a tiny consortium in this process."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from simulation import compare as comparison
from simulation import trainings
from simulation.compare import COMPARISON_TABLE, compare_run
from simulation.partition import Equal
from simulation.tested import count_by_sites, count_everywhere
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.config import parse_experiment, read_experiment
from stsmm_core.errors import RunError
from stsmm_core.run_folder import COMPARISON_FILE, FAILURE_FILE, METRICS_FILE
from stsmm_core.survival.concordance import concordance, total
from stsmm_core.training.inputs import open_cohorts

CONFIG = """
seed = 5
data.modalities = ["clinical"]
training = { epochs = 4, batch_size = 16, risk_window = 32, learning_rate = 0.05 }
blending.interval = 2
evaluation.bootstrap_replicates = 100
"""
SITES = ("site_1", "site_2", "site_3")


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory):
    """Tables of three hospitals; the last is so small that alone it has nothing to learn from."""
    out = tmp_path_factory.mktemp("hospitals") / "cohorts"
    write_synthetic_cohorts(out, sites=3, patients=90, seed=3)
    sheet = pd.read_csv(out / "site_3" / "clinical.csv", dtype=str)
    sheet = sheet.assign(os_event="0", dm_event=sheet["dm_event"].where(sheet["dm_event"].isna(), "0"))
    sheet.to_csv(out / "site_3" / "clinical.csv", index=False)
    return out


@pytest.fixture
def compare(hospitals, tmp_path, simulated_in_process):
    config = tmp_path / "experiment.toml"

    def run(*, leave_one_out: bool = False, partition=None, settings: str = ""):
        config.write_text(settings + CONFIG)
        out = tmp_path / "run"
        cohorts = [hospitals] if partition is None else [hospitals / "site_1"]
        compare_run(
            Console(quiet=True),
            config,
            cohorts,
            out,
            partition=partition,
            cache=tmp_path / "cache",
            leave_one_out=leave_one_out,
        )
        return out

    return run


def figures_of(out) -> pd.DataFrame:
    return pd.DataFrame(json.loads((out / COMPARISON_FILE).read_text())["figures"])


@pytest.mark.slow
def test_the_whole_comparison(compare, simulated_in_process, hospitals):
    out = compare(leave_one_out=True)
    assert [run.name for run in simulated_in_process] == ["federated", *SITES]
    figures = figures_of(out)
    assert set(figures["weights"]) == {"selected", "final"}
    check_totals(out, figures)
    check_reasons(out, figures)
    check_pairing(out, hospitals)
    check_page(out, hospitals)
    check_resumed(compare, simulated_in_process, out)
    check_the_word_of_sites(compare, out)


def find(figures: pd.DataFrame, name: str, site: str | None = None, weights: str = "selected", endpoint: str = "os"):
    rows = figures[(figures["name"] == name) & (figures["weights"] == weights) & (figures["endpoint"] == endpoint)]
    rows = rows[rows["site"].isna() if site is None else rows["site"] == site]
    assert len(rows) == 1
    return rows.iloc[0]


def check_totals(out, figures):
    """The federated and centralised figures are those of the runs' own metrics, and the tables add up."""
    for run in ("federated", "centralised"):
        metrics = json.loads((out / run / METRICS_FILE).read_text())
        for endpoint in ("os", "dm"):
            own, shown = metrics["test"][endpoint]["harrell_c"], find(figures, run, endpoint=endpoint)
            assert shown["value"] == pytest.approx(own["value"], abs=1e-12)
            assert (shown["low"], shown["high"]) == pytest.approx((own["ci_low"], own["ci_high"]), abs=1e-12)
            assert (shown["n"], shown["events"], shown["pairs"]) == (own["n"], own["events"], own["pairs"])
    gap = find(figures, "federated_minus_centralised")["value"]
    assert gap == pytest.approx(find(figures, "federated")["value"] - find(figures, "centralised")["value"])
    by_site = [find(figures, "alone", site) for site in ("site_1", "site_2")]
    pairs = sum(row["pairs"] for row in by_site)
    assert find(figures, "alone")["value"] == pytest.approx(sum(row["value"] * row["pairs"] for row in by_site) / pairs)
    assert find(figures, "alone")["pairs"] == pairs
    for site in ("site_1", "site_2"):
        local = json.loads((out / "local" / site / METRICS_FILE).read_text())["test"]["os"]["harrell_c"]
        assert find(figures, "alone", site)["value"] == pytest.approx(local["value"], abs=1e-12)
    table = pd.read_csv(out / COMPARISON_TABLE)
    np.testing.assert_allclose(table["value"], figures["value"].astype(float))


def check_reasons(out, figures):
    """Every figure has an interval or a reason; a site without an event has no model of its own."""
    bare = figures[figures["low"].isna()]
    assert bare["reason"].notna().all()
    alone = find(figures, "alone", "site_3")
    assert "no model of its own" in alone["reason"]
    assert "no training patient" in alone["reason"]
    assert np.isnan(alone["value"])
    assert (out / "local" / "site_3" / FAILURE_FILE).exists()
    assert not (out / "local" / "site_3" / METRICS_FILE).exists()
    assert np.isfinite(find(figures, "loss_of_others", "site_3")["value"])
    assert find(figures, "loss_of_site", "site_3")["reason"] == "no event"


def check_pairing(out, hospitals):
    """Models of different runs see the same samples of the same test patients."""
    experiment = read_experiment(out / "config.toml")
    centres = trainings.open_centres(
        Console(quiet=True), experiment, open_cohorts([hospitals]), out, cache=out.parent / "cache"
    )
    federated = count_by_sites(centres, out / "federated")
    retested = count_everywhere(centres, out / "federated", "selected", out / "again")
    others = [
        count_everywhere(centres, out / run, "selected", out / "again" / run)
        for run in ("centralised", "local/site_1", "without/site_2")
    ]
    for site in SITES:
        for column in range(2):
            mine = federated[site][column]
            assert concordance(retested[site][column]) == concordance(mine)
            for other in others:
                np.testing.assert_array_equal(other[site][column].comparable_replicates, mine.comparable_replicates)
    apart = [total([other[site][0] for site in SITES]).concordant for other in others]
    assert len({*apart, total([federated[site][0] for site in SITES]).concordant}) > 1  # the models do differ


def check_page(out, hospitals):
    page = (out / "report.html").read_text()
    assert "Is it worth joining?" in page
    assert "does not show a gain" in page
    assert "When a site is left out" in page
    assert "Synthetic data" in page
    assert 'src="http' not in page
    patients = pd.read_csv(hospitals / "site_1" / "clinical.csv", dtype=str)["patient_id"]
    for name in ("report.html", COMPARISON_FILE, COMPARISON_TABLE, "inputs.json"):
        text = (out / name).read_text()
        assert not [patient for patient in patients if patient in text]
        assert str(hospitals) not in text


def check_resumed(compare, trained, out):
    """Given again, the command trains only what is missing, and finds the same."""
    before = (out / COMPARISON_FILE).read_text()
    count = len(trained)
    compare(leave_one_out=True)
    assert len(trained) == count
    (out / "without" / "site_2" / METRICS_FILE).unlink()
    (out / COMPARISON_FILE).unlink()
    compare(leave_one_out=True)
    assert [run.name for run in trained[count:]] == ["site_2"]
    assert (out / COMPARISON_FILE).read_text() == before


def check_the_word_of_sites(compare, out):
    """What a site says that it predicts counts for the selected round."""
    path = out / "federated" / "sites" / "site_1" / "predictions-0.csv"
    predictions = pd.read_csv(path)
    predictions[["os", "dm"]] = -predictions[["os", "dm"]]
    predictions.to_csv(path, index=False)
    before = find(figures_of(out), "federated", "site_1")["value"]
    compare()
    assert find(figures_of(out), "federated", "site_1")["value"] == pytest.approx(1 - before)


@pytest.mark.slow
def test_where_sites_keep_heads_of_their_own_nothing_is_said_of_the_last_round(compare):
    out = compare(settings="federation.personal_epochs = 2\n")
    assert set(figures_of(out)["weights"]) == {"selected"}
    assert "keep layers of their own" in (out / "report.html").read_text()


def test_a_site_without_images_trains_and_tests_the_same_network(tmp_path, cache, monkeypatch):
    write_synthetic_cohorts(tmp_path / "cohorts", sites=2, patients=40, seed=4)
    plain = tmp_path / "cohorts" / "site_2"
    manifest = (plain / "cohort.toml").read_text()
    (plain / "cohort.toml").write_text(re.sub(r"channels = \[[^]]*\]", "channels = []", manifest))
    shutil.rmtree(plain / "images")
    experiment = parse_experiment(
        CONFIG.replace('data.modalities = ["clinical"]', "imaging.shape = [16, 16, 16]")
        .replace("epochs = 4", "epochs = 2")
        .replace("blending", 'model.image_encoder = "small_densenet"\nblending'),
        source="test",
    )
    out = tmp_path / "run"
    console = Console(quiet=True)
    centres = trainings.open_centres(console, experiment, open_cohorts([tmp_path / "cohorts"]), out, cache=cache)
    assert [centre.data.channels for centre in centres] == [2, 2]
    assert not centres[1].data.has_image.any()
    assert trainings.train_pooled(console, [centres[1]], out / "local", name="model") is None
    tests = count_everywhere(centres, out / "local", "final", out / "tested")
    assert [tests[centre.site][0].patients for centre in centres] == [
        int(np.isfinite(centre.data.outcomes.time[centre.folds[0].test, 0]).sum()) for centre in centres
    ]
    check_what_models_see(centres, out, monkeypatch)


def check_what_models_see(centres, out, monkeypatch):
    """Its own model has an image encoder that nobody trained: it looks at nobody's images."""
    seen = {}

    def look(tested, run, *_):
        seen[run] = [bool(centre.data.has_image.any()) for centre in tested]
        return {}

    monkeypatch.setattr(comparison, "count_everywhere", look)
    monkeypatch.setattr(comparison, "count_by_sites", lambda *_: {})
    comparison._tests(centres, out, "selected", {"site_1": None, "site_2": None}, {})
    assert seen == {
        out / "federated": [True, False],
        out / "centralised": [True, False],
        out / "local" / "site_1": [True, False],
        out / "local" / "site_2": [False, False],
    }


def test_a_federation_too_small_for_its_strategy_is_a_reason(hospitals, tmp_path):
    experiment = parse_experiment(CONFIG + 'federation.strategy = "krum"\n', source="test")
    virtual = open_cohorts([hospitals])
    reason = trainings.train_without(
        Console(quiet=True), experiment, virtual, None, tmp_path / "run", site="site_1", cache=tmp_path / "cache"
    )
    assert reason == "federation.strategy = 'krum' needs 5 sites"
    assert not (tmp_path / "run").exists()


def test_an_interrupted_part_leaves_no_result_and_goes_on(compare, monkeypatch, tmp_path):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    whole = trainings.train_models
    monkeypatch.setattr(trainings, "train_models", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(partition=Equal(2))
    run = tmp_path / "run"
    assert not (run / COMPARISON_FILE).exists()
    assert not list((run / "centralised").glob("*.txt"))
    monkeypatch.setattr(trainings, "train_models", whole)
    out = compare(partition=Equal(2))
    figures = figures_of(out)
    assert set(figures["site"].dropna()) == {"centre_1", "centre_2"}
    assert "loss_of_others" not in set(figures["name"])
    with pytest.raises(RunError, match="on other data"):
        compare(partition=Equal(3))


def test_one_centre_has_nobody_to_join(compare):
    with pytest.raises(RunError, match="at least two centres"):
        compare(partition=Equal(1))
