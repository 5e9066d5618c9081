import numpy as np
import pytest
import torch
from torch import nn

from stsmm_core.errors import RunError
from stsmm_core.explain.clinical import integrated_gradients
from stsmm_core.model.mmnn import ModalityBatch, MultimodalNetwork


@pytest.fixture
def mean_patient(data, encoding):
    return torch.from_numpy(encoding.encode(data.clinical.iloc[:5])).mean(dim=0)


@pytest.mark.parametrize("endpoint", [0, 1])
def test_attributions_add_up_to_the_difference_of_the_outputs(network, batch, encoding, mean_patient, endpoint):
    with torch.no_grad():
        for parameter in network.encoders["clinical"].parameters():
            parameter.mul_(2)  # far enough from linear to tell
    found = integrated_gradients(network, batch, endpoint=endpoint, encoding=encoding, mean_patient=mean_patient)
    baseline = ModalityBatch(mean_patient.expand(4, -1), batch["clinical"].present)
    with torch.no_grad():
        difference = (network(batch) - network({**batch, "clinical": baseline}))[0, :, endpoint].numpy()
    assert np.abs(difference).max() > 0.02
    np.testing.assert_allclose(found.difference, difference, atol=1e-5)
    np.testing.assert_allclose(found.values.sum(axis=1), difference, atol=0.01 * np.abs(difference).max())


def test_a_linear_network_gives_weight_times_distance_summed_over_levels(encoding, batch, mean_patient):
    torch.manual_seed(0)
    network = MultimodalNetwork({"clinical": nn.Linear(encoding.width, 12)}, features=12, endpoints=2)
    clinical = {"clinical": batch["clinical"]}
    found = integrated_gradients(network, clinical, endpoint=1, encoding=encoding, mean_patient=mean_patient)
    weights = (network.heads["fusion"].weight @ network.encoders["clinical"].weight)[1].detach()
    each = ((batch["clinical"].values - mean_patient) * weights).numpy()
    assert encoding.columns == ("age",) * 2 + ("grade",) * 3 + ("depth",) * 2
    expected = np.stack([each[:, :2].sum(axis=1), each[:, 2:5].sum(axis=1), each[:, 5:].sum(axis=1)], axis=1)
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)
    assert found.mean_absolute()["grade"] == pytest.approx(np.abs(expected[:, 1]).mean(), rel=1e-4)


def test_what_cannot_be_attributed_is_refused(network, batch, encoding, mean_patient):
    absent = ModalityBatch(batch["clinical"].values, torch.tensor([True, False, True, True]))
    with pytest.raises(ValueError, match="without clinical variables"):
        integrated_gradients(
            network, {**batch, "clinical": absent}, endpoint=0, encoding=encoding, mean_patient=mean_patient
        )
    image_only = MultimodalNetwork({"image": nn.Identity()}, features=12, endpoints=1)
    with pytest.raises(RunError, match="no clinical encoder"):
        integrated_gradients(image_only, batch, endpoint=0, encoding=encoding, mean_patient=mean_patient)
