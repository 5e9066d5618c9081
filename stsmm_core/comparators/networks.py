"""The networks of the comparison: variants of one experiment, trained by the one course on the same folds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from stsmm_core.comparators.specification import Published
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.report.report import write_report
from stsmm_core.run_folder import BLENDED, SITES_FOLDER, describe_inputs, open_run
from stsmm_core.training.centre import Centre
from stsmm_core.training.train import TrainedModel, train_models


@dataclass(frozen=True)
class Network:
    """One network of the comparison.

    Attributes:
        inputs: what it sees, for the table.
        variant: the experiment that trains it, made from the one that was given.
        paper: the paper's C-index by endpoint (Table 3); None where it gives none.
    """

    key: str
    label: str
    inputs: str
    variant: Callable[[Experiment], Experiment]
    paper: Mapping[str, Published] | None = None


def _without_blending(experiment: Experiment) -> Experiment:
    return experiment.model_copy(update={"blending": experiment.blending.model_copy(update={"method": "none"})})


def _image_alone(experiment: Experiment) -> Experiment:
    data = experiment.data.model_copy(update={"modalities": ("image",)})
    return _without_blending(experiment).model_copy(update={"data": data})


NETWORKS = (
    Network(
        BLENDED,
        "MMNN with gradient blending",
        "image, clinical",
        lambda experiment: experiment,
        paper={"os": (0.769, 0.126), "dm": (0.699, 0.092)},
    ),
    Network("mmnn", "MMNN without blending", "image, clinical", _without_blending),
    Network(
        "densenet",
        "DenseNet, unimodal",
        "image",
        _image_alone,
        paper={"os": (0.553, 0.081), "dm": (0.562, 0.068)},
    ),
)


def check_comparable(experiment: Experiment) -> None:
    """Make sure that the experiment has what its variants leave out.

    Raises:
        RunError: when there would be nothing to compare.
    """
    if experiment.data.modalities != ("image", "clinical"):
        raise RunError('a comparison is of image and clinical data; set data.modalities = ["image", "clinical"]')
    if experiment.blending.method in ("none", "uniform"):
        raise RunError(
            "a comparison with and without gradient blending needs a blending.method that adapts the weights "
            f"('robust', 'simplex' or 'softmax'), not '{experiment.blending.method}'"
        )


def train_network(console: Console, network: Network, centres: Sequence[Centre], folder: Path) -> list[TrainedModel]:
    """Train a network on every fold, in a run folder of its own like that of `stsmm train`."""
    experiment = network.variant(centres[0].experiment)
    variants = [
        replace(centre, experiment=experiment, folder=folder / SITES_FOLDER / centre.site) for centre in centres
    ]
    inputs = describe_inputs("centralised", [centre.cohort for centre in centres])
    with open_run(folder, experiment, inputs):
        models = train_models(console, variants, folder, name=network.label)
        write_report(folder)
    return models
