"""Reading a finished run folder: the resolved experiment, its versions, its history and its metrics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, model_validator

from stsmm_core.cohort.dictionary import ENDPOINTS, VARIABLES, Category
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.imaging.flag_kinds import FlagKind
from stsmm_core.report.audit import AuditEntry, read_audit
from stsmm_core.report.history import FUSION, history_of, read_history, read_site_history
from stsmm_core.report.run_files import Record, broken, read_record, read_run_experiment, read_versions
from stsmm_core.run_folder import CONFIG_FILE, HISTORY_FILE, METRICS_FILE, SITE_BLENDING_FILE, VERSIONS_FILE

Count = Annotated[int, Field(ge=0)] | None
"""A count of patients, events or pairs; None where the site suppressed it as below its minimum cell size."""

Index = Annotated[float, Field(ge=0, le=1)]
RoundNumber = Annotated[int, Field(ge=0)]


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


class PooledFigure(Record):
    """A figure over the patients of all sites, or the reason why there is none.

    `bounds`: the figure of the pooled rows lies between them; None where the two are equal. `left_out`: at most so many
    patients are not in it, because their site has fewer than its minimum cell size.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: Count
    events: Count
    reason: str | None = None
    bounds: tuple[float, float] | None = None
    left_out: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _number_or_reason(self) -> "PooledFigure":
        if self.value is None and not self.reason:
            raise ValueError("a figure without value needs a reason")
        if (self.ci_low is None) != (self.ci_high is None):
            raise ValueError("give both ends of the interval or none")
        return self


class RiskGroup(Record):
    """Test patients of like predicted risk."""

    n: Count
    predicted: Annotated[float, Field(ge=0, le=1)]
    observed: PooledFigure


class HorizonResult(Record):
    """What was measured at one horizon over the patients of all sites; `site` figures use each site's own baseline."""

    auc: PooledFigure
    brier: PooledFigure
    brier_null: PooledFigure
    ipa: PooledFigure
    oe: PooledFigure
    brier_site: PooledFigure
    oe_site: PooledFigure
    groups: tuple[RiskGroup, ...]


ROUNDING = 1e-9
"""Federated and pooled figures that must be equal differ by less."""


class Check(Record):
    """A line of the exactness certificate."""

    minimum: int
    endpoint: str
    figure: str
    federated: float
    pooled: float
    difference: Annotated[float, Field(ge=0)]
    exact: bool
    low: float | None
    high: float | None

    @property
    def holds(self) -> bool:
        """Whether the figures agree as far as was stated: up to rounding where exact, else the pooled one in bounds."""
        if self.exact:
            return self.difference < ROUNDING
        if self.low is None or self.high is None:
            return True
        return self.low - ROUNDING <= self.pooled <= self.high + ROUNDING


class EndpointResult(Record):
    """What was measured for one head and endpoint on the test patients; horizons are keyed by years."""

    harrell_c: Concordance
    pooled_c: PooledFigure | None = None
    horizons: dict[str, HorizonResult] = Field(default_factory=dict)


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
    image_flags: dict[FlagKind, Count] = Field(default_factory=dict)
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


class Curve(Record):
    """A Kaplan-Meier curve: its value from each time on."""

    days: tuple[float, ...]
    survival: tuple[Index, ...]
    at_risk: tuple[float, ...]

    @model_validator(mode="after")
    def _equally_long(self) -> "Curve":
        if not len(self.days) == len(self.survival) == len(self.at_risk):
            raise ValueError("days, survival and at_risk must be equally long")
        return self


class PooledCurve(Curve):
    """The curve of all sites' patients with its 95 % interval, which is None where the curve is 1 or 0."""

    low: tuple[Index | None, ...]
    high: tuple[Index | None, ...]


class Survival(Record):
    """Curves of one endpoint, and the sites that withhold theirs."""

    sites: dict[str, Curve]
    pooled: PooledCurve | None
    withheld: tuple[str, ...]
    largest_move_days: Annotated[float, Field(ge=0)]


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
    survival: dict[str, Survival] | None = None
    certificate: tuple[Check, ...] = ()

    @model_validator(mode="after")
    def _parts_agree(self) -> "Metrics":
        unknown = [endpoint for endpoint in self.test if endpoint not in ENDPOINTS]
        if unknown:
            raise ValueError(f"test: unknown endpoint {', '.join(unknown)}; choose from {', '.join(ENDPOINTS)}")
        tested = next(iter(self.heads), FUSION)
        if self.heads.get(tested) != self.test:
            raise ValueError(f"test must equal heads.{tested}: the {tested} head is the model that is tested")
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
        site_history: weights of each site at the checkpoints, None where the sites had none of their own.
        audit: what the server left out or warned of.
    """

    experiment: Experiment
    versions: dict[str, str]
    history: pd.DataFrame
    metrics: Metrics
    site_history: pd.DataFrame | None = None
    audit: tuple[AuditEntry, ...] = ()

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
        return history_of(self.history, fold, head)


def read_results(run: Path) -> Results:
    """Read and check what a finished run left in its folder.

    Raises:
        RunError: naming the file that is missing or broken, what is wrong with it and what to do.
    """
    if not run.is_dir():
        raise RunError(f"{run}: no such run folder; give the folder that the training command wrote")
    experiment = read_run_experiment(run / CONFIG_FILE)
    versions = read_versions(run / VERSIONS_FILE)
    metrics = read_record(run / METRICS_FILE, Metrics)
    if set(metrics.heads) != set(experiment.heads):
        wanted = ", ".join(experiment.heads)
        raise broken(run / METRICS_FILE, f"its heads must be those of {CONFIG_FILE} ({wanted})")
    history = read_history(run / HISTORY_FILE, experiment.heads)
    _check_history_matches(history, metrics, run / HISTORY_FILE)
    site_history = read_site_history(run / SITE_BLENDING_FILE, experiment.heads)
    return Results(experiment, versions, history, metrics, site_history, read_audit(run))


def _check_history_matches(history: pd.DataFrame, metrics: Metrics, path: Path) -> None:
    folds = len(metrics.selected_rounds)
    if history["fold"].nunique() != folds:
        raise broken(path, f"{METRICS_FILE} tells of {folds} fold(s), but fold must take the values 0 to {folds - 1}")
    for fold, selected in enumerate(metrics.selected_rounds):
        last = int(history.loc[history["fold"] == fold, "round"].max())
        if selected > last:
            raise broken(path, f"fold {fold}: round {selected} was selected, but the history ends at round {last}")
