import numpy as np
import pytest
import torch

from stsmm_core.config import DENSE_BLOCKS, Data, Experiment, Imaging, Model
from stsmm_core.errors import RunError
from stsmm_core.model.clinical_encoder import build_clinical_encoder
from stsmm_core.model.image_encoder import build_image_encoder
from stsmm_core.model.mmnn import ModalityBatch, build_network, draw_dropped, get_weights, set_weights

INPUTS, CHANNELS, SIDE = 17, 2, 16


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def experiment_of(modalities=("image", "clinical"), *, endpoints=("os", "dm"), seed=0, **model):
    return Experiment(
        seed=seed,
        data=Data(modalities=modalities, endpoints=endpoints),
        imaging=Imaging(shape=(SIDE, SIDE, SIDE)),
        model=Model(**{"image_encoder": "small_densenet", "norm": "group"} | model),
    )


def network_of(experiment, *, channels=CHANNELS, fold=0):
    return build_network(experiment, channels=channels, clinical_inputs=INPUTS, fold=fold)


def batch_of(patients, *, image=None, clinical=None, channels=CHANNELS, side=SIDE, seed=0):
    """Random inputs; `image` and `clinical` say who has them (all by default)."""
    generator = torch.Generator().manual_seed(seed)
    everybody = [True] * patients
    return {
        "image": ModalityBatch(
            torch.randn(patients, channels, side, side, side, generator=generator),
            torch.tensor(everybody if image is None else image, dtype=torch.bool),
        ),
        "clinical": ModalityBatch(
            torch.randn(patients, INPUTS, generator=generator),
            torch.tensor(everybody if clinical is None else clinical, dtype=torch.bool),
        ),
    }


MODALITIES = [("image", "clinical"), ("clinical", "image"), ("image",), ("clinical",)]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("modalities", MODALITIES, ids="+".join)
@pytest.mark.parametrize(("patients", "channels", "endpoints"), [(3, 1, ("os",)), (2, 3, ("os", "dm"))])
def test_output_is_heads_by_patients_by_endpoints(modalities, norm, patients, channels, endpoints, training):
    network = network_of(experiment_of(modalities, endpoints=endpoints, norm=norm), channels=channels)
    outputs = network.train(training)(batch_of(patients, channels=channels))
    assert outputs.shape == (1 + len(modalities), patients, len(endpoints))
    assert torch.isfinite(outputs).all()


def test_heads_are_the_fusion_and_then_the_modalities():
    network = network_of(experiment_of()).eval()
    batch = batch_of(2)
    outputs = network(batch)
    image = network.encoders["image"](batch["image"].values)
    clinical = network.encoders["clinical"](batch["clinical"].values)
    torch.testing.assert_close(outputs[0], network.heads["fusion"](torch.cat([image, clinical], dim=1)))
    torch.testing.assert_close(outputs[1], network.heads["image"](image))
    torch.testing.assert_close(outputs[2], network.heads["clinical"](clinical))


def test_patients_do_not_mix_up():
    network = network_of(experiment_of()).eval()
    batch = batch_of(5, image=[True, False, True, True, False], clinical=[False, True, True, False, True])
    together = network(batch)
    for patient in range(5):
        alone = {name: ModalityBatch(part.values[[patient]], part.present[[patient]]) for name, part in batch.items()}
        torch.testing.assert_close(together[:, [patient]], network(alone), rtol=1e-5, atol=1e-5)


def test_a_patient_without_image_gets_the_absent_vector():
    network = network_of(experiment_of()).eval()
    with torch.no_grad():
        network.absent["image"].copy_(torch.linspace(-1, 1, 12))
    batch = batch_of(3, image=[True, False, True])
    outputs = network(batch)
    clinical = network.encoders["clinical"](batch["clinical"].values)[1]
    fused = torch.cat([network.absent["image"], clinical])
    torch.testing.assert_close(outputs[0, 1], network.heads["fusion"](fused))
    torch.testing.assert_close(outputs[1, 1], network.heads["image"](network.absent["image"]))


@pytest.mark.parametrize("filling", [0.0, 1e3, float("nan"), float("inf")])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_values_in_an_absent_slot_do_not_matter(filling, training, norm):
    network = network_of(experiment_of(norm=norm, dropout=0.0)).train(training)
    start = get_weights(network)
    results = []
    for value in (None, filling):
        set_weights(network, start)
        network.zero_grad()
        batch = batch_of(4, image=[True, False, True, True], clinical=[True, True, False, True])
        if value is not None:
            batch["image"].values[1] = value
            batch["clinical"].values[2] = value
        outputs = network(batch)
        outputs.square().sum().backward()
        gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
        results.append((outputs.detach(), gradients, get_weights(network)))
    (outputs, gradients, weights), (spoilt_outputs, spoilt_gradients, spoilt_weights) = results
    torch.testing.assert_close(spoilt_outputs, outputs, rtol=0, atol=0)
    for name in gradients:
        torch.testing.assert_close(spoilt_gradients[name], gradients[name], rtol=0, atol=0)
    for name in weights:  # running statistics among them
        np.testing.assert_array_equal(spoilt_weights[name], weights[name])


