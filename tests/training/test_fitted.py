"""What is kept beside the weights, where the risks of a network are enormous."""

import json

import numpy as np
import pytest

from stsmm_core.errors import RunError
from stsmm_core.training.fitted import FittedNetwork, load_fitted, save_fitted


def fitted(baseline):
    times = (0.0, 100.0, 200.0)
    return FittedNetwork(("t1",), (0.0,), times, {"os": baseline}, {"os": 7}, {"os": 200.0}, None)


def test_nobody_has_died_before_the_first_event_whatever_the_risk():
    curves = fitted((0.0, 0.1, 0.4)).survival("os", np.array([-1e4, 0.0, 1e4]))
    np.testing.assert_allclose(curves, [[1, 1, 1], [1, np.exp(-0.1), np.exp(-0.4)], [1, 0, 0]])


def test_what_is_kept_reads_back_equal(tmp_path):
    path = tmp_path / "fold-0.json"
    save_fitted(fitted((0.0, 0.1, 0.4)), path)
    assert load_fitted(path) == fitted((0.0, 0.1, 0.4))


def test_a_file_of_another_version_is_said_to_be_one(tmp_path):
    path = tmp_path / "fold-0.json"
    save_fitted(fitted((0.0, 0.1, 0.4)), path)
    content = json.loads(path.read_text())
    del content["events"]
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="written by another version of stsmm; train again into a new folder"):
        load_fitted(path)
