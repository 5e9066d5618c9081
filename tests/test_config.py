import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stsmm_core.cohort.dictionary import PAPER_VARIABLES
from stsmm_core.config import (
    Blending,
    Data,
    Evaluation,
    Experiment,
    Imaging,
    Model,
    Training,
    parse_experiment,
    read_experiment,
    to_toml,
)
from stsmm_core.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def fault(text):
    """The message for an experiment that must be refused."""
    with pytest.raises(ConfigError) as caught:
        parse_experiment(text, source="my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml: ")
    assert "pydantic" not in message
    return message


def test_defaults_are_the_papers():
    experiment = parse_experiment("", source="my.toml")
    assert experiment == Experiment()
    assert experiment.data.variables == PAPER_VARIABLES
    assert experiment.imaging.shape == (64, 64, 64)
    assert experiment.model.image_encoder == "densenet121"
    assert experiment.model.features == 12
    training = experiment.training
    assert (training.epochs, training.batch_size, training.optimizer) == (200, 8, "sgd")
    assert (training.learning_rate, training.momentum, training.weight_decay) == (5e-4, 0.9, 1e-4)
    assert experiment.blending.interval == 5
    assert (experiment.evaluation.train_fraction, experiment.evaluation.validation_fraction) == (0.70, 0.15)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_the_experiments_that_come_with_the_program(path):
    experiment = read_experiment(path)
    assert parse_experiment(to_toml(experiment), source="again") == experiment


def test_there_are_experiments_to_read():
    assert list(CONFIGS.glob("*.toml"))


@pytest.mark.parametrize(
    ("text", "key", "choices"),
    [
        ("sed = 1", "sed", ("seed", "data", "training")),
        ("[training]\nepoch = 3", "training.epoch", ("epochs", "local_epochs", "learning_rate")),
        ("[imaging.augmentation]\nrotate = 3", "imaging.augmentation.rotate", ("flip", "rotation_degrees", "zoom")),
        ("[blendings]\nz = 1", "blendings", ("blending", "federation")),
    ],
)
def test_unknown_key_is_named_with_the_choices(text, key, choices):
    message = fault(text)
    line = next(line for line in message.splitlines() if line.strip().startswith(f"{key}:"))
    assert "unknown key" in line
    for choice in choices:
        assert choice in line


