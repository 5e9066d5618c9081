"""Reading a finished run folder: the resolved experiment, its versions, its history and its metrics."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from stsmm_core.cohort.dictionary import ENDPOINTS, VARIABLES, Category
from stsmm_core.config import Experiment, parse_experiment
from stsmm_core.errors import ConfigError, RunError
from stsmm_core.imaging.flag_kinds import FlagKind
from stsmm_core.run_folder import CONFIG_FILE, HISTORY_COLUMNS, HISTORY_FILE, METRICS_FILE, VERSIONS_FILE

FUSION = "fusion"

Count = Annotated[int, Field(ge=0)] | None
"""A count of patients, events or pairs; None where the site suppressed it as below its minimum cell size."""

Index = Annotated[float, Field(ge=0, le=1)]
RoundNumber = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """A part of metrics.json: keys that the report does not print are ignored, NaN and infinity are faults."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Concordance(Record):
    """A C-index with its 95 % interval, or the reason why there is none."""

    value: Index | None
    ci_low: Index | None
    ci_high: Index | None
    n: Count
    events: Count
    pairs: Count
    reason: str | None = None

    @model_validator(mode="after")
    def _number_or_reason(self) -> "Concordance":
        if self.value is None and not self.reason:
            raise ValueError("a C-index without value needs a reason")
        if (self.ci_low is None) != (self.ci_high is None):
            raise ValueError("give both ends of the interval or none")
        if self.ci_low is not None and self.ci_high is not None and self.ci_low > self.ci_high:
            raise ValueError("ci_low is above ci_high")
        return self


class EndpointResult(Record):
    """What was measured for one head and endpoint on the test patients."""

    harrell_c: Concordance


class NumberSummary(Record):
    """A continuous variable at one site; `sd` is the sample standard deviation (denominator n - 1)."""

    n: Count
    mean: float | None
    sd: Annotated[float, Field(ge=0)] | None


class CategorySummary(Record):
    """A categorical variable at one site; a level that is not listed has count 0."""

    n: Count
    levels: dict[str, Count]


class SiteSummary(Record):
    """What one site says about its cohort."""

    site: str
    patients: Count
    events: dict[str, Count]
    with_image: Count
    image_flags: dict[FlagKind, Count] = {}
    variables: dict[str, NumberSummary | CategorySummary]

    @model_validator(mode="after")
    def _follows_the_dictionary(self) -> "SiteSummary":
        for key, summary in self.variables.items():
            if key not in VARIABLES:
                raise ValueError(f"{key} is not in the data dictionary")
            variable = VARIABLES[key]
            if isinstance(variable, Category) != isinstance(summary, CategorySummary):
                wanted = "levels" if isinstance(variable, Category) else "mean and sd"
                raise ValueError(f"{key} must be summarised by {wanted}")
            if isinstance(summary, CategorySummary) and isinstance(variable, Category):
                unknown = [level for level in summary.levels if level not in variable.levels]
                if unknown:
                    raise ValueError(f"{key} has unknown levels: {', '.join(unknown)}")
        return self


class Metrics(Record):
    """metrics.json of a finished run."""

    mode: Literal["centralised", "federated"]
    cohorts: tuple[SiteSummary, ...] = Field(min_length=1)
    test: dict[str, EndpointResult] = Field(min_length=1)
    heads: dict[str, dict[str, EndpointResult]]
    oracle: dict[str, Index | None] | None
    tested_sites: tuple[str, ...]
    selected_rounds: tuple[RoundNumber, ...] = Field(min_length=1)
    first_blending_rounds: tuple[RoundNumber | None, ...]
    wall_s: Annotated[float, Field(ge=0)]
    rounds: RoundNumber

    @model_validator(mode="after")
    def _parts_agree(self) -> "Metrics":
        unknown = [endpoint for endpoint in self.test if endpoint not in ENDPOINTS]
        if unknown:
            raise ValueError(f"test: unknown endpoint {', '.join(unknown)}; choose from {', '.join(ENDPOINTS)}")
        if self.heads.get(FUSION) != self.test:
            raise ValueError("test must equal heads.fusion: the fusion head is the model that is tested")
        for head, results in self.heads.items():
            if set(results) != set(self.test):
                raise ValueError(f"heads.{head} must have the endpoints of test ({', '.join(self.test)})")
        if len(self.first_blending_rounds) != len(self.selected_rounds):
            raise ValueError("selected_rounds and first_blending_rounds must have one entry a fold")
        return self


