from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from simulated import simulate, simulated_study, spoiled

from stsmm_core.cohort.dictionary import PAPER_VARIABLES
from stsmm_core.comparators.design import NO_IMAGE, encoding_columns, fit_design
from stsmm_core.comparators.models import NothingToLearnFrom
from stsmm_core.comparators.specification import COMPARATORS, SARCULATOR

PATIENTS = simulate()
TRAIN = np.arange(0, 120, 2)
REST = np.arange(1, 120, 2)


def design(key, patients=PATIENTS, train=TRAIN):
    return fit_design(COMPARATORS[key], patients.clinical, patients.encoding(train), patients.radiomics, train=train)


def test_the_columns_have_names():
    encoding = PATIENTS.encoding(TRAIN)
    names = encoding_columns(encoding)
    encoded = pd.DataFrame(encoding.encode(PATIENTS.clinical), PATIENTS.clinical.index, names)
    assert len(set(names)) == encoding.width
    np.testing.assert_array_equal(encoded["sex F"] == 1, PATIENTS.clinical["sex"] == "F")
    np.testing.assert_array_equal(encoded["age missing"] == 1, PATIENTS.clinical["age"].isna())
    known = PATIENTS.clinical["age"].notna()
    assert np.corrcoef(encoded["age"][known], PATIENTS.clinical["age"][known])[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("key", COMPARATORS)
def test_inputs_are_complete_and_the_same_columns_for_everybody(key):
    fitted = design(key)
    everyone = fitted.inputs(PATIENTS.clinical, PATIENTS.radiomics)
    assert np.isfinite(everyone.to_numpy()).all()
    for rows in (TRAIN, REST, REST[:1]):
        some = fitted.inputs(PATIENTS.clinical.iloc[rows], PATIENTS.radiomics.iloc[rows])
        pd.testing.assert_frame_equal(some, everyone.iloc[rows])
    assert (everyone.iloc[TRAIN].std() > 0).all()


@pytest.mark.parametrize("key", COMPARATORS)
def test_nothing_is_learned_from_other_patients(key):
    before, after = design(key), design(key, spoiled(PATIENTS, REST))
    assert after.columns == before.columns
    assert after.encoding == before.encoding
    pd.testing.assert_frame_equal(after.radiomics, before.radiomics)
    pd.testing.assert_frame_equal(
        after.inputs(PATIENTS.clinical, PATIENTS.radiomics), before.inputs(PATIENTS.clinical, PATIENTS.radiomics)
    )


@pytest.mark.parametrize("key", COMPARATORS)
def test_the_training_patients_do_count(key):
    """The test above would also pass if nothing were learned at all."""
    before, after = design(key), design(key, spoiled(PATIENTS, TRAIN[:20]))
    rows = (PATIENTS.clinical.iloc[REST], PATIENTS.radiomics.iloc[REST])
    left, right = before.inputs(*rows), after.inputs(*rows)
    assert list(left) != list(right) or not np.allclose(left, right)


def test_who_sees_what():
    def seen(key):
        return {column.split()[0] for column in design(key).columns}

    radiomics = {*PATIENTS.radiomics.columns}
    assert seen("sarculator_cox") == seen("sarculator_rsf") == set(SARCULATOR)
    assert seen("clinical_cox") == seen("clinical_rsf") == seen("clinical_ridge") == set(PAPER_VARIABLES)
    assert seen("radiomics_rsf") == radiomics
    assert seen("radiomics_clinical_rsf") == seen("radiomics_clinical_elastic_net") == radiomics | set(PAPER_VARIABLES)
    assert seen("volume") == {"volume_cm3"}


def test_volume_is_on_the_log_scale():
    column = design("volume").inputs(PATIENTS.clinical, None)["volume_cm3"]
    logarithm = np.log(PATIENTS.clinical["volume_cm3"])
    training = logarithm.iloc[TRAIN]
    expected = ((logarithm - training.mean()) / training.std()).fillna(0.0)
    np.testing.assert_allclose(column, expected, atol=1e-5)


def test_a_variable_that_the_network_does_not_use():
    encoding = PATIENTS.encoding(TRAIN, ("grade", "sex"))
    narrow = fit_design(COMPARATORS["sarculator_cox"], PATIENTS.clinical, encoding, None, train=TRAIN)
    pd.testing.assert_frame_equal(
        narrow.inputs(PATIENTS.clinical, None), design("sarculator_cox").inputs(PATIENTS.clinical, None)
    )


def test_cox_has_a_reference_level_and_full_rank():
    whole = simulate(missing=0.0)
    for key in ("clinical_cox", "sarculator_cox", "volume"):
        inputs = design(key, whole).inputs(whole.clinical, None).iloc[TRAIN]
        centred = inputs - inputs.mean()
        assert np.linalg.matrix_rank(centred) == centred.shape[1]
    commonest = whole.clinical["sex"].iloc[TRAIN].mode()[0]
    other = {"F": "M", "M": "F"}[commonest]
    columns = design("clinical_cox", whole).columns
    assert f"sex {other}" in columns
    assert f"sex {commonest}" not in columns
    assert {"sex F", "sex M"} <= set(design("clinical_ridge", whole).columns)


def test_radiomics_are_standardised_and_the_mean_without_an_image():
    radiomics = PATIENTS.radiomics.drop(PATIENTS.radiomics.index[[0, 1, 2]]).assign(constant=3.0)
    fitted = fit_design(
        COMPARATORS["radiomics_rsf"], PATIENTS.clinical, PATIENTS.encoding(TRAIN), radiomics, train=TRAIN
    )
    assert fitted.columns == (*PATIENTS.radiomics.columns, NO_IMAGE)
    inputs = fitted.inputs(PATIENTS.clinical, radiomics)
    np.testing.assert_array_equal(inputs[NO_IMAGE], [1.0] * 3 + [0.0] * 117)
    assert (inputs.iloc[:3, :-1] == 0).all(axis=None)
    training = inputs.iloc[TRAIN][inputs[NO_IMAGE].iloc[TRAIN] == 0].iloc[:, :-1]
    np.testing.assert_allclose(training.mean(), 0, atol=1e-12)
    np.testing.assert_allclose(training.std(), 1)


def test_radiomics_of_a_channel_that_a_patient_lacks_are_the_mean_with_an_indicator():
    """Patient 0 has no image, 1 and 3 have no t2; a patient without an image counts in NO_IMAGE alone."""
    t1 = PATIENTS.radiomics.iloc[:, :3]
    t2 = (t1 + np.random.default_rng(3).normal(size=t1.shape)).rename(columns=lambda name: name.replace("t1", "t2"))
    t2.iloc[[1, 3]] = np.nan
    radiomics = pd.concat([t1, t2], axis=1).drop(PATIENTS.radiomics.index[0])
    train = np.arange(60)
    fitted = fit_design(
        COMPARATORS["radiomics_rsf"], PATIENTS.clinical, PATIENTS.encoding(train), radiomics, train=train
    )
    assert fitted.columns == (*radiomics.columns, NO_IMAGE, "no t2")
    inputs = fitted.inputs(PATIENTS.clinical, radiomics)
    np.testing.assert_array_equal(np.flatnonzero(inputs[NO_IMAGE]), [0])
    np.testing.assert_array_equal(np.flatnonzero(inputs["no t2"]), [1, 3])
    assert (inputs.iloc[[1, 3]][list(t2)] == 0).all(axis=None)
    assert (inputs.iloc[[1, 3]][list(t1)] != 0).all(axis=None)
    np.testing.assert_allclose(fitted.radiomics.loc[list(t2), "mean"], np.nanmean(t2.iloc[1:60], axis=0))


@pytest.mark.parametrize(
    "radiomics",
    [None, PATIENTS.radiomics.iloc[REST], PATIENTS.radiomics * np.nan, PATIENTS.radiomics * 0 + 0.1],
    ids=["no images", "none in training", "all missing", "constant"],
)
@pytest.mark.parametrize("key", ["radiomics_rsf", "radiomics_clinical_elastic_net"])
def test_no_radiomics_to_learn_from(key, radiomics):
    with pytest.raises(NothingToLearnFrom, match="no training patients with radiomics"):
        fit_design(COMPARATORS[key], PATIENTS.clinical, PATIENTS.encoding(TRAIN), radiomics, train=TRAIN)


def test_readers_who_agree_on_nothing():
    with pytest.raises(NothingToLearnFrom, match="the two readers agree on no feature"):
        fit_design(
            COMPARATORS["radiomics_rsf"],
            PATIENTS.clinical,
            PATIENTS.encoding(TRAIN),
            PATIENTS.radiomics[[]],
            train=TRAIN,
        )


def test_a_variable_that_nobody_knows():
    clinical = PATIENTS.clinical.assign(volume_cm3=np.nan, depth=np.nan)
    unknown = type(PATIENTS)(clinical, PATIENTS.radiomics, PATIENTS.time, PATIENTS.event)
    assert not [name for name in design("clinical_cox", unknown).columns if name.startswith(("volume", "depth"))]
    with pytest.raises(NothingToLearnFrom, match="no input varies among the 60"):
        design("volume", unknown)


@pytest.mark.parametrize("train", [TRAIN[:0], TRAIN[:1]])
@pytest.mark.parametrize("key", ["clinical_cox", "volume", "radiomics_rsf"])
def test_too_few_to_vary(key, train):
    with pytest.raises(NothingToLearnFrom):
        design(key, train=train)


def test_a_comparator_sees_no_variable_that_the_experiment_leaves_out():
    study = simulated_study(PATIENTS)
    data = study.experiment.data.model_copy(update={"variables": ("age", "sex")})
    study = replace(study, experiment=study.experiment.model_copy(update={"data": data}))

    def inputs(key):
        train = study.development(0, 0)
        fitted = fit_design(COMPARATORS[key], study.data.clinical, study.encoding(0), PATIENTS.radiomics, train=train)
        return {column.split()[0] for column in fitted.columns if not column.startswith(("t1", "no "))}

    own_variables = {key for key, specification in COMPARATORS.items() if specification.variables is not None}
    assert own_variables
    for key in COMPARATORS.keys() - own_variables:
        assert inputs(key) == {"age", "sex"}
    assert inputs("sarculator_cox") == set(SARCULATOR)  # a published model is what it is
