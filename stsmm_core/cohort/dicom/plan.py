"""What would be imported and why: the map's rules applied to the headers of an export, before any pixel is read."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pydicom

from stsmm_core.cohort.dicom import contours, segmentations
from stsmm_core.cohort.dicom.masks import Outline
from stsmm_core.cohort.dicom.pseudonyms import Patient, cleaned, identifiers, identifiers_of
from stsmm_core.cohort.dicom.rules import ChannelRule, ImportRules
from stsmm_core.cohort.dicom.scan import CONTOURS, SEGMENTATION, STRUCTURES, Export, Series, text
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
    """Why a patient's images cannot be imported."""

    patient: Patient
    message: str

    def __str__(self) -> str:
        return f"patient {self.patient}: {self.message}"


@dataclass(frozen=True)
class Plan:
    """What an import would do.

    Attributes:
        patients: one a row of the clinical table.
        strangers: number of patients of the export who have no row there.
    """

    patients: tuple[PatientPlan, ...]
    decisions: tuple[Decision, ...]
    faults: tuple[Fault, ...]
    strangers: int


def make_plan(source: Path, export: Export, rules: ImportRules, known: Sequence[Patient]) -> Plan:
    """Apply the rules of MAP.toml to an export.

    Args:
        known: the patients of the clinical table.
    """
    identifiers_known = {patient.identifier for patient in known}
    series_of, owners, strangers = _by_patient(export, rules, identifiers_known)
    files_of = _nifti_masks(source, export, rules, identifiers_known)
    patients: list[PatientPlan] = []
    decisions: list[Decision] = []
    faults: list[Fault] = []
    for patient in known:
        series = series_of.get(patient.identifier, [])
        verdicts = [_Verdict() for _ in series]
        try:
            _check_one_person(series, owners)
            channels = _choose_channels(series, verdicts, rules)
            outlines = _choose_outlines(
                patient.identifier, series, verdicts, channels, files_of.get(patient.identifier, []), rules, owners
            )
        except CohortError as error:
            channels, outlines = {}, {}
            secrets = identifiers_of(patient.identifier, [one.header for one in series])
            faults.append(Fault(patient, cleaned(str(error), secrets)))
        patients.append(PatientPlan(patient, channels, outlines))
        decisions += [_decision(patient, one, verdict, source) for one, verdict in zip(series, verdicts, strict=True)]
        for channel, outline in outlines.items():
            if outline.kind == "nifti":
                where = outline.path.relative_to(source)
                decisions.append(Decision(patient, "NIfTI", "", 1, f"{channel}_mask", "masks.files matches", where))
    return Plan(tuple(patients), tuple(decisions), tuple(faults), strangers)


@dataclass
class _Verdict:
    """What a series becomes; filled in as the rules are applied."""

    becomes: str = ""
    why: str = "no rule matches"


def _by_patient(
    export: Export, rules: ImportRules, known: Collection[str]
) -> tuple[dict[str, list[Series]], dict[str, set[str]], int]:
    """Series of each patient of the clinical table, the patients who have each series, and the number of the others."""
    series_of: dict[str, list[Series]] = defaultdict(list)
    owners: dict[str, set[str]] = defaultdict(set)
    strangers: set[str] = set()
    for series in export.series:
        found = re.search(rules.patient.pattern, text(series.header, rules.patient.tag))
        patient = (found.group(1) or "").strip() if found else ""
        owners[series.uid].add(patient)
        if patient and patient in known:
            series_of[patient].append(series)
        else:
            strangers.add(patient or text(series.header, "PatientID"))
    return series_of, owners, len(strangers)


def _nifti_masks(source: Path, export: Export, rules: ImportRules, known: Collection[str]) -> dict[str, list[Path]]:
    """NIfTI masks of each patient, by masks.files."""
    found: dict[str, list[Path]] = defaultdict(list)
    if rules.masks.files is not None:
        for path in export.other_files:
            match = re.search(rules.masks.files, path.relative_to(source).as_posix())
            if match and match.group("patient") in known:
                found[match.group("patient")].append(path)
    return found


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


def _choose_channels(series: Sequence[Series], verdicts: Sequence[_Verdict], rules: ImportRules) -> dict[str, Series]:
    """The series of each channel; none at all for a patient without images.

    Raises:
        CohortError: when several series match a rule, one matches several, or only some channels are found.
    """
    chosen: dict[str, int] = {}
    for rule in rules.channels:
        matching = [index for index, one in enumerate(series) if _matches(one, rule, rules)]
        for index in matching:
            verdicts[index].why = f"matches {rule.name}, as others do"
        if len(matching) > 1 and rule.choose == "most_slices":
            sizes = [_slices(series[index]) for index in matching]
            if sizes.count(max(sizes)) == 1:
                matching = [matching[sizes.index(max(sizes))]]
        if len(matching) > 1:
            listed = ", ".join(f"{index + 1} ({_label(series[index])})" for index in matching)
            raise CohortError(
                f"{len(matching)} series match channel {rule.name}: series {listed}; make its rule narrower "
                "(description, exclude, tags), or let it choose"
            )
        if matching:
            if matching[0] in chosen.values():
                raise CohortError(
                    f"series {matching[0] + 1} matches {rule.name} and another channel; make one narrower"
                )
            chosen[rule.name] = matching[0]
            verdicts[matching[0]].becomes = rule.name
            verdicts[matching[0]].why = "modality, description and tags match"
    if chosen and len(chosen) < len(rules.channels):
        lacking = ", ".join(rule.name for rule in rules.channels if rule.name not in chosen)
        raise CohortError(
            f"has no series for channel {lacking}, but one for {', '.join(chosen)}; a patient has all channels or none"
        )
    return {name: series[index] for name, index in chosen.items()}


