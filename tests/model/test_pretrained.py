"""Checkpoints are made here, with the key layout of the y-aware BHB-10k file."""

import pickle
import re

import pytest
import torch
from monai.networks.nets import DenseNet121

from stsmm_core.config import Experiment, Imaging, Model, parse_experiment, read_experiment
from stsmm_core.errors import ConfigError, RunError
from stsmm_core.model.image_encoder import build_image_encoder
from stsmm_core.model.mmnn import get_weights
from stsmm_core.model.pretrained import load_pretrained
from stsmm_core.training.experiment import _untrained

YAWARE, TRUNK = 724, 720


@pytest.fixture(scope="module")
def teacher():
    """A network of one channel whose batch statistics are not the initial ones."""
    torch.manual_seed(7)
    network = DenseNet121(spatial_dims=3, in_channels=1, out_channels=5).eval()
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn_like(buffer))
            if name.endswith("running_var"):
                buffer.mul_(1 + 0.5 * torch.rand_like(buffer))
        last = network.features.norm5  # the y-aware network has none
        last.running_mean.zero_()
        last.running_var.fill_(1)
    return network


@pytest.fixture(scope="module")
def yaware(teacher):
    """DataParallel's prefix, layer names without `.layers`, no norm5, two output layers of its own."""
    state = {
        "module." + name.replace(".layers.", "."): value
        for name, value in teacher.state_dict().items()
        if name.startswith("features.") and not name.startswith("features.norm5.")
    }
    for layer, shape in (("hidden_representation", (512, 1024)), ("head_projection", (128, 512))):
        state |= {f"module.{layer}.weight": torch.randn(shape), f"module.{layer}.bias": torch.randn(shape[0])}
    assert len(state) == YAWARE
    assert "module.features.denseblock1.denselayer1.norm1.weight" in state
    return state


def save(content, folder):
    path = folder / "pretrained.pth"
    torch.save(content, path)
    return path


def encoder_of(channels, **model):
    torch.manual_seed(1)
    return build_image_encoder(Model(**model), channels).eval()


@torch.no_grad()
def features(network, images):
    return network.features(images)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_the_yaware_checkpoint_gives_its_features_for_one_channel(teacher, yaware, wrapper, tmp_path):
    content = yaware if wrapper is None else {wrapper: yaware, "epoch": 30, "optimizer": {"param_groups": []}}
    encoder = encoder_of(1)
    images = torch.randn(2, 1, 32, 32, 32)
    assert not torch.allclose(features(encoder, images), features(teacher, images), atol=0.1)
    loaded = load_pretrained(encoder, save(content, tmp_path))
    assert torch.equal(features(encoder, images), features(teacher, images))
    assert (loaded.in_file, loaded.loaded) == (YAWARE, TRUNK)
    assert {name.partition(".")[0] for name in loaded.left} == {"hidden_representation", "head_projection"}
    assert all(name.startswith(("features.norm5.", "class_layers.")) for name in loaded.untouched)
    assert "720 of 724 tensors of pretrained.pth loaded" in str(loaded)


@pytest.mark.parametrize("channels", [2, 3])
def test_the_same_image_in_every_channel_gives_the_features_of_one(teacher, yaware, channels, tmp_path):
    encoder = encoder_of(channels)
    load_pretrained(encoder, save(yaware, tmp_path))
    image = torch.randn(1, 1, 32, 32, 32)
    repeated = features(encoder, image.expand(-1, channels, -1, -1, -1))
    torch.testing.assert_close(repeated, features(teacher, image), rtol=1e-5, atol=1e-5)


def test_monais_checkpoint_loads_with_its_last_norm(teacher, tmp_path):
    torch.manual_seed(3)
    state = teacher.state_dict() | {"features.norm5.weight": torch.rand(1024)}
    encoder = encoder_of(1)
    loaded = load_pretrained(encoder, save(state, tmp_path))
    assert (loaded.in_file, loaded.loaded) == (727, 725)
    assert torch.equal(encoder.features.norm5.weight, state["features.norm5.weight"])
    assert all(name.startswith("class_layers.") for name in (*loaded.left, *loaded.untouched))


def test_a_checkpoint_of_as_many_channels_is_taken_as_it_is(tmp_path):
    torch.manual_seed(3)
    state = DenseNet121(spatial_dims=3, in_channels=2, out_channels=1).state_dict()
    encoder = encoder_of(2)
    load_pretrained(encoder, save(state, tmp_path))
    assert torch.equal(encoder.features.conv0.weight, state["features.conv0.weight"])


