"""Reading a run folder: what is broken is named, with what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stsmm_core.errors import RunError
from stsmm_core.report.results import NumberSummary, SiteSummary, read_results
from stsmm_core.report.tables import total_of


def test_reads_a_finished_run(federated_run: Path) -> None:
    results = read_results(federated_run)

    assert results.heads == ("fusion", "image", "clinical")
    assert results.endpoints == ("os", "dm")
    assert results.folds == 1
    assert list(results.series(0, "image").index) == list(range(21))
    assert results.series(0, "image")["train_loss"].notna().sum() == 11


@pytest.mark.parametrize("name", ["config.toml", "versions.json", "history.csv", "metrics.json"])
def test_missing_file_is_named(federated_run: Path, name: str) -> None:
    (federated_run / name).unlink()

    with pytest.raises(RunError, match=rf"{name}: missing; a report needs a finished run"):
        read_results(federated_run)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere: no such run folder"):
        read_results(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("config.toml", "seed = ", "not valid TOML"),
        ("config.toml", "sede = 3", "sede: unknown key"),
        ("versions.json", "{", "not valid JSON"),
        ("versions.json", "[1]", "must map package names to versions"),
        ("metrics.json", "{", "not valid JSON"),
        ("metrics.json", "{}", "cohorts: Field required"),
        ("history.csv", "", "cannot be read as CSV"),
        ("history.csv", "fold,round\n0,0\n", "lacks the columns head, train_loss, validation_loss, weight"),
        ("history.csv", "fold,round,head,train_loss,validation_loss,weight\n", "has no row"),
        ("history.csv", "fold,round,head,train_loss,validation_loss,weight\n0,0,fusion,x,1,1\n", "column train_loss"),
        ("history.csv", "fold,round,head,train_loss,validation_loss,weight\n0,0,fusion,1,1,\n", "column weight"),
    ],
)
def test_broken_file_is_named(federated_run: Path, name: str, content: str, problem: str) -> None:
    (federated_run / name).write_text(content, encoding="utf-8")

    with pytest.raises(RunError) as caught:
        read_results(federated_run)

    assert name in str(caught.value)
    assert problem in str(caught.value)
    assert "run again" in str(caught.value)


@pytest.mark.parametrize("name", ["config.toml", "versions.json", "history.csv", "metrics.json"])
def test_file_that_is_not_text_is_named(federated_run: Path, name: str) -> None:
    (federated_run / name).write_bytes(b"\xff\xfe\x00binary")

    with pytest.raises(RunError, match=name):
        read_results(federated_run)


def change(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(metrics: dict[str, Any]) -> None:
        for key in keys[:-1]:
            metrics = metrics[key]
        metrics[keys[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (change("test", "os", "harrell_c", "value", to=None), "a C-index without value needs a reason"),
        (change("test", "os", "harrell_c", "value", to=1.2), "less than or equal to 1"),
        (change("test", "os", "harrell_c", "value", to=float("nan")), "finite number"),
        (change("test", "os", "harrell_c", "ci_high", to=None), "both ends of the interval"),
        (change("test", "os", "harrell_c", "ci_high", to=0.1), "ci_low is above ci_high"),
        (change("cohorts", 0, "variables", "shoe_size", to={"n": 1, "mean": 40.0, "sd": 0.0}), "shoe_size is not in"),
        (change("cohorts", 0, "variables", "age", to={"n": 1, "levels": {}}), "age must be summarised by mean and sd"),
        (change("cohorts", 0, "variables", "grade", "levels", "huge", to=3), "grade has unknown levels: huge"),
        (change("heads", "fusion", to={}), "test must equal heads.fusion"),
        (change("heads", "image", to={}), "heads.image must have the endpoints of test"),
        (change("heads", "genomic", to={}), "heads.genomic must have the endpoints"),
        (change("first_blending_rounds", to=[2, 4]), "one entry a fold"),
        (change("selected_rounds", to=[21]), "round 21 was selected, but the history ends at round 20"),
    ],
)
def test_wrong_metrics_are_explained(
    metrics: dict[str, Any],
    write: Callable[..., Path],
    fault: Callable[[dict[str, Any]], None],
    problem: str,
) -> None:
    run = write(metrics)
    broken = json.loads((run / "metrics.json").read_text())
    fault(broken)
    (run / "metrics.json").write_text(json.dumps(broken))

    with pytest.raises(RunError, match="run again") as caught:
        read_results(run)

    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("lines_to_drop", "problem"),
    [(slice(-1, None), "needs one row a round from 0 to 20"), (slice(10, 13), "needs one row a round")],
)
def test_torn_history_is_refused(federated_run: Path, lines_to_drop: slice, problem: str) -> None:
    path = federated_run / "history.csv"
    lines = path.read_text().splitlines()
    del lines[lines_to_drop]
    path.write_text("\n".join(lines) + "\n")

    with pytest.raises(RunError, match=problem):
        read_results(federated_run)


def test_weights_that_do_not_sum_to_one_are_refused(federated_run: Path) -> None:
    path = federated_run / "history.csv"
    lines = path.read_text().splitlines()
    lines[1] = ",".join([*lines[1].split(",")[:-1], "0.9"])
    path.write_text("\n".join(lines) + "\n")

    with pytest.raises(RunError, match="weights do not sum to 1"):
        read_results(federated_run)


def test_history_of_fewer_folds_than_the_metrics_is_refused(cv_run: Path) -> None:
    path = cv_run / "history.csv"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("4,")) + "\n")

    with pytest.raises(RunError, match=r"tells of 5 fold\(s\)"):
        read_results(cv_run)


ages = st.lists(st.floats(0, 120), min_size=1, max_size=12)


@given(st.lists(ages, min_size=1, max_size=5))
def test_pooled_moments_equal_those_of_all_patients_together(groups: list[list[float]]) -> None:
    sites = [
        SiteSummary(
            site=f"site_{number}",
            patients=len(group),
            events={},
            with_image=0,
            variables={
                "age": NumberSummary(
                    n=len(group),
                    mean=float(np.mean(group)),
                    sd=float(np.std(group, ddof=1)) if len(group) > 1 else None,
                )
            },
        )
        for number, group in enumerate(groups)
    ]
    together = np.concatenate(groups)

    pooled = total_of(sites).variables["age"]

    assert isinstance(pooled, NumberSummary)
    assert pooled.n == len(together)
    assert pooled.mean == pytest.approx(together.mean())
    if len(together) > 1:
        assert pooled.sd == pytest.approx(together.std(ddof=1), abs=1e-6)
    else:
        assert pooled.sd is None