@pytest.mark.parametrize(
    ("text", "key", "given", "wanted"),
    [
        ("[training]\nepochs = 'many'", "training.epochs", "'many'", "integer"),
        ("[training]\nepochs = 2.5", "training.epochs", "2.5", "integer"),
        ("[training]\nepochs = 0", "training.epochs", "0", "greater than or equal to 1"),
        ("[training]\nbatch_size = 1", "training.batch_size", "1", "greater than or equal to 2"),
        ("[training]\nlearning_rate = 0.0", "training.learning_rate", "0.0", "greater than 0"),
        ("[training]\nlearning_rate = nan", "training.learning_rate", "nan", "finite|greater than 0"),
        ("[training]\nlearning_rate = inf", "training.learning_rate", "inf", "finite"),
        ("[training]\nmomentum = 1.0", "training.momentum", "1.0", "less than 1"),
        ("[training]\noptimizer = 'adam'", "training.optimizer", "'adam'", "'sgd' or 'adamw'"),
        ("[training]\nties = 'exact'", "training.ties", "'exact'", "'breslow' or 'efron'"),
        ("[blending]\nmethod = 'ogr'", "blending.method", "'ogr'", "'robust', 'simplex', 'softmax', 'uniform' or"),
        ("[blending]\ntau = inf", "blending.tau", "inf", "finite"),
        ("[blending]\nshrink = 1.5", "blending.shrink", "1.5", "less than or equal to 1"),
        ("[model]\nnorm = 'layer'", "model.norm", "'layer'", "'batch' or 'group'"),
        ("[model]\nfeatures = 0", "model.features", "0", "greater than or equal to 1"),
        ("[data]\nendpoints = ['os', 'pfs']", "data.endpoints.1", "'pfs'", "'os' or 'dm'"),
        ("[data]\nendpoints = 'os'", "data.endpoints", "'os'", "tuple"),
        ("[data]\nmodalities = ['genomic']", "data.modalities.0", "'genomic'", "'image' or 'clinical'"),
        ("[imaging]\nshape = [64, 64, 0]", "imaging.shape.2", "0", "greater than or equal to 1"),
        ("[imaging]\nmargin_mm = -1", "imaging.margin_mm", "-1", "greater than or equal to 0"),
        ("[federation]\nstrategy = 'average'", "federation.strategy", "'average'", "'fedavg'"),
        ("[federation]\ntrim_fraction = 0.5", "federation.trim_fraction", "0.5", "less than 0.5"),
        ("[federation]\nproximal_mu = 0.0", "federation.proximal_mu", "0.0", "greater than 0"),
        ("[federation]\nsite_factor = 'ogr'", "federation.site_factor", "'ogr'", "'none' or 'generalisation'"),
        ("[blending]\nscope = 'local'", "blending.scope", "'local'", "'global', 'site' or 'mean'"),
        ("[federation]\nweighted_by = 'size'", "federation.weighted_by", "'size'", "'events' or 'patients'"),
        ("[training]\nepochs = '200'", "training.epochs", "'200'", "integer"),
        ("[training]\nepochs = true", "training.epochs", "True", "integer"),
        ("[blending]\nz = '0.5'", "blending.z", "'0.5'", "number"),
        ("[imaging.augmentation]\nflip = 1", "imaging.augmentation.flip", "1", "boolean"),
        ("[evaluation]\nfolds = 1", "evaluation.folds", "1", "greater than or equal to 2"),
        ("[evaluation]\nbootstrap_replicates = 10", "evaluation.bootstrap_replicates", "10", "greater than or equal"),
        ("seed = -1", "seed", "-1", "greater than or equal to 0"),
        ("training = 3", "training", "3", "Training"),
    ],
)
def test_wrong_value_is_named_with_what_would_be_right(text, key, given, wanted):
    message = fault(text)
    line = next(line for line in message.splitlines() if line.strip().startswith(f"{key} ="))
    assert given in line
    assert any(word in line for word in wanted.split("|"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[data]\nendpoints = []", ("data.endpoints", "at least one")),
        ("[data]\nmodalities = ['image', 'image']", ("data.modalities", "none twice")),
        ("[data]\nvariables = ['age', 'weight']", ("data.variables", "weight", "age, sex, histology")),
        ("[imaging]\nshape = [64, 64]", ("imaging.shape", "value number 3 is missing")),
        ("[training]\nepochs = 10\nlocal_epochs = 3", ("training", "epochs (10)", "local_epochs (3)")),
        ("[training]\nrisk_window = 4", ("training", "risk_window (4)", "batch_size (8)")),
        ("[blending]\nfloor = 0.5\nceiling = 0.4", ("blending", "floor (0.5)", "ceiling (0.4)")),
        ("[blending]\nfloor = 0.4", ("blending.floor", "0.33")),
        (
            "[federation]\nstrategy = 'krum'\nsite_factor = 'generalisation'",
            ("federation", "site_factor = 'generalisation'", "strategy = 'krum'", "one vote"),
        ),
        ("[blending]\nceiling = 0.2", ("blending.ceiling", "0.33")),
        ("[blending]\nceiling = 0.4\n[data]\nmodalities = ['clinical']", ("2 weights", "0.50")),
        (
            "[training]\nepochs = 10\nlocal_epochs = 2",
            ("blending.interval (5)", "training.local_epochs (2)"),
        ),
        ("[training]\nepochs = 4", ("blending.interval (5)", "training.epochs (4)", "'uniform' or 'none'")),
        ("[evaluation]\ntrain_fraction = 0.9", ("evaluation", "train_fraction", "validation_fraction", "below 1")),
        ("[imaging]\nshape = [64, 15, 64]\n[model]\nimage_encoder = 'small_densenet'", ("imaging.shape", "16")),
        ("[imaging]\nshape = [7, 8, 8]\n[model]\nimage_encoder = 'fine_densenet'", ("imaging.shape", "8 voxels")),
        ("[imaging]\nshape = [64, 31, 64]", ("imaging.shape", "32", "densenet121")),
        ("[training]\nweight_decay = 0.1\nlearning_rate = 0.1\nclinical_decay_factor = 100", ("must be below 1",)),
        ("[explain]\nblock = 5", ("explain.block", "at most 4", "densenet121")),
        ("[model]\nimage_encoder = 'fine_densenet'\n[explain]\nblock = 3", ("explain.block", "at most 2")),
    ],
)
def test_settings_that_exclude_each_other_are_explained(text, words):
    message = fault(text)
    for word in words:
        assert word in message


def test_all_faults_at_once():
    message = fault("sed = 1\n[training]\nepochs = 0\n[data]\nendpoints = []")
    for key in ("sed", "training.epochs", "data.endpoints"):
        assert key in message


@pytest.mark.parametrize(
    "text",
    [
        "[blending]\nmethod = 'uniform'\nfloor = 0.4",
        "[blending]\nmethod = 'none'\n[training]\nepochs = 4",
        "[blending]\nz = 1\ntau = 0",
        "[data]\nmodalities = ['clinical']\n[imaging]\nshape = [4, 4, 4]",
        "[imaging]\nshape = [16, 16, 16]\n[model]\nimage_encoder = 'small_densenet'",
        "[imaging]\nshape = [8, 8, 8]\n[model]\nimage_encoder = 'fine_densenet'",
        "[training]\nepochs = 10\nlocal_epochs = 5",
    ],
)
def test_settings_that_are_legal(text):
    """They are taken as they stand, and the rest is as it was."""

    def merged(settings, changes):
        return settings | {
            key: merged(settings[key], value) if isinstance(value, dict) else value for key, value in changes.items()
        }

    expected = merged(Experiment().model_dump(mode="json"), tomllib.loads(text))
    assert parse_experiment(text, source="my.toml").model_dump(mode="json") == expected


def test_not_toml():
    message = fault("[training\nepochs = 3")
    assert "not valid TOML" in message
    assert "line 1" in message


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: no such experiment file"):
        read_experiment(tmp_path / "absent.toml")


