"""The data dictionary: the single definition of every variable and endpoint of a cohort."""

from dataclasses import dataclass

SCHEMA_VERSION = 1
DAYS_PER_YEAR = 365.25
"""Times are days in files and code, years in reports."""
ENDPOINTS = {"os": "overall survival", "dm": "distant metastasis"}
EVENTS = {"os": "death", "dm": "distant metastasis"}
"""What an event of each endpoint is."""
PATIENT_ID = "patient_id"


@dataclass(frozen=True)
class Number:
    """A continuous variable with its unit and the range outside which a value is refused."""

    key: str
    label: str
    unit: str
    low: float
    high: float

    def problem(self, cell: str) -> str | None:
        """What is wrong with a non-empty cell, or None."""
        try:
            value = float(cell)
        except ValueError:
            return f"'{cell}' is not a number; write a number in {self.unit} or leave it empty"
        if not self.low <= value <= self.high:
            return f"{cell} {self.unit} is outside {self.low:g} to {self.high:g}; check the unit ({self.unit})"
        return None


@dataclass(frozen=True)
class Category:
    """A categorical variable with its fixed levels, in the order of their one-hot columns."""

    key: str
    label: str
    levels: tuple[str, ...]

    def problem(self, cell: str) -> str | None:
        """What is wrong with a non-empty cell, or None."""
        if cell not in self.levels:
            return f"'{cell}' is not a level; write one of {', '.join(self.levels)} or leave it empty"
        return None


Variable = Number | Category

_PAPER: tuple[Variable, ...] = (
    Number("age", "Age at diagnosis", "years", 0, 120),
    Category("sex", "Sex", ("F", "M")),
    Category(
        "histology",
        "Histological subtype",
        (
            "leiomyosarcoma",
            "dedifferentiated_liposarcoma",
            "pleomorphic_liposarcoma",
            "myxoid_liposarcoma",
            "mpnst",
            "myxofibrosarcoma",
            "synovial_sarcoma",
            "undifferentiated_pleomorphic_sarcoma",
            "vascular_sarcoma",
            "other",
        ),
    ),
    Number("size_cm", "Largest tumour diameter", "cm", 0.1, 60),
    Category("grade", "FNCLCC grade", ("low", "intermediate", "high")),
    Category("location", "Tumour location", ("axial", "upper_extremity", "lower_extremity")),
    Number("volume_cm3", "Tumour volume", "cm³", 0.01, 30000),
    Category("depth", "Depth", ("superficial", "deep")),
    Category("neoadjuvant_chemo", "Neoadjuvant chemotherapy", ("0", "1")),
    Category("metastasis_at_presentation", "Metastasis at presentation", ("0", "1")),
    Category("radiotherapy", "Radiotherapy", ("none", "preoperative", "postoperative")),
)

VARIABLES: dict[str, Variable] = {variable.key: variable for variable in _PAPER}
"""Every variable a cohort may carry, by key."""

PAPER_VARIABLES: tuple[str, ...] = tuple(variable.key for variable in _PAPER)
"""The eleven clinical variables of the paper (Methods, clinical data)."""


LONGEST_TIME_DAYS = 150 * 366
"""No patient lives longer."""


def endpoint_columns(endpoint: str) -> tuple[str, str]:
    """Columns of clinical.csv that hold an endpoint: time in days and event 0/1."""
    return f"{endpoint}_days", f"{endpoint}_event"


def years_in_words(years: float) -> str:
    """Like "1 year" or "2.5 years"."""
    return f"{years:g} year" if years == 1 else f"{years:g} years"
