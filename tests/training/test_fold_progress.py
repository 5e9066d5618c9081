"""Checkpoints of a fold, the choice of the best round, and blending from the sums of all sites."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.config import Blending, Experiment
from stsmm_core.errors import RunError
from stsmm_core.run_folder import HISTORY_COLUMNS
from stsmm_core.training.blending import BlendingState, Interval
from stsmm_core.training.experiment import Progress, _last_progress, blend, load_progress, save_progress, write_history
from stsmm_core.training.losses import LossChanges, LossSums
from stsmm_core.training.rounds import RoundLosses

EXPERIMENT = Experiment()


def weights(value):
    return {"layer.weight": np.full((2, 3), value, dtype=np.float32), "scalar": np.array(value, dtype=np.float32)}


def losses(fusion, *, events=4.0, checkpoint=False):
    shape = (3, 2)
    loss = np.full(shape, fusion * events)
    loss[1:] = 3 * events / (0.1 + fusion)  # the unimodal heads move the other way and must not count
    validation = LossSums(loss, np.full(shape, events))
    if not checkpoint:
        return RoundLosses(validation)
    change = LossChanges(np.full(shape, -1.0), np.full(shape, events), np.zeros((3, 4, 4)))
    return RoundLosses(validation, validation, change, change)


def start():
    encoding = ClinicalEncoding(("age", "sex"), {"age": (58.0, 14.0)})
    return Progress(-1, weights(0), BlendingState((1 / 3,) * 3), encoding, weights(0))


def after(progress, round_number, fusion, blending=None, **options):
    return progress.after(
        round_number,
        weights(round_number),
        losses(fusion, **options),
        blending or progress.blending,
        experiment=EXPERIMENT,
        fold=0,
    )


def test_a_checkpoint_comes_back_whole(tmp_path):
    progress = start()
    for round_number, fusion in enumerate((2.0, 1.1, 0.7, 0.9)):
        state = BlendingState((0.2 + round_number / 10, 0.3, 0.5 - round_number / 10), updates=round_number)
        progress = after(progress, round_number, fusion, state, checkpoint=round_number % 2 == 0)
    path = tmp_path / "checkpoints" / "fold-0.pt"
    save_progress(progress, path)
    loaded = load_progress(path)
    for name in ("weights", "selected"):
        saved, read = getattr(progress, name), getattr(loaded, name)
        assert saved.keys() == read.keys()
        for key in saved:
            assert saved[key].dtype == read[key].dtype
            np.testing.assert_array_equal(saved[key], read[key])
    assert loaded.encoding == progress.encoding
    assert loaded.blending == progress.blending == BlendingState((0.5, 0.3, 0.2), updates=3)
    assert isinstance(loaded.blending, BlendingState)
    plain = (
        "round",
        "selected_round",
        "selected_loss",
        "validation_events",
        "first_blending_round",
        "seconds",
        "history",
    )
    assert [getattr(loaded, name) for name in plain] == [getattr(progress, name) for name in plain]
    assert loaded.first_blending_round == 1


def test_a_computed_blending_state_comes_back(tmp_path):
    interval = Interval.from_changes(np.array([-0.5, -0.1, -0.6]), np.array([-0.2, -0.1, 0.1]))
    state = BlendingState((1 / 3,) * 3).after(interval, Blending())
    save_progress(after(start(), 1, 1.0, state), tmp_path / "fold-0.pt")
    assert load_progress(tmp_path / "fold-0.pt").blending == state


def test_a_checkpoint_holds_tensors_and_plain_values_only(tmp_path):
    save_progress(after(start(), 1, 1.0, checkpoint=True), tmp_path / "fold-0.pt")
    assert torch.load(tmp_path / "fold-0.pt", weights_only=True)["round"] == 1


def test_lowest_fusion_validation_loss_is_selected():
    progress = start()
    for round_number, fusion in enumerate((0.1, 1.1, 0.7, 0.9, 0.7)):
        progress = after(progress, round_number, fusion)
    # Round 0 is the untrained network and cannot be chosen; of equals the first stays.
    assert progress.selected_round == 2
    assert progress.selected_loss == pytest.approx(1.4)  # 0.7 for each of two endpoints
    assert progress.selected["scalar"] == 2
    assert progress.weights["scalar"] == 4


def test_losses_that_select_take_the_place_of_those_of_all():
    progress = start()
    for round_number, (of_all, selecting) in enumerate([(0.1, 0.1), (0.2, 0.8), (0.9, 0.3), (0.4, 0.5)]):
        both = replace(losses(of_all), selecting=losses(selecting, events=2.0).validation)
        progress = progress.after(
            round_number, weights(round_number), both, progress.blending, experiment=EXPERIMENT, fold=0
        )
    assert (progress.selected_round, progress.selected_loss) == (2, pytest.approx(0.6))
    assert progress.validation_events == 4.0  # 2 of each endpoint
    assert progress.history[-1]["validation_loss"] == pytest.approx(2 * 3 / (0.1 + 0.4))  # the table is of all


def test_validation_sets_without_a_pair_to_rank_select_nothing():
    """Two patients a site, of which the later has the event: its risk set is itself, and every model has loss 0."""
    progress = start()
    for round_number in range(4):
        progress = after(progress, round_number, 0.0)
    assert progress.selected_round == 3


def test_without_a_validation_event_the_last_round_is_taken():
    progress = start()
    for round_number in range(4):
        progress = after(progress, round_number, 0.0, events=0.0)
    assert progress.selected_round == 3


def test_a_round_that_a_site_missed_is_not_compared():
    progress = start()
    for round_number, (fusion, events) in enumerate([(2.0, 4.0), (1.0, 4.0), (0.1, 2.0), (1.5, 4.0)]):
        progress = after(progress, round_number, fusion, events=events)
    assert progress.selected_round == 1
    assert progress.validation_events == 8  # of both endpoints


def test_where_a_site_is_always_missing_the_last_round_is_taken():
    progress = after(start(), 0, 2.0, events=4.0)
    for round_number in (1, 2, 3):
        progress = after(progress, round_number, round_number / 10, events=2.0)
    assert progress.selected_round == 3


def test_history_and_first_blending_round(tmp_path):
    progress = after(start(), 0, 1.0, checkpoint=True)
    assert progress.first_blending_round is None
    changed = BlendingState((0.5, 0.3, 0.2), updates=1)
    progress = after(after(progress, 1, 0.5, changed), 2, 0.5, BlendingState((0.4, 0.3, 0.3), updates=2))
    assert progress.first_blending_round == 1
    write_history([progress], tmp_path / "history.csv")
    history = pd.read_csv(tmp_path / "history.csv")
    assert tuple(history.columns) == HISTORY_COLUMNS
    assert history["head"].tolist() == ["fusion", "image", "clinical"] * 3
    assert history["weight"].tolist() == pytest.approx([1 / 3] * 3 + [0.5, 0.3, 0.2, 0.4, 0.3, 0.3])
    fusion = history[history["head"] == "fusion"]
    assert fusion["validation_loss"].tolist() == [2.0, 1.0, 1.0]
    assert history["train_loss"].notna().tolist() == [True] * 3 + [False] * 6


def changes(per_head, *, events=5.0, variance=0.0):
    change = np.array(per_head)[:, None] * [events, 0.0]
    covariance = np.zeros((3, 4, 4))
    covariance[:, 0, 0] = variance * events**2
    return LossChanges(change, np.full((3, 2), events), covariance)


def round_losses(train, validation, *, train_variance=0.0, validation_variance=0.0, **options):
    sums = losses(1.0).validation
    return RoundLosses(
        sums,
        sums,
        changes(validation, variance=validation_variance, **options),
        changes(train, variance=train_variance, **options),
    )


def test_blending_from_sums_is_blending_from_losses():
    # The worked example of test_blending, as sums over events: dG = 0.4, 0.05, -0.1 and dO = 0.1, 0.05, 0.7.
    experiment = Experiment(blending=Blending(method="simplex", eps=1e-12))
    observed = round_losses([-0.5, -0.1, -0.6], [-0.4, -0.05, 0.1])
    state = blend(BlendingState((1 / 3,) * 3), observed, experiment)
    np.testing.assert_allclose(state.weights, [2 / 3, 1 / 3, 0], atol=1e-9)


def test_blending_uses_the_variances_of_both_sets():
    blending = Blending(z=1, tau=0, shrink=0, floor=0, ceiling=1, smoothing=0)
    variances = {"train_variance": 0.03, "validation_variance": 0.01}
    observed = round_losses([-0.5, -0.1, -0.6], [-0.4, -0.05, 0.1], **variances)
    # se(dG) = 0.1 leaves fusion 0.3 and image nothing.
    state = blend(BlendingState((1 / 3,) * 3), observed, Experiment(blending=blending))
    np.testing.assert_allclose(state.weights, [1, 0, 0], atol=1e-9)
    interval = Interval(
        np.array([0.4, 0.05, -0.1]), np.array([0.1, 0.05, 0.7]), np.full(3, 0.1), np.full(3, np.sqrt(0.04))
    )
    half = blending.model_copy(update={"z": 0.2})
    expected = BlendingState((1 / 3,) * 3).after(interval, half)
    state = blend(BlendingState((1 / 3,) * 3), observed, Experiment(blending=half))
    np.testing.assert_allclose(state.weights, expected.weights, atol=1e-9)


def test_sites_add_up_before_blending():
    one, two = round_losses([-0.5, -0.1, -0.6], [-0.4, -0.05, 0.1], events=5), losses(1.0, checkpoint=True)
    total = one + two
    np.testing.assert_array_equal(total.validation_change.events, one.validation_change.events + 4)
    np.testing.assert_array_equal(total.train.loss, one.train.loss + two.train.loss)


@pytest.mark.parametrize("observed", [losses(1.0), round_losses([-1, -1, -1], [-1, -1, -1], events=0.0)])
def test_nothing_to_blend_by(observed):
    before = BlendingState((0.2, 0.3, 0.5), updates=1)
    assert blend(before, observed, EXPERIMENT) == before


def test_a_torn_checkpoint_loses_one_round(tmp_path):
    path = tmp_path / "fold-0.pt"
    first = after(start(), 1, 1.0)
    save_progress(first, path)
    save_progress(after(first, 2, 0.9), path)
    found = _last_progress(path)
    assert found is not None
    assert found.round == 2
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"fold-0\.pt cannot be read"):
        found = _last_progress(path)
    assert found is not None
    assert found.round == 1
    (tmp_path / "fold-0.previous.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="cannot be read"), pytest.raises(RunError, match="neither"):
        _last_progress(path)
