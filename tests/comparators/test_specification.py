import importlib
import sys

import pytest

from stsmm_core.cohort.dictionary import ENDPOINTS, VARIABLES
from stsmm_core.comparators.networks import NETWORKS, check_comparable
from stsmm_core.comparators.specification import COMPARATORS, ESTIMATOR_LABELS
from stsmm_core.config import parse_experiment
from stsmm_core.errors import RunError
from stsmm_core.report.comparison.panels import SHOWN
from stsmm_core.run_folder import REFERENCE


def test_the_table_is_sound():
    assert list(COMPARATORS) == [
        "radiomics_clinical_elastic_net",
        "radiomics_clinical_rsf",
        "radiomics_rsf",
        "clinical_rsf",
        "clinical_cox",
        "clinical_ridge",
        "sarculator_rsf",
        "sarculator_cox",
        "volume",
    ]
    for key, each in COMPARATORS.items():
        assert each.key == key
        assert each.estimator in ESTIMATOR_LABELS
        assert set(each.variables or ()) <= set(VARIABLES)
        assert set(each.logged) <= set(each.variables or ())
        assert set(each.paper or ()) <= set(ENDPOINTS)
    assert {REFERENCE, *SHOWN} <= {network.key for network in NETWORKS} | set(COMPARATORS)


def test_refitted_models_say_so():
    for key in ("sarculator_cox", "sarculator_rsf"):
        assert "refitted" in COMPARATORS[key].label


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sksurv.ensemble", None)
    monkeypatch.delitem(sys.modules, "stsmm_core.comparators.fitting", raising=False)
    with pytest.raises(RunError, match=r"scikit-survival is not installed; .*pip install '\.\[compare\]'"):
        importlib.import_module("stsmm_core.comparators.fitting")


@pytest.mark.parametrize("method", ["none", "uniform"])
def test_blending_that_does_not_adapt_is_not_compared(method):
    text = f'[data]\nmodalities = ["image", "clinical"]\n[blending]\nmethod = "{method}"'
    with pytest.raises(RunError, match=f"adapts the weights .*, not '{method}'"):
        check_comparable(parse_experiment(text, source="test"))


def test_the_plain_cox_model_names_its_ridge():
    assert ESTIMATOR_LABELS["cox"] == "Cox model, slight fixed ridge"
