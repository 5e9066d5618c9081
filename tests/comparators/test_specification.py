import importlib
import sys

import pytest

from stsmm_core.cohort.dictionary import ENDPOINTS, VARIABLES
from stsmm_core.comparators.specification import COMPARATORS, ESTIMATOR_LABELS
from stsmm_core.errors import RunError


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


def test_refitted_models_say_so():
    for key in ("sarculator_cox", "sarculator_rsf"):
        assert "refitted" in COMPARATORS[key].label


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sksurv.ensemble", None)
    monkeypatch.delitem(sys.modules, "stsmm_core.comparators.fitting", raising=False)
    with pytest.raises(RunError, match=r"scikit-survival is not installed; pip install 'stsmm\[compare\]'"):
        importlib.import_module("stsmm_core.comparators.fitting")