def _matches(series: Series, rule: ChannelRule, rules: ImportRules) -> bool:
    if series.modality in CONTOURS or series.modality != rule.modality or _is_mask_series(series, rules):
        return False
    if rule.exclude is not None and _found(rule.exclude, series.description):
        return False
    if not _found(rule.description, series.description):
        return False
    return all(_found(pattern, text(series.header, tag)) for tag, pattern in rule.tags.items())


def _choose_outlines(
    patient: str,
    series: Sequence[Series],
    verdicts: Sequence[_Verdict],
    channels: Mapping[str, Series],
    files: Sequence[Path],
    rules: ImportRules,
    owners: Mapping[str, set[str]],
) -> dict[str, Outline]:
    """The outline of each channel that has one.

    Raises:
        CohortError: when a channel has several, the first channel none, or an outline is of another patient.
    """
    if not channels:
        return {}
    default = rules.masks.channel or rules.channels[0].name
    found: dict[str, list[tuple[Outline, _Verdict | None]]] = defaultdict(list)
    for index, (one, verdict) in enumerate(zip(series, verdicts, strict=True)):
        if _is_mask_series(one, rules):
            found[default].append((Outline("images", one.instances[0].path, one), verdict))
            continue
        if one.modality not in CONTOURS:
            continue
        kind, names, drawn_on = _read_contents(one, f"series {index + 1} ({_label(one)})")
        every = len(names)
        names = [name for name in names if _found(rules.masks.roi, name)]
        if len(names) > 1 and not rules.masks.roi:
            raise CohortError(
                f"series {index + 1} ({_label(one)}) has {every} regions, and the map does not say which is "
                "the tumour; set masks.roi"
            )
        if not names:
            verdict.why = "no region matches masks.roi"
            continue
        if any(uid in owners and patient not in owners[uid] for uid in drawn_on):
            raise CohortError(f"series {index + 1} ({_label(one)}) outlines images of another patient; remove it")
        channel = next((name for name, taken in channels.items() if taken.uid in drawn_on), None)
        if channel is None and drawn_on & set(owners):
            verdict.why = "drawn on a series that is not taken"
            continue
        found[channel or default].append((Outline(kind, one.instances[0].path, regions=tuple(names)), verdict))
    found[default] += [(Outline("nifti", path), None) for path in files]
    outlines: dict[str, Outline] = {}
    for channel, candidates in found.items():
        if len(candidates) > 1:
            raise CohortError(
                f"{len(candidates)} outlines for {channel}; keep one, or make masks.roi, "
                "masks.series or masks.files narrower"
            )
        for outline, taken in candidates:
            outlines[channel] = outline
            if taken is not None:
                taken.becomes, taken.why = f"{channel}_mask", f"outlines it ({len(outline.regions) or 1} regions)"
    if rules.channels[0].name not in outlines:
        raise CohortError(
            f"has no tumour outline on {rules.channels[0].name}; export its RTSTRUCT or SEG, or widen masks.roi"
        )
    return outlines


def _read_contents(series: Series, place: str) -> tuple[Literal["structures", "segmentation"], list[str], set[str]]:
    """Kind, names of the regions, and the series drawn on, of an RTSTRUCT or SEG file."""
    if len(series.instances) > 1:
        raise CohortError(f"{place} holds {len(series.instances)} sets of outlines; keep the one to use")
    try:
        dataset = pydicom.dcmread(series.instances[0].path, stop_before_pixels=True)
        if series.modality == SEGMENTATION:
            return "segmentation", segmentations.segment_labels(dataset), segmentations.referenced_series(dataset)
        assert series.modality == STRUCTURES
        names = [text(region, "ROIName") for region in dataset.get("StructureSetROISequence") or ()]
        return "structures", names, contours.referenced_series(dataset)
    except Exception as error:  # pydicom raises what the damaged bytes lead it to
        raise CohortError(f"{place} cannot be read ({type(error).__name__}); export it again") from None


def _is_mask_series(series: Series, rules: ImportRules) -> bool:
    pattern = rules.masks.series
    return pattern is not None and series.modality not in CONTOURS and _found(pattern, series.description)


def _found(pattern: str, value: str) -> bool:
    return re.search(pattern, value, re.IGNORECASE) is not None


def _slices(series: Series) -> int:
    return max(len(series.instances), int(text(series.header, "NumberOfFrames") or 1))


def _label(series: Series) -> str:
    """A series in words, without the patient's identifiers."""
    description = cleaned(series.description, identifiers(series.header))
    return f"{series.modality} '{description}', {_slices(series)} slices"


def _decision(patient: Patient, series: Series, verdict: _Verdict, source: Path) -> Decision:
    return Decision(
        patient,
        series.modality,
        cleaned(series.description, identifiers_of(patient.identifier, [series.header])),
        len(series.instances),
        verdict.becomes,
        verdict.why,
        series.instances[0].path.parent.relative_to(source),
    )