@dataclass(frozen=True)
class Results:
    """A finished run.

    Attributes:
        history: columns fold, round, head, train_loss, validation_loss, weight, sorted by fold and round; losses are
            NaN where they were not evaluated; `weight` is in force for the round after the row's.
    """

    experiment: Experiment
    versions: dict[str, str]
    history: pd.DataFrame
    metrics: Metrics

    @property
    def folds(self) -> int:
        """Models trained in this run."""
        return len(self.metrics.selected_rounds)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Endpoints in the order of the data dictionary."""
        return tuple(endpoint for endpoint in ENDPOINTS if endpoint in self.metrics.test)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the output layers, the multimodal one first."""
        return self.experiment.heads

    def series(self, fold: int, head: str) -> pd.DataFrame:
        """The history of one head in one fold, index round."""
        rows = self.history[(self.history["fold"] == fold) & (self.history["head"] == head)]
        return rows.set_index("round")


def read_results(run: Path) -> Results:
    """Read and check what a finished run left in its folder.

    Raises:
        RunError: naming the file that is missing or broken, what is wrong with it and what to do.
    """
    if not run.is_dir():
        raise RunError(f"{run}: no such run folder; give the folder that the training command wrote")
    try:
        experiment = parse_experiment(_text(run / CONFIG_FILE), source=str(run / CONFIG_FILE))
    except ConfigError as error:
        raise RunError(f"{error}\n  restore the file that the run wrote, or run again") from None
    versions = _read_versions(run / VERSIONS_FILE)
    metrics = _read_metrics(run / METRICS_FILE)
    history = _read_history(run / HISTORY_FILE)
    if set(metrics.heads) != set(experiment.heads):
        wanted = ", ".join(experiment.heads)
        raise _broken(run / METRICS_FILE, f"its heads must be those of {CONFIG_FILE} ({wanted})")
    _check_history_matches(history, metrics, run / HISTORY_FILE)
    return Results(experiment, versions, history, metrics)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(
            f"{path}: missing; a report needs a finished run, so let the run finish or start it again"
        ) from None
    except UnicodeDecodeError:
        raise _broken(path, "not UTF-8 text") from None


def _broken(path: Path, problem: str) -> RunError:
    return RunError(f"{path}: {problem}; restore the file that the run wrote, or run again")


def _read_versions(path: Path) -> dict[str, str]:
    text = _text(path)
    try:
        return TypeAdapter(dict[str, str]).validate_python(json.loads(text))
    except json.JSONDecodeError as error:
        raise _broken(path, f"not valid JSON ({error})") from None
    except ValidationError:
        raise _broken(path, "must map package names to versions") from None


def _read_metrics(path: Path) -> Metrics:
    text = _text(path)
    try:
        return Metrics.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        raise _broken(path, f"not valid JSON ({error})") from None
    except ValidationError as error:
        faults = [
            ".".join(str(part) for part in fault["loc"]) + ": " + fault["msg"].removeprefix("Value error, ")
            for fault in error.errors()
        ]
        raise _broken(path, "; ".join(fault.removeprefix(": ") for fault in faults)) from None


def _read_history(path: Path) -> pd.DataFrame:
    if not path.is_file():
        _text(path)
    try:
        table = pd.read_csv(path, encoding="utf-8", dtype={"head": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise _broken(path, f"cannot be read as CSV ({error})") from None
    absent = [column for column in HISTORY_COLUMNS if column not in table]
    if absent:
        raise _broken(path, f"lacks the columns {', '.join(absent)}")
    if table.empty:
        raise _broken(path, "has no row")
    for column in HISTORY_COLUMNS:
        if column == "head":
            continue
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise _broken(path, f"column {column} holds something that is not a number")
        optional = column in ("train_loss", "validation_loss")
        values = table[column].dropna() if optional else table[column]
        if not np.isfinite(values).all():
            raise _broken(path, f"column {column} holds an {'infinite' if optional else 'empty or infinite'} value")
    return table.astype({"fold": int, "round": int}).sort_values(["fold", "round"], kind="stable", ignore_index=True)


def _check_history_matches(history: pd.DataFrame, metrics: Metrics, path: Path) -> None:
    folds = len(metrics.selected_rounds)
    if set(history["fold"]) != set(range(folds)):
        raise _broken(path, f"{METRICS_FILE} tells of {folds} fold(s), but fold must take the values 0 to {folds - 1}")
    if set(history["head"]) != set(metrics.heads):
        raise _broken(path, f"its heads differ from those of {METRICS_FILE} ({', '.join(metrics.heads)})")
    for fold in range(folds):
        rows = history[history["fold"] == fold]
        last = int(rows["round"].max())
        for head in metrics.heads:
            rounds = rows.loc[rows["head"] == head, "round"].to_list()
            if rounds != list(range(last + 1)):
                raise _broken(path, f"fold {fold}, head {head}: needs one row a round from 0 to {last}")
        if not np.allclose(rows.groupby("round")["weight"].sum(), 1, atol=0.01):
            raise _broken(path, f"fold {fold}: the heads' weights do not sum to 1 in every round")
        selected = metrics.selected_rounds[fold]
        if selected > last:
            raise _broken(path, f"fold {fold}: round {selected} was selected, but the history ends at round {last}")
