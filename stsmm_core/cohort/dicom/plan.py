"""What would be imported and why: the map's rules applied to the headers of an export, before any pixel is read."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from stsmm_core.cohort.dicom.channels import Describe, Verdict, choose_channels
from stsmm_core.cohort.dicom.masks import Outline
from stsmm_core.cohort.dicom.outlines import choose_outlines, nifti_masks
from stsmm_core.cohort.dicom.pseudonyms import Patient, cleaned, describer, identifiers_of
from stsmm_core.cohort.dicom.rules import ImportRules, Modality
from stsmm_core.cohort.dicom.scan import Export, Series, text
from stsmm_core.errors import CohortError

PERSON = ("PatientBirthDate", "PatientSex")
"""What two series of one person agree in, where they say it."""


@dataclass(frozen=True)
class PatientPlan:
    """What becomes of one patient.

    Attributes:
        channels: the series of each channel, in the cohort's order; empty for a patient without images.
        outlines: the outline of each channel that has one.
    """

    patient: Patient
    channels: Mapping[str, Series] = field(default_factory=dict)
    outlines: Mapping[str, Outline] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """A line of the dry run: what an object is, what it becomes and why; without identifiers.

    Attributes:
        source: the folder or file, below the export; it may name the patient.
        becomes: a channel, `<channel>_mask`, or nothing.
    """

    patient: Patient
    modality: str
    description: str
    files: int
    becomes: str
    why: str
    source: Path


@dataclass(frozen=True)
class Fault:
    """Why a patient's images cannot be imported.

    Attributes:
        source: the file at fault, where it is one; it may name the patient.
    """

    patient: Patient
    message: str
    source: Path | None = None

    def __str__(self) -> str:
        return f"patient {self.patient}: {self.message}"


@dataclass(frozen=True)
class Plan:
    """What an import would do.

    Attributes:
        patients: one a row of the clinical table.
        strangers: number of patients of the export who have no row there.
        lost: number of DICOM files that cannot be read and lie where no folder tells whose they are.
        nothing: why no patient gets an image though none has a fault; empty otherwise.
    """

    patients: tuple[PatientPlan, ...]
    decisions: tuple[Decision, ...]
    faults: tuple[Fault, ...]
    strangers: int
    lost: int = 0
    nothing: str = ""


def make_plan(source: Path, export: Export, rules: ImportRules, known: Sequence[Patient]) -> Plan:
    """Apply the rules of MAP.toml to an export.

    Args:
        known: the patients of the clinical table.
    """
    describe = describer((series.header for series in export.series), known)
    identifiers_known = {patient.identifier for patient in known}
    series_of, owners, strangers = _by_patient(export, rules, identifiers_known)
    files_of = nifti_masks(source, export, rules, identifiers_known)
    unreadable, lost = _unreadable_files(source, export, rules)
    patients: list[PatientPlan] = []
    decisions: list[Decision] = []
    faults: list[Fault] = []
    for patient in known:
        series = series_of.get(patient.identifier, [])
        verdicts = [Verdict() for _ in series]
        try:
            if unreadable[patient.identifier]:
                raise CohortError(
                    f"{unreadable[patient.identifier]} DICOM file(s) in its folders cannot be read: a slice may be "
                    "missing; export them again (--dry-run --show-sources names them)"
                )
            _check_one_person(series, owners)
            channels = choose_channels(series, verdicts, rules, describe)
            outlines = choose_outlines(
                patient.identifier,
                series,
                verdicts,
                channels,
                files_of.get(patient.identifier, []),
                rules,
                owners,
                describe,
            )
        except CohortError as error:
            channels, outlines = {}, {}
            secrets = identifiers_of(patient.identifier, [one.header for one in series])
            faults.append(Fault(patient, cleaned(str(error), secrets)))
        patients.append(PatientPlan(patient, channels, outlines))
        decisions += [
            _decision(patient, one, verdict, source, describe) for one, verdict in zip(series, verdicts, strict=True)
        ]
        for channel, outline in outlines.items():
            if outline.kind == "nifti":
                where = outline.path.relative_to(source)
                decisions.append(Decision(patient, "NIfTI", "", 1, f"{channel}_mask", "masks.files matches", where))
    taken = any(planned.channels for planned in patients)
    nothing = "" if taken or faults or lost else _why_nothing(export, rules, series_of)
    return Plan(tuple(patients), tuple(decisions), tuple(faults), strangers, lost, nothing)


def _why_nothing(export: Export, rules: ImportRules, series_of: Mapping[str, Sequence[Series]]) -> str:
    """Which rule lets nothing through, with counts."""
    total = len(export.series)
    if not any(_patient_of(series, rules) for series in export.series):
        return (
            f"no series has a patient: patient.pattern finds a number in {rules.patient.tag} of 0 of {total} series; "
            "mend patient.tag or patient.pattern in the map"
        )
    if not series_of:
        return (
            f"no patient_id of the clinical table is a patient of the export ({total} series, by {rules.patient.tag}); "
            "compare their spelling, or mend patient.tag and patient.pattern in the map"
        )
    own = [series for known in series_of.values() for series in known]
    there = Counter(series.modality for series in own)
    counts = ", ".join(f"{there[kind]} {kind}" for kind in sorted(there) if kind in get_args(Modality))
    why = "; ".join(
        f"channels.{rule.name}: its modality {rule.modality} matches {there[rule.modality]}, its description, exclude "
        "and tags none of these"
        for rule in rules.channels
    )
    return f"no series of the clinical table's patients matches a channel ({counts or 'no images'} there). {why}"


def _by_patient(
    export: Export, rules: ImportRules, known: Collection[str]
) -> tuple[dict[str, list[Series]], dict[str, set[str]], int]:
    """Series of each patient of the clinical table, the patients who have each series, and the number of the others."""
    series_of: dict[str, list[Series]] = defaultdict(list)
    owners: dict[str, set[str]] = defaultdict(set)
    strangers: set[str] = set()
    for series in export.series:
        patient = _patient_of(series, rules)
        owners[series.uid].add(patient)
        if patient and patient in known:
            series_of[patient].append(series)
        else:
            strangers.add(patient or text(series.header, "PatientID"))
    return series_of, owners, len(strangers)


def _unreadable_files(source: Path, export: Export, rules: ImportRules) -> tuple[Counter[str], int]:
    """How many files that cannot be read each patient may miss, and the number of those of whom no folder tells.

    A file may be of everyone with a file in its folder; where nobody has one, of the only person with files below the
    next folder up. The folder of the export itself tells nothing: all files of another person may be unreadable.
    """
    beside: dict[Path, set[str]] = defaultdict(set)
    below: dict[Path, set[str]] = defaultdict(set)
    for series in export.series:
        for folder in {instance.path.parent for instance in series.instances}:
            person = _patient_of(series, rules) or text(series.header, "PatientID")
            beside[folder].add(person)
            for above in (folder, *folder.parents):
                if source in above.parents:
                    below[above].add(person)
    counts: Counter[str] = Counter()
    lost = 0
    for path in export.unreadable:
        people = beside.get(path.parent) or next((below[above] for above in path.parents if above in below), set())
        if len(people) == 1 or path.parent in beside:
            counts.update(people)
        else:
            lost += 1
    return counts, lost


def _patient_of(series: Series, rules: ImportRules) -> str:
    """The hospital's identifier in a series, by the map; empty where there is none."""
    found = re.search(rules.patient.pattern, text(series.header, rules.patient.tag))
    return (found.group(1) or "").strip() if found else ""


def _check_one_person(series: Sequence[Series], owners: Mapping[str, set[str]]) -> None:
    """Refuse to unite two people, or to use one series for two.

    Raises:
        CohortError: naming the header element that differs, not its values.
    """
    for keyword in PERSON:
        values = {text(one.header, keyword).casefold() for one in series} - {""}
        if len(values) > 1:
            raise CohortError(f"its series differ in {keyword}: are they of one person? Export them apart")
    if any(len(owners[one.uid]) > 1 for one in series):
        raise CohortError("has a series that another patient has too (one SeriesInstanceUID); remove the wrong one")


def _decision(patient: Patient, series: Series, verdict: Verdict, source: Path, describe: Describe) -> Decision:
    return Decision(
        patient,
        describe(series.modality, series.header),
        describe(series.description, series.header),
        len(series.instances),
        verdict.becomes,
        verdict.why,
        series.instances[0].path.parent.relative_to(source),
    )