def without(names):
    return lambda state: {name: value for name, value in state.items() if name not in names}


LOST = "features.denseblock2.denselayer1.layers.conv1.weight"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without(["module." + LOST.replace(".layers.", ".")]), rf"holds 719 of the 720 .*{re.escape(LOST)} missing"),
        (lambda state: {f"net.{name}": value for name, value in state.items()}, r"holds 0 of the 720 tensors"),
        (
            lambda state: state | {"module.features.conv0.weight": torch.zeros(64, 3, 7, 7, 7)},
            r"1 of 720 tensors have another shape, features\.conv0\.weight \(\(64, 3, 7, 7, 7\) there, \(64, 2",
        ),
        (lambda state: state | {"module.features.norm0.bias": torch.zeros(3)}, r"features\.norm0\.bias \(\(3,\) there"),
        (
            lambda state: state | {"module.features.norm0.bias": torch.full((64,), torch.nan)},
            r"not finite, features\.norm0\.bias",
        ),
        (
            lambda state: state | {"module.features.denseblock5.denselayer1.conv1.weight": torch.zeros(1)},
            r"1 of its 721 trunk tensors have no place in this network",
        ),
        (lambda state: {"epoch": 3}, r"holds no named tensors"),
        (lambda state: [1, 2], r"holds no named tensors"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_loaded(yaware, spoil, said, tmp_path):
    path = save(spoil(dict(yaware)), tmp_path)
    encoder = encoder_of(2)
    before = get_weights(encoder)
    with pytest.raises(RunError, match=said) as caught:
        load_pretrained(encoder, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert all((before[name] == array).all() for name, array in get_weights(encoder).items())


class Touch:
    """Unpickled the careless way, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_in_the_file_is_executed(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"model": Touch(tmp_path / "executed")}, path)
    with pytest.raises(RunError, match="without running code"):
        load_pretrained(encoder_of(1), path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"a": 1})])
def test_a_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(RunError, match=re.escape(str(path))) as refused:
        load_pretrained(encoder_of(1), path)
    assert "weights_only" not in str(refused.value)  # PyTorch would say how to run the code


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RunError, match=r"absent\.pth: no such file"):
        load_pretrained(encoder_of(1), tmp_path / "absent.pth")


def test_a_group_network_is_refused(yaware, tmp_path):
    """By the experiment, and by the importer for whoever calls it without one."""
    with pytest.raises(RunError, match=r"no place in this network, features\.norm0\.running_mean"):
        load_pretrained(encoder_of(1, norm="group"), save(yaware, tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[model]\npretrained = "a.pth"\nnorm = "group"', "batch statistics"),
        ('[model]\npretrained = "a.pth"\nimage_encoder = "small_densenet"', "are for 'densenet121'"),
        ('data.modalities = ["clinical"]\nmodel.pretrained = "a.pth"', "has no 'image'"),
    ],
)
def test_experiments_that_cannot_take_pretrained_weights(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_experiment(text, source="my.toml")


def test_the_path_is_relative_to_the_experiment_file(tmp_path):
    (tmp_path / "my.toml").write_text('model.pretrained = "weights/a.pth"')
    assert read_experiment(tmp_path / "my.toml").model.pretrained == str(tmp_path.resolve() / "weights" / "a.pth")
    (tmp_path / "plain.toml").write_text("seed = 1")
    assert read_experiment(tmp_path / "plain.toml").model.pretrained == ""


class TwoChannels:
    channels = 2


class Width:
    width = 4


def test_the_first_weights_of_a_run_are_the_pretrained_ones(yaware, tmp_path):
    path = save(yaware, tmp_path)
    experiment = Experiment(imaging=Imaging(shape=(32, 32, 32)), model=Model(pretrained=str(path)))
    first = _untrained(TwoChannels(), experiment, Width(), 0).weights
    scratch = _untrained(TwoChannels(), experiment.with_pretrained(""), Width(), 0).weights
    kernel = yaware["module.features.conv0.weight"].repeat(1, 2, 1, 1, 1) / 2
    assert torch.equal(torch.from_numpy(first["encoders.image.features.conv0.weight"]), kernel)
    same = {name for name, array in first.items() if (array == scratch[name]).all()}
    assert all(name in same for name in first if not name.startswith("encoders.image.features."))
    assert "encoders.image.features.conv0.weight" not in same
