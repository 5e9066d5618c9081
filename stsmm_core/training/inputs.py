"""Cohort folders given on the command line, checked and ready."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from stsmm_core.cohort.check import check_cohort
from stsmm_core.cohort.cohort import MANIFEST_FILE, Cohort
from stsmm_core.cohort.reading import cohort_folders, load_cohort
from stsmm_core.cohort.splits import make_folds
from stsmm_core.config import Experiment
from stsmm_core.errors import CohortError
from stsmm_core.imaging.batch import Job
from stsmm_core.imaging.channels import channel_notes
from stsmm_core.model.image_encoder import build_image_encoder
from stsmm_core.model.pretrained import LoadedWeights, load_pretrained
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
        number = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise CohortError(f"{number} in the cohorts; nothing was done\n" + "\n".join(faults))
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


def notes_on_unknown_variables(cohorts: Sequence[Cohort], experiment: Experiment) -> list[str]:
    """A sentence for each variable of the experiment that no patient of a site has: a misspelt heading perhaps."""
    if "clinical" not in experiment.data.modalities:
        return []
    notes = []
    for variable in experiment.data.variables:
        without = [each.manifest.site for each in cohorts if each.clinical[variable].isna().all()]
        if without:
            notes.append(
                f"{variable} is not known of any patient of {', '.join(without)}"
                + ("; the model cannot learn from it" if len(without) == len(cohorts) else "")
            )
    return notes


def _check_division(experiment: Experiment, cohorts: Sequence[Cohort]) -> None:
    """Refuse what would train, select or test on nobody at any site."""
    divided = [
        make_folds(cohort, experiment.evaluation, endpoints=experiment.data.endpoints, seed=experiment.seed)
        for cohort in cohorts
    ]
    for folds in zip(*divided, strict=True):
        sizes = {name: sum(len(getattr(fold, name)) for fold in folds) for name in ("train", "validation", "test")}
        empty = [name for name, size in sizes.items() if not size]
        if empty:
            raise CohortError(
                f"too few patients in all ({sum(sizes.values())}) for evaluation.scheme = "
                f"'{experiment.evaluation.scheme}': of {' and '.join(empty)} patients there would be none; "
                "add patients, or change the fractions or folds in section evaluation"
            )


def announce_inputs(console: Console, experiment: Experiment, cohorts: Sequence[Cohort]) -> None:
    """Say which cohorts a command took, what they lack, what is odd of their channels, and what was loaded.

    Raises:
        CohortError: when there are no images to learn from, or a set of the division would hold no patient.
        ConfigError: when a channel is to be registered that a cohort does not have.
        RunError: when the pretrained weights cannot be used.
    """
    console.print(describe_cohorts(cohorts), soft_wrap=True)
    if "image" in experiment.data.modalities and not any(cohort.manifest.channels for cohort in cohorts):
        raise CohortError(
            "data.modalities names 'image', but no cohort has an image channel; name the channels in the cohort's "
            f'{MANIFEST_FILE}, or set data.modalities = ["clinical"] and train without images'
        )
    _check_division(experiment, cohorts)
    for note in [*notes_on_unknown_variables(cohorts, experiment), *notes_on_channels(cohorts, experiment)]:
        console.print(f"Note: {note}", soft_wrap=True)
    if experiment.model.pretrained:
        console.print(str(try_pretrained(experiment, cohorts)), soft_wrap=True)


def describe_cohorts(cohorts: Sequence[Cohort]) -> str:
    """Which cohorts a command took, for the person who named a folder of them."""
    return "Cohorts: " + ", ".join(f"{cohort.manifest.site} ({len(cohort.patients)} patients)" for cohort in cohorts)


def try_pretrained(experiment: Experiment, cohorts: Sequence[Cohort]) -> LoadedWeights:
    """Load `model.pretrained` into an encoder that is then dropped, so that its faults show before anything trains.

    Raises:
        RunError: as `load_pretrained`.
    """
    channels = max(len(cohort.manifest.channels) for cohort in cohorts)
    return load_pretrained(build_image_encoder(experiment.model, channels), Path(experiment.model.pretrained))


def patient_label(site: str, patient: str) -> str:
    """How a patient is called in what stays at the site."""
    return f"{site}, patient {patient}"


def image_jobs(cohort: Cohort) -> list[Job]:
    """The patients of a cohort that have images."""
    return [
        Job(
            patient_label(cohort.manifest.site, patient),
            cohort.channel_files(patient),
            cohort.mask_path(patient),
        )
        for patient in cohort.patients
        if cohort.has_image(patient)
    ]