def test_folder_instead_of_a_file(tmp_path):
    with pytest.raises(ConfigError, match="is a folder; name an experiment file"):
        read_experiment(tmp_path)


def test_file_that_is_not_utf8(tmp_path):
    (tmp_path / "latin.toml").write_bytes("# Größe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml: not UTF-8"):
        read_experiment(tmp_path / "latin.toml")


def test_file_is_named_in_the_message(tmp_path):
    (tmp_path / "wrong.toml").write_text("sed = 1")
    with pytest.raises(ConfigError) as caught:
        read_experiment(tmp_path / "wrong.toml")
    assert str(tmp_path / "wrong.toml") in str(caught.value)


def test_an_experiment_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Experiment().training.epochs = 3


positive = st.floats(1e-12, 1e6)
experiments = st.builds(
    Experiment,
    seed=st.integers(0, 2**63 - 1),
    data=st.builds(
        Data,
        endpoints=st.sampled_from([("os",), ("dm",), ("os", "dm"), ("dm", "os")]),
        modalities=st.sampled_from([("image",), ("clinical",), ("image", "clinical"), ("clinical", "image")]),
        variables=st.lists(st.sampled_from(PAPER_VARIABLES), min_size=1, unique=True).map(tuple),
    ),
    imaging=st.builds(Imaging, shape=st.tuples(*[st.integers(32, 99)] * 3), margin_mm=st.floats(0, 50)),
    model=st.builds(Model, dropout=st.floats(0, 1, exclude_max=True), norm=st.sampled_from(["batch", "group"])),
    training=st.builds(
        Training,
        epochs=st.integers(3, 50).map(lambda rounds: 2 * rounds),
        local_epochs=st.just(2),
        learning_rate=positive,
        weight_decay=positive,
        device=st.text(max_size=8),
    ),
    blending=st.builds(Blending, interval=st.sampled_from([2, 4, 6]), z=positive, tau=positive, eps=positive),
    evaluation=st.builds(Evaluation, scheme=st.sampled_from(["split", "cv"]), folds=st.integers(2, 9)),
)


@settings(deadline=None, max_examples=60)
@given(experiments)
def test_resolved_text_reads_back_equal(experiment):
    text = to_toml(experiment)
    assert parse_experiment(text, source="again") == experiment
    assert to_toml(parse_experiment(text, source="again")) == text


def test_resolved_text_spells_out_every_default():
    tree = tomllib.loads(to_toml(Experiment()))
    assert set(tree) == set(Experiment.model_fields)
    assert set(tree["training"]) == set(Training.model_fields)
    assert set(tree["imaging"]["augmentation"]) == {"flip", "rotation_degrees", "zoom"}


@pytest.mark.parametrize(
    ("modalities", "heads"),
    [(("image", "clinical"), ("fusion", "image", "clinical")), (("clinical",), ("fusion", "clinical"))],
)
def test_heads(modalities, heads):
    assert Experiment(data=Data(modalities=modalities)).heads == heads


def test_checkpoints_come_every_interval_of_epochs():
    experiment = Experiment(training=Training(epochs=24, local_epochs=2), blending=Blending(interval=6))
    assert experiment.training.rounds == 12
    assert experiment.checkpoint_rounds == 3
    assert [number for number in range(10) if experiment.is_checkpoint(number)] == [0, 3, 6, 9]


@pytest.mark.parametrize(("scheme", "runs"), [("split", 1), ("cv", 15)])
def test_runs(scheme, runs):
    assert Evaluation(scheme=scheme, folds=5, repeats=3).runs == runs
    ensemble = Evaluation(scheme=scheme, folds=5, repeats=3, members=4)
    assert (ensemble.tests, ensemble.runs, ensemble.models_a_patient) == (runs, 4 * runs, 12 if runs > 1 else 4)


def test_a_share_that_is_not_a_number():
    assert "blending.shrink" in fault(f"[blending]\nshrink = {math.nan}")


COX = 'data.modalities = ["clinical"]\nmodel.kind = "cox"\n'


def test_a_cox_model_is_a_head_of_its_own_and_takes_clinical_variables_alone():
    assert parse_experiment(COX, source="test").heads == ("cox",)
    assert "set data.modalities = ['clinical']" in fault('model.kind = "cox"')


def test_the_kind_of_model_can_be_given_beside_the_file(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('seed = 3\ndata.modalities = ["clinical"]\ncox.ridge = 2.0\n')
    experiment = read_experiment(file, kind="cox")
    assert (experiment.model.kind, experiment.seed, experiment.cox.ridge) == ("cox", 3, 2.0)
    assert read_experiment(file).model.kind == "mmnn"
    file.write_text("seed = 3\n")
    with pytest.raises(ConfigError, match=r"model\.kind = 'cox'.*\n.*data\.modalities"):
        read_experiment(file, kind="cox")


@pytest.mark.parametrize("setting", ["cox.ridge = -1.0", 'cox.ties = "exact"', "cox.penalty = 1.0"])
def test_cox_settings_that_cannot_be(setting):
    assert "cox." in fault(COX + setting)
