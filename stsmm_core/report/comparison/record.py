"""comparison.json as a validated tree: what is measured, on whom, and the reason where there is no number."""

from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from stsmm_core.cohort.dictionary import ENDPOINTS, VARIABLES, Category
from stsmm_core.report.run_files import Record

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Shares = tuple[Share, ...]
Values = tuple[float, ...]
Curve = TypeVar("Curve", bound=Record)


class Estimate(Record):
    """A figure with its bootstrap SD and 95 % interval over patients, or the reason why there is none."""

    value: float | None
    sd: Annotated[float, Field(ge=0)] | None
    low: float | None
    high: float | None
    n: Count
    events: Count
    reason: str | None = None

    @model_validator(mode="after")
    def _number_or_reason(self) -> "Estimate":
        if self.value is None and not self.reason:
            raise ValueError("an estimate without value needs a reason")
        if (self.low is None) != (self.high is None):
            raise ValueError("give both ends of the interval or none")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high")
        return self


class Flow(Record):
    """Patients at each step from the cohort to the test set; no counts of sets in cross-validation.

    `train` and `validation`, together `development`, are told where all networks share one division.
    Metastasis at presentation is None where it is not known of anybody.
    """

    recorded: Count
    with_image: Count
    with_outcome: dict[str, Count]
    metastatic_at_presentation: Count | None
    train: Count | None
    validation: Count | None
    development: Count | None = None
    test: Count | None


class FollowUp(Record):
    """Median follow-up with its 95 % interval by the reverse Kaplan-Meier method, days; None where not reached."""

    median: float | None
    low: float | None
    high: float | None


class NumberColumn(Record):
    """A continuous variable in one column of Table 1; all None without patients."""

    n: Count
    mean: float | None
    sd: Annotated[float, Field(ge=0)] | None
    median: float | None
    q1: float | None
    q3: float | None


class CategoryColumn(Record):
    """A categorical variable in one column of Table 1; a level that is not listed has count 0."""

    n: Count
    levels: dict[str, Count]


class CohortColumn(Record):
    """One column of Table 1: a set of the split, a site, or all patients; `at_risk` of an endpoint is who has one."""

    column: str
    patients: Count
    events: dict[str, Count]
    at_risk: dict[str, Count]
    with_image: Count
    variables: dict[str, NumberColumn | CategoryColumn]

    @model_validator(mode="after")
    def _follows_the_dictionary(self) -> "CohortColumn":
        for key, summary in self.variables.items():
            if key not in VARIABLES:
                raise ValueError(f"{key} is not in the data dictionary")
            variable = VARIABLES[key]
            if isinstance(variable, Category) != isinstance(summary, CategoryColumn):
                wanted = "levels" if isinstance(variable, Category) else "mean, sd, median, q1 and q3"
                raise ValueError(f"{key} must be summarised by {wanted}")
            if isinstance(summary, CategoryColumn) and isinstance(variable, Category):
                unknown = [level for level in summary.levels if level not in variable.levels]
                if unknown:
                    raise ValueError(f"{key} has unknown levels: {', '.join(unknown)}")
        return self


class Model(Record):
    """One of the models compared; `paper` holds the published C-index and its SD by endpoint."""

    key: str
    label: str
    inputs: str
    estimator: str
    paper: dict[str, tuple[float, float]] | None = None
    network: bool


class ResampledT(Record):
    """Corrected resampled t-test over the folds (Nadeau and Bengio, Mach Learn 2003)."""

    mean: float
    low: float
    high: float
    p: Share


class Difference(Record):
    """Metric of `model` minus that of `against`, on the same test patients."""

    model: str
    against: str
    metric: Literal["harrell_c"]
    difference: Estimate
    p: Share | None
    resampled_t: ResampledT | None = None


class Roc(Record):
    """Time-dependent ROC curve, smoothed."""

    fpr: Shares
    tpr: Shares
    auc: Share

    @model_validator(mode="after")
    def _as_long(self) -> "Roc":
        return _as_long(self, "fpr", "tpr")


class Groups(Record):
    """Observed risk with its 95 % interval in groups of predicted risk."""

    predicted: Shares
    observed: Shares
    low: Shares
    high: Shares

    @model_validator(mode="after")
    def _as_long(self) -> "Groups":
        return _as_long(self, "predicted", "observed", "low", "high")


class Calibration(Record):
    """Smoothed observed risk over predicted risk."""

    predicted: Shares
    observed: Shares
    groups: Groups

    @model_validator(mode="after")
    def _as_long(self) -> "Calibration":
        return _as_long(self, "predicted", "observed")


class Decision(Record):
    """Net benefit over the threshold of risk: of the model, of treating all and of treating none."""

    threshold: Shares
    model: Values
    all: Values
    none: Values

    @model_validator(mode="after")
    def _as_long(self) -> "Decision":
        return _as_long(self, "threshold", "model", "all", "none")


