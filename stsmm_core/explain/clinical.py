"""Integrated gradients of the clinical variables (Sundararajan et al., ICML 2017, arXiv 1703.01365)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.errors import RunError
from stsmm_core.explain.captum_import import import_captum
from stsmm_core.model.mmnn import ModalityBatch, MultimodalNetwork

STEPS = 200
"""Points of the path from the mean patient to the patient."""


@dataclass(frozen=True, eq=False)
class ClinicalAttributions:
    """By how much each variable moves the log hazard of one endpoint away from that of the mean patient.

    Attributes:
        variables: keys of the data dictionary.
        values: shape (patients, variables); positive raises the risk. A patient's row adds up to `difference`.
        difference: log hazard of the patient less that of the mean patient with the same image, shape (patients,).
    """

    variables: tuple[str, ...]
    values: NDArray[np.float64]
    difference: NDArray[np.float64]

    def mean_absolute(self) -> dict[str, float]:
        """How much a variable matters, whatever its direction."""
        return dict(zip(self.variables, np.abs(self.values).mean(axis=0).tolist(), strict=True))


def integrated_gradients(
    network: MultimodalNetwork,
    batch: Mapping[str, ModalityBatch],
    *,
    endpoint: int,
    encoding: ClinicalEncoding,
    mean_patient: Tensor,
) -> ClinicalAttributions:
    """Attributions of the fusion head's log hazard, the columns of a variable (value and absence, levels) added up.

    Args:
        batch: patients whose clinical variables are known; the image, or its absence, stays as it is.
        endpoint: index of the output.
        mean_patient: baseline, shape (columns,): the mean of the encoded training patients.

    Raises:
        RunError: when the network has no clinical encoder.
    """
    if "clinical" not in network.encoders:
        raise RunError("the network has no clinical encoder; data.modalities needs 'clinical'")
    clinical = batch["clinical"]
    if not clinical.present.all():
        raise ValueError("a patient without clinical variables has no attributions; leave such patients out")
    network.eval()
    others = [name for name in network.encoders if name != "clinical"]
    with torch.no_grad():  # the rest of the input stays fixed along the path
        fixed = tuple(network.encode(name, batch[name]) for name in others)

    def log_hazard(values: Tensor, *rest: Tensor) -> Tensor:
        encoded = dict(zip(others, rest, strict=True)) | {"clinical": network.encoders["clinical"](values)}
        return network.decode(encoded)[0, :, endpoint]

    baseline = mean_patient.expand_as(clinical.values)
    columns = (
        import_captum()
        .IntegratedGradients(log_hazard)
        .attribute(
            clinical.values, baselines=baseline, additional_forward_args=fixed, n_steps=STEPS, internal_batch_size=4096
        )
    )
    with torch.no_grad():
        difference = log_hazard(clinical.values, *fixed) - log_hazard(baseline, *fixed)
    belongs = np.array([[column == key for key in encoding.variables] for column in encoding.columns], dtype=float)
    values = columns.detach().cpu().double().numpy() @ belongs
    return ClinicalAttributions(encoding.variables, values, difference.cpu().double().numpy())
