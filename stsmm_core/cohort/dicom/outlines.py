"""Which outline of a patient is the tumour on which channel, by the map's rules."""

import filecmp
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from stsmm_core.cohort.dicom import contours, segmentations
from stsmm_core.cohort.dicom.channels import Describe, Verdict, holds, is_mask_series, label
from stsmm_core.cohort.dicom.masks import Outline
from stsmm_core.cohort.dicom.rules import ImportRules
from stsmm_core.cohort.dicom.scan import CONTOURS, SEGMENTATION, STRUCTURES, Export, Series, read_object, text
from stsmm_core.errors import CohortError


def nifti_masks(source: Path, export: Export, rules: ImportRules, known: Collection[str]) -> dict[str, list[Path]]:
    """NIfTI masks of each patient, by masks.files."""
    found: dict[str, list[Path]] = defaultdict(list)
    if rules.masks.files is not None:
        for path in export.other_files:
            match = re.search(rules.masks.files, path.relative_to(source).as_posix())
            if match and match.group("patient") in known:
                found[match.group("patient")].append(path)
    return found


def choose_outlines(
    patient: str,
    series: Sequence[Series],
    verdicts: Sequence[Verdict],
    channels: Mapping[str, Series],
    files: Sequence[Path],
    rules: ImportRules,
    owners: Mapping[str, set[str]],
    describe: Describe,
) -> dict[str, Outline]:
    """The outline of each channel that has one.

    Raises:
        CohortError: when a channel has several, the first channel none, or an outline is of another patient.
    """
    if not channels:
        return {}
    default = rules.masks.channel or rules.channels[0].name
    found: dict[str, list[tuple[Outline, Verdict | None]]] = defaultdict(list)
    for index, (one, verdict) in enumerate(zip(series, verdicts, strict=True)):
        if is_mask_series(one, rules):
            found[default].append((Outline("images", one.instances[0].path, one), verdict))
            continue
        if one.modality not in CONTOURS:
            continue
        kind, names, drawn_on = _read_contents(one, f"series {index + 1} ({label(one, describe)})")
        every = len(names)
        names = [name for name in names if holds(rules.masks.roi, name)]
        if len(names) > 1 and not rules.masks.roi:
            raise CohortError(
                f"series {index + 1} ({label(one, describe)}) has {every} regions, and the map does not say which is "
                "the tumour; set masks.roi"
            )
        if not names:
            verdict.why = "no region matches masks.roi"
            continue
        if any(uid in owners and patient not in owners[uid] for uid in drawn_on):
            raise CohortError(
                f"series {index + 1} ({label(one, describe)}) outlines images of another patient; remove it"
            )
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
                taken.becomes, taken.why = (
                    f"{channel}_mask",
                    "outlines it " + (f": {len(outline.regions)} regions united" if len(outline.regions) > 1 else ""),
                )
    if rules.channels[0].name not in outlines:
        raise CohortError(
            f"has no tumour outline on {rules.channels[0].name}; export its RTSTRUCT or SEG, or widen masks.roi"
        )
    return outlines


def _read_contents(series: Series, place: str) -> tuple[Literal["structures", "segmentation"], list[str], set[str]]:
    """Kind, names of the regions, and the series drawn on, of an RTSTRUCT or SEG file."""
    if len(series.instances) > 1:
        first, *others = (instance.path for instance in series.instances)
        if all(filecmp.cmp(first, other, shallow=False) for other in others):
            raise CohortError(f"{place} is there {len(others) + 1} times, the same in every byte; remove the copies")
        raise CohortError(f"{place} holds {len(others) + 1} different sets of outlines; keep the one to use")
    try:
        dataset = read_object(series.instances[0].path, stop_before_pixels=True)
        if series.modality == SEGMENTATION:
            return "segmentation", segmentations.segment_labels(dataset), segmentations.referenced_series(dataset)
        assert series.modality == STRUCTURES
        names = [text(region, "ROIName") for region in dataset.get("StructureSetROISequence") or ()]
        return "structures", names, contours.referenced_series(dataset)
    except Exception:  # pydicom raises what the damaged bytes lead it to
        raise CohortError(f"{place} cannot be read; export it again") from None
