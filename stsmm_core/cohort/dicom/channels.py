"""Which series of a patient becomes which channel, by the map's rules."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from stsmm_core.cohort.dicom.rules import ChannelRule, ImportRules
from stsmm_core.cohort.dicom.scan import CONTOURS, Series, text
from stsmm_core.errors import CohortError

Describe = Callable[[str, Dataset], str]
"""A text of a header as it may be seen (`pseudonyms.describer`)."""


@dataclass
class Verdict:
    """What a series becomes; filled in as the rules are applied."""

    becomes: str = ""
    why: str = "no rule matches"


def choose_channels(
    series: Sequence[Series], verdicts: Sequence[Verdict], rules: ImportRules, describe: Describe
) -> dict[str, Series]:
    """The series of each channel; none at all for a patient without images.

    Raises:
        CohortError: when several series match a rule, one matches several, or only some channels are found.
    """
    chosen: dict[str, int] = {}
    for rule in rules.channels:
        failing = [_failing(one, rule, rules) for one in series]
        for verdict, part in zip(verdicts, failing, strict=True):
            if part:
                verdict.why += f"{';' if ':' in verdict.why else ':'} not {rule.name} by its {part}"
        matching = [index for index, part in enumerate(failing) if not part]
        for index in matching:
            verdicts[index].why = f"matches {rule.name}, as others do"
        if len(matching) > 1 and rule.choose == "most_slices":
            sizes = [_slices(series[index]) for index in matching]
            if sizes.count(max(sizes)) == 1:
                matching = [matching[sizes.index(max(sizes))]]
        if len(matching) > 1:
            listed = ", ".join(f"{index + 1} ({label(series[index], describe)})" for index in matching)
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
            parts = ["modality", *["description"] * bool(rule.description), *["tags"] * bool(rule.tags)]
            verdicts[matching[0]].why = f"matches by {' and '.join(parts)}"
    if chosen and len(chosen) < len(rules.channels):
        lacking = ", ".join(rule.name for rule in rules.channels if rule.name not in chosen)
        raise CohortError(
            f"has no series for channel {lacking}, but one for {', '.join(chosen)}; a patient has all channels or none"
        )
    return {name: series[index] for name, index in chosen.items()}


def _failing(series: Series, rule: ChannelRule, rules: ImportRules) -> str:
    """The first part of a rule that a series does not match; empty when it matches."""
    if series.modality in CONTOURS or series.modality != rule.modality:
        return "modality"
    if is_mask_series(series, rules):
        return "description, which masks.series matches"
    if not holds(rule.description, series.description):
        return "description"
    if rule.exclude is not None and holds(rule.exclude, series.description):
        return "description, which exclude matches"
    wrong = [tag for tag, pattern in rule.tags.items() if not holds(pattern, text(series.header, tag))]
    return f"tag {wrong[0]}" if wrong else ""


def is_mask_series(series: Series, rules: ImportRules) -> bool:
    """Whether a series is mask images, by masks.series."""
    pattern = rules.masks.series
    return pattern is not None and series.modality not in CONTOURS and holds(pattern, series.description)


def holds(pattern: str, value: str) -> bool:
    """Whether a pattern is found anywhere in a text, upper and lower case alike."""
    return re.search(pattern, value, re.IGNORECASE) is not None


def _slices(series: Series) -> int:
    return max(len(series.instances), series.frames)


def label(series: Series, describe: Describe) -> str:
    """A series in words, without anybody's identifiers."""
    words = f"{describe(series.modality, series.header)} '{describe(series.description, series.header)}'"
    return words if series.modality in CONTOURS else f"{words}, {_slices(series)} slices"