def test_the_absent_vector_learns_from_the_patients_who_lack_the_modality():
    network = network_of(experiment_of()).eval()
    outputs = network(batch_of(3, image=[True, False, False]))
    outputs[0].sum().backward()
    weight = network.heads["fusion"].weight[:, :12].sum(dim=0)
    torch.testing.assert_close(network.absent["image"].grad, 2 * weight)
    assert not network.absent["clinical"].grad.any()


def test_modality_dropout_takes_one_of_several_modalities_at_its_share():
    torch.manual_seed(0)
    present = torch.rand(30_000, 3) < 0.7
    dropped = draw_dropped(present, 0.4)
    several = present.sum(dim=1) > 1
    assert not dropped[~present].any()
    assert not dropped[~several].any()
    assert dropped.sum(dim=1).max() == 1
    assert dropped[several].any(dim=1).float().mean() == pytest.approx(0.4, abs=0.015)
    of_everything = dropped[present.all(dim=1)].float().mean(dim=0)
    torch.testing.assert_close(of_everything, torch.full((3,), 0.4 / 3), rtol=0, atol=0.015)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_modality_dropout_of_nobody_and_of_everybody(share):
    present = torch.tensor([[True, True], [True, False], [False, False]])
    assert draw_dropped(present, share).sum(dim=1).tolist() == [int(share), 0, 0]
    assert draw_dropped(present[:0], share).shape == (0, 2)


def test_modality_dropout_hides_a_modality_from_the_fusion_head_alone_and_in_training_alone():
    network = network_of(experiment_of(dropout=0.0))
    network.modality_dropout = 1.0
    batch = batch_of(40)
    with torch.no_grad():
        network.absent["image"].fill_(0.3)
        network.absent["clinical"].fill_(-0.2)
        whole = network.eval()(batch)
        without = {
            name: network({**batch, name: ModalityBatch(batch[name].values, torch.zeros(40, dtype=torch.bool))})[0]
            for name in ("image", "clinical")
        }
        torch.manual_seed(1)
        trained = network.train()(batch)
    torch.testing.assert_close(trained[1:], whole[1:])
    lost = {name: torch.isclose(trained[0], outputs, atol=1e-6).all(dim=1) for name, outputs in without.items()}
    assert (lost["image"] ^ lost["clinical"]).all()
    assert lost["image"].any()
    assert lost["clinical"].any()


def test_modality_dropout_teaches_the_absent_vectors():
    network = network_of(experiment_of(modality_dropout=0.5)).train()
    torch.manual_seed(0)
    network(batch_of(20))[0].square().sum().backward()
    assert all(vector.grad.any() for vector in network.absent.values())


def test_modality_dropout_leaves_one_modality_alone():
    network = network_of(experiment_of(("clinical",), dropout=0.0))
    network.modality_dropout = 1.0
    batch = batch_of(4)
    torch.testing.assert_close(network.train()(batch), network.eval()(batch))


@pytest.mark.parametrize("modality", ["image", "clinical"])
def test_nobody_has_a_modality(modality):
    network = network_of(experiment_of(norm="batch")).train()
    before = get_weights(network)
    outputs = network(batch_of(3, **{modality: [False] * 3}))
    outputs.sum().backward()
    assert outputs.shape == (3, 3, 2)
    assert torch.isfinite(outputs).all()
    assert network.absent[modality].grad.any()
    assert all(parameter.grad is None for parameter in network.encoders[modality].parameters())
    after = get_weights(network)
    for name in before:
        if name.startswith(f"encoders.{modality}"):
            np.testing.assert_array_equal(after[name], before[name])


@pytest.mark.parametrize(("norm", "side"), [("group", 16), ("batch", 16), ("batch", 32)])
def test_a_batch_of_one_patient_trains(norm, side):
    network = network_of(experiment_of(norm=norm)).train()
    outputs = network(batch_of(1, side=side))
    outputs.square().sum().backward()
    assert torch.isfinite(outputs).all()
    assert all(torch.isfinite(parameter.grad).all() for name, parameter in network.named_parameters())


def test_one_patient_does_not_move_running_statistics_and_two_do():
    network = network_of(experiment_of(norm="batch")).train()
    before = get_weights(network)
    network(batch_of(1))
    alone = get_weights(network)
    network(batch_of(2))
    together = get_weights(network)
    statistics = [name for name in before if "running" in name]
    assert statistics
    assert all((alone[name] == before[name]).all() for name in statistics)
    assert all((together[name] != before[name]).any() for name in statistics)


def test_clinical_encoder_has_the_papers_widths():
    linear = [layer for layer in build_clinical_encoder(Model(), 11) if isinstance(layer, torch.nn.Linear)]
    assert [layer.in_features for layer in linear] == [11, 32, 16, 8, 8, 8]
    assert linear[-1].out_features == 12


