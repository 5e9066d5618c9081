"""Reading cox.json of a finished run, and its table of hazard ratios."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field, model_validator

from stsmm_core.cohort.dictionary import VARIABLES, Number
from stsmm_core.report.results import Metrics, Results
from stsmm_core.report.run_files import Record, read_record, read_run_experiment, read_versions
from stsmm_core.report.tables import level_words
from stsmm_core.run_folder import CONFIG_FILE, COX_FILE, HISTORY_COLUMNS, METRICS_FILE, VERSIONS_FILE

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
MISSING = ""
"""How cox.json calls the level of patients whose value is missing."""


class HazardRatio(Record):
    """A hazard ratio with its 95 % interval: of a level against the reference, or of a number by `per` units."""

    variable: str
    level: str | None
    per: Positive | None
    hazard_ratio: Positive
    ci_low: NotNegative
    ci_high: NotNegative

    @model_validator(mode="after")
    def _known_variable(self) -> "HazardRatio":
        if self.variable not in VARIABLES:
            raise ValueError(f"{self.variable} is not in the data dictionary")
        if (self.level is None) != (self.per is not None):
            raise ValueError(f"{self.variable}: a number needs `per`, a level must not have it")
        return self


class CoxEndpoint(Record):
    """The final model of one endpoint."""

    patients: Annotated[int, Field(ge=0)]
    events: Annotated[int, Field(ge=0)]
    rounds: Annotated[int, Field(ge=1)]
    largest_move_days: NotNegative
    grid_error: NotNegative
    references: dict[str, list[str]]
    hazard_ratios: tuple[HazardRatio, ...] = Field(min_length=1)


class CoxRecord(Record):
    """cox.json."""

    endpoints: dict[str, CoxEndpoint] = Field(min_length=1)


@dataclass(frozen=True)
class HazardRow:
    """One line of the table; `kind` is plain, group (names a category and its reference) or level."""

    label: str
    ratio: str
    kind: str


def read_cox_run(run: Path) -> tuple[Results, CoxRecord]:
    """Read and check what a finished Cox regression left in its folder; its results have no history.

    Raises:
        RunError: naming the file that is missing or broken, what is wrong with it and what to do.
    """
    results = Results(
        read_run_experiment(run / CONFIG_FILE),
        read_versions(run / VERSIONS_FILE),
        pd.DataFrame(columns=list(HISTORY_COLUMNS)),
        read_record(run / METRICS_FILE, Metrics),
    )
    return results, read_record(run / COX_FILE, CoxRecord)


def hazard_table(model: CoxEndpoint) -> tuple[HazardRow, ...]:
    """The hazard ratios, a category's levels below its name and reference."""
    rows: list[HazardRow] = []
    for key, variable in VARIABLES.items():
        ratios = [ratio for ratio in model.hazard_ratios if ratio.variable == key]
        if not ratios:
            continue
        if isinstance(variable, Number):
            rows.extend(HazardRow(_number_label(variable, ratio), _ratio(ratio), "plain") for ratio in ratios)
            continue
        reference = ", ".join(_level(level) for level in model.references.get(key, []))
        rows.append(HazardRow(f"{variable.label} (reference: {reference})", "", "group"))
        rows.extend(HazardRow(_level(str(ratio.level)), _ratio(ratio), "level") for ratio in ratios)
    return tuple(rows)


def _number_label(variable: Number, ratio: HazardRatio) -> str:
    if ratio.level is not None:
        return f"{variable.label}: missing"
    return f"{variable.label}, per {ratio.per:.3g} {variable.unit} (1 SD)"


def _level(level: str) -> str:
    return "missing" if level == MISSING else level_words(level)


def _ratio(ratio: HazardRatio) -> str:
    return f"{ratio.hazard_ratio:.2f} [{ratio.ci_low:.2f}, {ratio.ci_high:.2f}]"
