"""A site behind a courier gives the same result as one with a connection."""

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from courier_ends import APP, message_in, new_ends, parcel_to_server, run_of, wrapped

from client.node.courier import answer_file
from server.deploy.courier import clear, parcel_of, read_answer, write_out
from stsmm_core.audit.chain import read, verify
from stsmm_core.courier.parcel import unpack


def numbers(file: Path) -> dict[str, float]:
    """Every number of a metrics file but the time that the run took, by its path."""

    def walk(value, path):
        if isinstance(value, dict):
            for key, each in value.items():
                yield from walk(each, f"{path}/{key}")
        elif isinstance(value, list):
            for place, each in enumerate(value):
                yield from walk(each, f"{path}/{place}")
        elif isinstance(value, int | float) and not path.endswith("/wall_s"):
            yield path, float(value)

    return dict(walk(json.loads(file.read_text()), ""))


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the run's checkpoints, by its path."""

    def walk(value, path):
        if isinstance(value, torch.Tensor):
            yield path, value
        elif isinstance(value, dict):
            for key, each in value.items():
                yield from walk(each, f"{path}/{key}")

    files = sorted((run / "checkpoints").glob("*.pt"))
    found = dict(walk({file.name: torch.load(file, weights_only=True) for file in files}, ""))
    assert found
    return found


def test_a_run_with_a_site_by_courier_gives_the_same_result(federate, experiment, cohorts, tmp_path):
    ends = new_ends(tmp_path)
    carried = itertools.count(1)

    def deliver(site, message, answer):
        if site != 1:
            return answer()
        next(carried)
        out = write_out(ends.server, parcel_of(*wrapped(message), run_of(message, {}), APP), message.metadata.run_id)
        reply_file = ends.server.arrivals / "answer.courier"

        def work(parcel):
            assert parcel.app
            assert parcel.run
            return parcel_to_server(answer(message_in(parcel)))

        assert answer_file(ends.site, out, reply_file, work)
        parcel = read_answer(ends.server, reply_file)
        clear(ends.server)
        assert not out.exists()
        return message_in(parcel)

    federate(experiment, [cohorts], tmp_path / "connected")
    federate(experiment, [cohorts], tmp_path / "courier", deliver=deliver)
    messages = next(carried) - 1
    assert messages > 2 * experiment.training.epochs
    connected, courier = tmp_path / "connected", tmp_path / "courier"
    pd.testing.assert_frame_equal(
        pd.read_csv(connected / "history.csv"), pd.read_csv(courier / "history.csv"), rtol=1e-6, atol=1e-7
    )
    assert numbers(courier / "metrics.json") == pytest.approx(
        numbers(connected / "metrics.json"), rel=1e-6, nan_ok=True
    )
    for name, tensor in weights(connected).items():
        torch.testing.assert_close(weights(courier)[name], tensor, rtol=1e-6, atol=1e-7)
    assert verify(ends.site.audit) == 2 * messages
    assert [entry["courier"] for entry in read(ends.site.audit)] == ["received", "answered"] * messages


def test_a_courier_file_shows_no_path_and_no_content(federate, experiment, cohorts, tmp_path):
    ends = new_ends(tmp_path)
    shown = []

    def deliver(site, message, answer):
        if site == 1 and not shown:
            file = write_out(ends.server, parcel_of(*wrapped(message), run_of(message, {}), APP), 1)
            out = tmp_path / "answer.courier"
            answer_file(ends.site, file, out, lambda parcel: parcel_to_server(answer(message_in(parcel))))
            shown.extend([file.read_bytes(), out.read_bytes()])
        return answer()

    federate(experiment, [cohorts], tmp_path / "run", deliver=deliver)
    for data in shown:
        for secret in (str(tmp_path), "site_2", "patients", "metrics"):
            assert secret.encode() not in data


def test_parts_of_a_parcel_come_back_as_they_were(tmp_path):
    from hypothesis import given
    from hypothesis import strategies as st

    from stsmm_core.courier.parcel import Parcel, pack

    @given(
        parts=st.tuples(*[st.binary(max_size=40)] * 4),
        objects=st.dictionaries(st.text(max_size=8), st.binary(max_size=40), max_size=4),
        seconds=st.floats(0, 1e6),
    )
    def check(parts, objects, seconds):
        message, tree, run, app = parts
        back = unpack(pack(Parcel(message, tree, objects, run, app, seconds)))
        assert (back.message, back.tree, back.run, back.app) == (message, tree, run, app)
        assert list(back.objects.items()) == list(objects.items())
        assert back.seconds == seconds

    check()
