"""Cohort folders given on the command line, checked and ready."""

from collections.abc import Sequence
from pathlib import Path

from stsmm_core.cohort.check import check_cohort
from stsmm_core.cohort.cohort import MANIFEST_FILE, Cohort
from stsmm_core.cohort.reading import cohort_folders, load_cohort
from stsmm_core.config import Experiment
from stsmm_core.errors import CohortError
from stsmm_core.imaging.channels import channel_notes
from stsmm_core.training.site_data import agreed_channels, complete_from_masks


def open_cohorts(folders: Sequence[Path]) -> list[Cohort]:
    """Check and read cohorts; a folder of cohort folders stands for all of them.

    Raises:
        CohortError: with every fault of every cohort, or when two have the same site or other channels.
    """
    roots = cohort_folders(folders)
    faults = [
        f"  {root.name}: {finding}" for root in roots for finding in check_cohort(root) if finding.severity == "fault"
    ]
    if faults:
        raise CohortError(f"{len(faults)} faults in the cohorts; nothing was trained\n" + "\n".join(faults))
    cohorts = [complete_from_masks(load_cohort(root)) for root in roots]
    sites = [cohort.manifest.site for cohort in cohorts]
    repeated = sorted({site for site in sites if sites.count(site) > 1})
    if repeated:
        raise CohortError(
            f"more than one cohort says it is site {', '.join(repeated)}; give each its own site in {MANIFEST_FILE}"
        )
    agreed_channels({cohort.manifest.site: cohort.manifest.channels for cohort in cohorts})
    return cohorts


def notes_on_channels(cohorts: Sequence[Cohort], experiment: Experiment) -> list[str]:
    """What the experiment leaves undone with the cohorts' channels (`imaging.channels.channel_notes`).

    Raises:
        ConfigError: when a channel is to be registered that the cohorts do not have.
    """
    if "image" not in experiment.data.modalities:
        return []
    channels = agreed_channels({cohort.manifest.site: cohort.manifest.channels for cohort in cohorts})
    return channel_notes(channels, experiment.imaging)


def describe_cohorts(cohorts: Sequence[Cohort]) -> str:
    """Which cohorts a command took, for the person who named a folder of them."""
    return "Cohorts: " + ", ".join(f"{cohort.manifest.site} ({len(cohort.patients)} patients)" for cohort in cohorts)