class Curves(Record):
    """Curves of one model, endpoint and horizon; None where the data do not allow one."""

    roc: Roc | None = None
    calibration: Calibration | None = None
    decision: Decision | None = None


class CumulativeIncidence(Record):
    """Distant metastasis with death competing (Aalen-Johansen), beside 1 - Kaplan-Meier."""

    years: tuple[Annotated[float, Field(ge=0)], ...]
    dm: Shares
    death_first: Shares
    one_minus_km: Shares

    @model_validator(mode="after")
    def _as_long(self) -> "CumulativeIncidence":
        return _as_long(self, "years", "dm", "death_first", "one_minus_km")


class Subgroup(Record):
    """Discrimination of the model in the patients with one level of a variable."""

    variable: str
    level: str
    n: Count
    events: Count
    harrell_c: Estimate


class PictureRecord(Record):
    """A heat map of one patient; `file` is a path from the run folder, below figures/ or private/."""

    file: str
    endpoint: str
    right: bool
    caption: str


class Similarity(Record):
    """Mean rank correlation of heat maps of the same patient, with its 95 % interval; None where no map varies."""

    layers: str
    mean: float | None
    low: float | None
    high: float | None
    n: Count
    patients: Count


class RadiomicsRecord(Record):
    """How many features there were, and how many the models of each test fold could use.

    `second_reader` says whether those on which two readers do not agree were left out.
    """

    measured: Count
    used: tuple[Count, ...] = Field(min_length=1)
    second_reader: bool


class Explanations(Record):
    """What the model looked at: sanity checks by endpoint, attributions by endpoint and column, heat maps.

    `scope` says of which model and patients.
    """

    scope: str = ""
    sanity: dict[str, tuple[Similarity, ...]] = Field(default_factory=dict)
    clinical: dict[str, dict[str, Annotated[float, Field(ge=0)]]] = Field(default_factory=dict)
    figures: tuple[PictureRecord, ...] = ()


Estimates = dict[str, Estimate]


class ComparisonRecord(Record):
    """comparison.json of a finished run."""

    schema_version: Literal[1]
    sites: tuple[str, ...] = Field(min_length=1)
    channels: tuple[str, ...]
    scheme: str
    seed: Count
    horizons_years: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    wall_s: Annotated[float, Field(ge=0)]
    synthetic: bool
    flow: Flow
    missing: dict[str, Count]
    follow_up_days: dict[str, FollowUp]
    taus: dict[str, float | None] = Field(default_factory=dict)
    cohort_by: tuple[CohortColumn, ...] = Field(min_length=1)
    models: tuple[Model, ...] = Field(min_length=1)
    results: dict[str, dict[str, Estimates]]
    differences: dict[str, tuple[Difference, ...]] = Field(default_factory=dict)
    curves: dict[str, dict[str, dict[str, Curves]]] = Field(default_factory=dict)
    cumulative_incidence: CumulativeIncidence | None = None
    subgroups: dict[str, tuple[Subgroup, ...]] = Field(default_factory=dict)
    radiomics: RadiomicsRecord | None = None
    explanations: Explanations | None = None

    @model_validator(mode="after")
    def _parts_agree(self) -> "ComparisonRecord":
        keys = [model.key for model in self.models]
        if len(set(keys)) != len(keys):
            raise ValueError("models: a key stands twice")
        if set(self.results) != set(keys):
            raise ValueError(f"results must be those of the models ({', '.join(keys)})")
        endpoints = set(self.results[keys[0]])
        if not endpoints or not endpoints <= set(ENDPOINTS):
            raise ValueError(f"results: choose endpoints from {', '.join(ENDPOINTS)}")
        for key, results in self.results.items():
            if set(results) != endpoints:
                raise ValueError(f"results.{key} must have the endpoints {', '.join(sorted(endpoints))}")
            lacking = [endpoint for endpoint, metrics in results.items() if "harrell_c" not in metrics]
            if lacking:
                raise ValueError(f"results.{key}.{lacking[0]} lacks harrell_c")
        strangers = [
            key
            for pairs in self.differences.values()
            for pair in pairs
            for key in (pair.model, pair.against)
            if key not in keys
        ] + [key for key in self.curves if key not in keys]
        if strangers:
            raise ValueError(f"differences and curves name models that are not compared: {', '.join(strangers)}")
        columns = [column.column for column in self.cohort_by]
        if "all" not in columns or len(set(columns)) != len(columns):
            raise ValueError("cohort_by needs the column 'all', and no column twice")
        return self


def _as_long(curve: Curve, *names: str) -> Curve:
    if len({len(getattr(curve, name)) for name in names}) != 1:
        raise ValueError(f"{', '.join(names)} must have the same length")
    return curve