@pytest.mark.parametrize(("widths", "layers"), [((32,), [11, 32]), ((), [11])])
def test_clinical_encoder_may_be_shallower(widths, layers):
    encoder = build_clinical_encoder(Model(clinical_widths=widths), 11)
    linear = [layer for layer in encoder if isinstance(layer, torch.nn.Linear)]
    assert [layer.in_features for layer in linear] == layers
    assert encoder(torch.randn(4, 11)).shape == (4, 12)


def test_densenet121_has_the_papers_number_of_parameters():
    encoder = build_image_encoder(Model(), 2)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == pytest.approx(11.28e6, abs=0.005e6)


def test_densenet121_forward():
    encoder = build_image_encoder(Model(norm="group"), 2).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(1, 2, 32, 32, 32)).shape == (1, 12)


def test_networks_of_one_experiment_start_alike_whatever_was_drawn_before():
    torch.manual_seed(1)
    first = get_weights(network_of(experiment_of()))
    torch.manual_seed(2)
    torch.randn(10)
    second = get_weights(network_of(experiment_of()))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("other", [{"seed": 1}, {"fold": 1}])
def test_another_seed_or_fold_starts_elsewhere(other):
    first = get_weights(network_of(experiment_of(seed=0), fold=0))
    second = get_weights(network_of(experiment_of(seed=other.get("seed", 0)), fold=other.get("fold", 0)))
    assert any((first[name] != second[name]).any() for name in first if name.startswith("heads."))


def test_other_settings_than_the_network_do_not_move_the_start():
    plain = experiment_of()
    other = plain.model_copy(update={"training": plain.training.model_copy(update={"learning_rate": 1.0})})
    first, second = get_weights(network_of(plain)), get_weights(network_of(other))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_weights_come_back_and_are_copies():
    network, other = network_of(experiment_of(norm="batch"), fold=0), network_of(experiment_of(norm="batch"), fold=1)
    network.train()(batch_of(3))  # moves the running statistics
    weights = get_weights(network)
    set_weights(other, weights)
    batch = batch_of(3)
    torch.testing.assert_close(other.eval()(batch), network.eval()(batch), rtol=0, atol=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert any(array.any() for name, array in weights.items() if name.startswith("heads."))
    assert any(parameter.any() for parameter in other.parameters())


def test_running_statistics_travel_and_batch_counters_do_not():
    names = set(get_weights(network_of(experiment_of(norm="batch"))))
    assert any(name.endswith("running_mean") for name in names)
    assert not any("num_batches_tracked" in name for name in names)
    assert {name for name in names if name.startswith("absent.")} == {"absent.image", "absent.clinical"}


def spoil_shape(weights):
    return weights | {"heads.fusion.weight": np.zeros((2, 23), dtype=np.float32)}


def spoil_missing(weights):
    return {name: array for name, array in weights.items() if name != "heads.fusion.weight"}


def spoil_extra(weights):
    return weights | {"heads.fusion.weight2": np.zeros(1, dtype=np.float32)}


@pytest.mark.parametrize("spoil", [spoil_shape, spoil_missing, spoil_extra])
def test_weights_of_another_network_are_refused(spoil):
    network = network_of(experiment_of())
    before = get_weights(network)
    with pytest.raises(RunError, match=r"1 arrays differ in name or shape, heads\.fusion\.weight"):
        set_weights(network, spoil(before))
    after = get_weights(network)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])


def test_weights_for_other_channels_are_refused():
    with pytest.raises(RunError, match="other channels"):
        set_weights(network_of(experiment_of(), channels=1), get_weights(network_of(experiment_of(), channels=2)))


@pytest.mark.parametrize("modalities", [("image",), ("image", "clinical")])
def test_images_without_a_channel_are_refused(modalities):
    with pytest.raises(RunError, match=r'data\.modalities = \["clinical"\]'):
        network_of(experiment_of(modalities), channels=0)


def test_the_clinical_network_needs_no_channel():
    assert network_of(experiment_of(("clinical",)), channels=0).eval()(batch_of(2)).shape == (2, 2, 2)


def test_every_weight_takes_part():
    network = network_of(experiment_of(dropout=0.0)).train()
    network(batch_of(4, image=[True, True, True, False], clinical=[False, True, True, True])).square().sum().backward()
    idle = [
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    # ReLU units that no patient lights may rest; whole layers may not.
    layers = {name.rpartition(".")[0] for name, _ in network.named_parameters()}
    assert [layer for layer in layers if all(f"{layer}.{kind}" in idle for kind in ("weight", "bias"))] == []
    assert [name for name in idle if name.startswith(("heads.", "absent."))] == []


@pytest.mark.parametrize(
    ("name", "kernel", "side"), [("densenet121", 7, 32), ("small_densenet", 7, 16), ("fine_densenet", 3, 8)]
)
def test_image_encoders_take_the_smallest_volume_that_their_configuration_allows(name, kernel, side):
    assert 2 ** (DENSE_BLOCKS[name] + 1) == side
    encoder = build_image_encoder(Model(image_encoder=name, features=12), CHANNELS).eval()
    assert encoder.features.conv0.kernel_size == (kernel,) * 3
    features = encoder(torch.randn(2, CHANNELS, side, side, side))
    assert features.shape == (2, 12)
    assert not torch.equal(features[0], features[1])
