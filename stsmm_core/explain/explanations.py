"""All explanations of one trained network, and the files of the cases to show."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.cohort.splits import Rows
from stsmm_core.config import Experiment
from stsmm_core.explain.clinical import ClinicalAttributions, integrated_gradients
from stsmm_core.explain.grad_cam import MAP_METHODS, Block, HeatMaps
from stsmm_core.explain.overlay import overlay_figure
from stsmm_core.explain.patient_space import PatientMap, write_nifti
from stsmm_core.explain.sanity import Similarity, randomisation_test
from stsmm_core.files import write_atomically
from stsmm_core.model.mmnn import ModalityBatch, MultimodalNetwork
from stsmm_core.training.site_data import SiteData


@dataclass(frozen=True, eq=False)
class EndpointExplanations:
    """What drives the log hazard of one endpoint; a part is None where the network lacks the modality.

    Attributes:
        maps: a row a patient of `Explanations.with_image`.
        sanity: similarity of those maps to the ones of networks with random layers.
        clinical: a row a patient of `Explanations.with_clinical`.
    """

    maps: HeatMaps | None
    sanity: tuple[Similarity, ...]
    clinical: ClinicalAttributions | None


@dataclass(frozen=True, eq=False)
class Explanations:
    """Explanations of a network's predictions for some patients.

    Attributes:
        with_image, with_clinical: rows of the site's data that have the modality.
        endpoints: by name.
    """

    with_image: Rows
    with_clinical: Rows
    endpoints: Mapping[str, EndpointExplanations]


def explain_network(
    network: MultimodalNetwork,
    experiment: Experiment,
    data: SiteData,
    encoding: ClinicalEncoding,
    *,
    rows: Rows,
    training_rows: Rows,
) -> Explanations:
    """Heat maps, their sanity check and clinical attributions of the fusion head, an endpoint each.

    The network is left in evaluation mode. On a processor the same arguments give the same numbers.

    Args:
        rows: patients to explain, as a rule those of the test set.
        training_rows: whose mean is the patient that attributions start from.

    Raises:
        RunError: when captum is not installed.
    """
    modalities = experiment.data.modalities
    encoded = torch.from_numpy(encoding.encode(data.clinical))
    has_clinical = data.has_clinical(encoding.variables)
    with_image = rows[data.has_image[rows]] if "image" in modalities else rows[:0]
    with_clinical = rows[has_clinical[rows]] if "clinical" in modalities else rows[:0]
    known = training_rows[has_clinical[training_rows]]
    device = next(network.parameters()).device

    def batch(chosen: Rows) -> dict[str, ModalityBatch]:
        parts = {"image": (data.images, data.has_image), "clinical": (encoded, has_clinical)}
        return {
            name: ModalityBatch(parts[name][0][chosen].to(device), torch.from_numpy(parts[name][1][chosen]).to(device))
            for name in modalities
        }

    explained: dict[str, EndpointExplanations] = {}
    for endpoint, name in enumerate(experiment.data.endpoints):
        maps: HeatMaps | None = None
        sanity: list[Similarity] = []
        clinical: ClinicalAttributions | None = None
        if len(with_image):
            method, block = MAP_METHODS[experiment.explain.method], Block(experiment.explain.block)
            size = experiment.training.batch_size
            imaged = batch(with_image)
            maps = method(network, imaged, endpoint=endpoint, block=block, batch_size=size)
            sanity = randomisation_test(
                network, imaged, endpoint=endpoint, block=block, seed=experiment.seed, batch_size=size, method=method
            )
        if len(with_clinical) and len(known):
            clinical = integrated_gradients(
                network,
                batch(with_clinical),
                endpoint=endpoint,
                encoding=encoding,
                mean_patient=encoded[known].mean(dim=0).to(device),
            )
        explained[name] = EndpointExplanations(maps, tuple(sanity), clinical)
    return Explanations(with_image, with_clinical, explained)


def write_case(folder: Path, patient: PatientMap, *, name: str, title: str, risk: str) -> Path:
    """Write a case's overlay (PNG) and its volumes in patient space (NIfTI) into a private folder.

    Args:
        name: start of the file names; a case number, never an identifier.

    Returns:
        The overlay.
    """
    volumes = {"heat": patient.tensor_heat, "heat_native": patient.native, f"heat_on_{patient.channel}": patient.heat}
    for kind, volume in volumes.items():
        write_nifti(volume, folder / f"{name}_{kind}.nii.gz")
    path = folder / f"{name}.png"
    figure = overlay_figure(patient, title=title, risk=risk)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", metadata={"Software": None}))
    return path
