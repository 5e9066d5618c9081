"""A site's centre, opened once a process, and its log."""

import logging
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import torch

from client.site import Site, check_policy, read_site
from stsmm_core import protocol
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.config import Experiment, parse_experiment
from stsmm_core.errors import ConfigError
from stsmm_core.training.centre import Centre, open_centre
from stsmm_core.training.site_data import complete_from_masks, load_site_data


@lru_cache(maxsize=8)
def open_site(site_file: Path, experiment_text: str, run: str = "") -> tuple[Site, Centre]:
    """Read a site's settings and load its patients for an experiment.

    The device is the site's own choice, whatever the experiment says.

    Args:
        run: name of the run; what the site keeps of it lies in a folder of that name.
    """
    site = read_site(site_file)
    torch.set_num_threads(site.threads)
    experiment = parse_experiment(experiment_text, source="the run's experiment")
    experiment = _on_device(experiment, site.device)
    cohort = load_cohort(site.cohort)
    if site.patients is not None:
        cohort = cohort.subset(site.patients)
    cohort = replace(cohort, manifest=cohort.manifest.model_copy(update={"site": site.name}))
    cohort = complete_from_masks(cohort)
    data = load_site_data(cohort, experiment, cache=site.cache)
    centre = open_centre(experiment, cohort, data, folder=site.folder / protocol.run_name(run), salt=site.salt)
    check_policy(site, centre)
    return site, centre


@cache
def site_log(site_file: Path) -> logging.Logger:
    """The site's own log; nothing of it is passed on to a log that may leave the site.

    It may name patients: like all else in the folder, only the node's own user can read it.
    """
    try:
        folder = read_site(site_file).folder
    except ConfigError:
        folder = site_file.parent
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "site.log"
    file.touch()
    file.chmod(0o600)
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger(f"stsmm.site.{site_file}")
    logger.addHandler(handler)
    logger.propagate = False
    return logger


def _on_device(experiment: Experiment, device: str) -> Experiment:
    training = experiment.training.model_copy(update={"device": device})
    return experiment.model_copy(update={"training": training})
