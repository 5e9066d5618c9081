"""A site whose manifest names no image channel trains beside sites with images."""

import json
import shutil

import pandas as pd


def test_it_trains_in_every_round_and_is_tested(federate, experiment, cohorts, tmp_path):
    sites = [tmp_path / "cohorts" / f"site_{number}" for number in (1, 2, 3)]
    for site in sites:
        shutil.copytree(cohorts / site.name, site)
    without = sites[1]
    shutil.rmtree(without / "images")
    manifest = (without / "cohort.toml").read_text()
    start, end = manifest.index("channels = ["), manifest.index("]", manifest.index("channels = ["))
    (without / "cohort.toml").write_text(manifest[:start] + "channels = [" + manifest[end:])
    table = pd.read_csv(without / "clinical.csv", dtype=str, keep_default_na=False)
    assert len(table) > 10
    assert experiment.imaging.augmentation.rotation_degrees > 0  # there is nothing to turn at this site
    federate(experiment, sites, tmp_path / "run")
    assert not (tmp_path / "run" / "audit.jsonl").exists()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["tested_sites"] == ["site_1", "site_2", "site_3"]
    (described,) = [site for site in metrics["cohorts"] if site["site"] == "site_2"]
    assert described["with_image"] == 0
