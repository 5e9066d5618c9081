"""MAP.toml: which series of an export becomes which channel, and which outline is the tumour."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydicom.datadict import tag_for_keyword

from stsmm_core.cohort.manifest import Manifest, Name
from stsmm_core.errors import CohortError


def _is_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"'{value}' is no regular expression: {error}") from None
    return value


def _is_keyword(value: str) -> str:
    if tag_for_keyword(value) is None:
        raise ValueError(f"'{value}' is no DICOM keyword; write it as the standard does (EchoTime, ScanningSequence)")
    return value


Pattern = Annotated[str, AfterValidator(_is_pattern)]
"""A regular expression, searched anywhere in the text, upper and lower case alike."""
Keyword = Annotated[str, AfterValidator(_is_keyword)]
Modality = Literal["MR", "PT", "CT", "NM", "US", "CR", "DX", "XA", "OT"]
"""DICOM's word for MRI is MR, for PET it is PT."""


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PatientRule(_Rule):
    """How a file says whose it is."""

    tag: Keyword = "PatientID"
    pattern: Pattern = "^(.+)$"
    """Its first group is the patient_id of the clinical table."""

    @model_validator(mode="after")
    def _one_group(self) -> "PatientRule":
        if re.compile(self.pattern).groups < 1:
            raise ValueError(f"pattern '{self.pattern}' has no group; put the patient's key in parentheses")
        return self


class ChannelRule(_Rule):
    """The series that becomes a channel: all that is given must match."""

    name: Name
    modality: Modality
    description: Pattern = ""
    exclude: Pattern | None = None
    """A series whose description matches is not taken."""
    tags: dict[Keyword, Pattern] = {}
    choose: Literal["only", "most_slices"] = "only"
    """Of several series that match: none (it is a fault), or the one with the most slices."""


class MaskRule(_Rule):
    """The outlines that are the tumour."""

    roi: Pattern = ""
    """Names of the regions (RTSTRUCT) or segments (SEG); all that match are united."""
    channel: Name | None = None
    """The channel that an outline belongs to where it does not say so itself; the first one by default."""
    series: Pattern | None = None
    """Descriptions of mask series: images that are 0 outside the tumour and 1 or 255 inside."""
    files: Pattern | None = None
    """Paths of NIfTI masks below the export, with a group `patient`: the patient's key."""

    @model_validator(mode="after")
    def _names_a_patient(self) -> "MaskRule":
        if self.files is not None and "patient" not in re.compile(self.files).groupindex:
            raise ValueError(f"files '{self.files}' has no group (?P<patient>...) that holds the patient's key")
        return self


class ImportRules(_Rule):
    """MAP.toml."""

    name: Name
    site: Name
    endpoints: tuple[Literal["os", "dm"], ...] = ("os", "dm")
    time_zero: Literal["surgery", "diagnosis"] = "surgery"
    patient: PatientRule = PatientRule()
    channels: tuple[ChannelRule, ...] = Field(min_length=1)
    masks: MaskRule = MaskRule()

    @model_validator(mode="after")
    def _known_channel(self) -> "ImportRules":
        names = [channel.name for channel in self.channels]
        if self.masks.channel is not None and self.masks.channel not in names:
            raise ValueError(f"masks.channel '{self.masks.channel}' is not a channel; choose from {', '.join(names)}")
        try:
            self.manifest()
        except ValidationError as error:
            raise ValueError("; ".join(f"{fault['loc'][0]}: {_in_words(fault)}" for fault in error.errors())) from None
        return self

    def manifest(self) -> Manifest:
        """The manifest of the cohort that these rules make."""
        return Manifest(
            schema_version=1,
            name=self.name,
            site=self.site,
            channels=tuple(channel.name for channel in self.channels),
            endpoints=self.endpoints,
            time_zero=self.time_zero,
        )

    def tags(self) -> set[str]:
        """Keywords of the header that the rules look at."""
        return {self.patient.tag, *(tag for channel in self.channels for tag in channel.tags)}


def read_rules(path: Path) -> ImportRules:
    """Read MAP.toml.

    Raises:
        CohortError: naming the file and every wrong key.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CohortError(f"{path}: cannot be read ({error.strerror}); see docs/dicom.md for an example") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CohortError(f"{path}: not valid TOML: {error}") from None
    try:
        return ImportRules.model_validate(tree)
    except ValidationError as error:
        faults = [f"  {_place(fault['loc'], tree)}{_in_words(fault)}" for fault in _apart(error, tree)]
        raise CohortError(f"{path}: the map is not valid\n" + "\n".join(faults)) from None


def _apart(error: ValidationError, tree: dict[str, Any]) -> list[ErrorDetails]:
    """The faults, without that of a list which is short only because its entries are at fault."""
    return [fault for fault in error.errors() if fault["type"] != "too_short" or not tree.get(str(fault["loc"][0]))]


def _place(keys: tuple[int | str, ...], tree: dict[str, Any]) -> str:
    """Where a fault is: a channel by its name, or by its number where it has none."""
    if keys[:1] == ("channels",) and len(keys) > 1:
        number = int(keys[1])
        block = tree["channels"][number]
        name = block.get("name") if isinstance(block, dict) else None
        return ": ".join([f"channel {name or number + 1}", *([".".join(map(str, keys[2:]))] if keys[2:] else []), ""])
    return ".".join(map(str, keys)) + ": " if keys else ""


def _in_words(fault: ErrorDetails) -> str:
    """What a fault that pydantic found means to who writes the map."""
    match fault["type"]:
        case "missing":
            return "is missing; add it"
        case "extra_forbidden":
            return f"unknown key; choose from {', '.join(_keys_beside(fault['loc']))}"
        case "string_pattern_mismatch":
            return f"'{fault['input']}' is no name; use letters, digits, '_' and '-', a letter or a digit first"
        case "literal_error":
            return f"'{fault['input']}' is no choice; choose from {fault['ctx']['expected'].replace(' or ', ', ')}"
        case "too_short":
            return "has no entry; give at least one"
        case "string_type":
            return "must be text in quotes"
        case "value_error":
            return fault["msg"].removeprefix("Value error, ")
        case _:
            return "is not of the right kind; see docs/dicom.md for an example"


def _keys_beside(keys: tuple[int | str, ...]) -> list[str]:
    """The keys that the block of an unknown key may have."""
    blocks: dict[int | str, type[_Rule]] = {"channels": ChannelRule, "masks": MaskRule, "patient": PatientRule}
    block = blocks[keys[0]] if len(keys) > 1 else ImportRules
    return list(block.model_fields)
