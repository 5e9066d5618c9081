import pytest
import torch

from stsmm_core.config import Data, Experiment, Imaging, Model, Training
from stsmm_core.model.mmnn import build_network
from stsmm_core.training.optimisation import build_optimizer

CLINICAL = {"encoders.clinical.", "heads.clinical.", "absent.clinical"}


@pytest.mark.parametrize("factor", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("modalities", [("image", "clinical"), ("image",), ("clinical",)], ids="+".join)
def test_without_a_gradient_weights_only_decay(modalities, optimizer, factor):
    """Closed form: the first step moves by rate x decay, with Nesterov's momentum (1 + momentum) times that."""
    training = Training(optimizer=optimizer, learning_rate=0.1, weight_decay=0.01, clinical_decay_factor=factor)
    experiment = Experiment(
        data=Data(modalities=modalities),
        imaging=Imaging(shape=(16, 16, 16)),
        model=Model(image_encoder="small_densenet"),
        training=training,
    )
    network = build_network(experiment, channels=1, clinical_inputs=5, fold=0)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(training, network.named_parameters()).step()
    rate = 0.1 * (1.9 if optimizer == "sgd" else 1.0)
    for name, parameter in network.named_parameters():
        decay = 0.01 * (factor if any(name.startswith(each) for each in CLINICAL) else 1.0)
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - rate * decay))
