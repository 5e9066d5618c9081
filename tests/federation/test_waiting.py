"""A run does not wait for ever for a missing site, and does not go on with too few."""

import pytest

from server import consortium
from stsmm_core.errors import RunError


class Grid:
    def __init__(self, nodes):
        self.nodes = nodes

    def get_node_ids(self):
        return self.nodes


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr(consortium, "WAIT_FOR_NODES_S", 0.0)


def test_all_that_are_wanted_are_taken_at_once():
    assert consortium._wait_for_nodes(Grid([3, 1, 2]), 3, least=3) == [1, 2, 3]


def test_without_a_missing_site_the_run_goes_on_if_enough_are_there():
    assert consortium._wait_for_nodes(Grid([1, 2]), 3, least=2) == [1, 2]


@pytest.mark.parametrize(("nodes", "least"), [([1], 2), ([], 0)])
def test_too_few_sites_stop_the_run_with_what_to_do(nodes, least):
    with pytest.raises(RunError, match=r"of 3 sites are connected.*goes on"):
        consortium._wait_for_nodes(Grid(nodes), 3, least=least)
