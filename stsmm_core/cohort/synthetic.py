"""Synthetic cohorts of a known hazard, as cohort folders: for tests and the demo, never for claims."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from rich.progress import Progress

from stsmm_core.cohort.cohort import IMAGES_FOLDER, ORACLE_FILE, write_cohort_tables
from stsmm_core.cohort.dictionary import ENDPOINTS, PATIENT_ID, SCHEMA_VERSION
from stsmm_core.cohort.manifest import Manifest
from stsmm_core.cohort.synthetic_images import CHANNELS, write_patient_images
from stsmm_core.cohort.synthetic_patients import SimulatedSite, simulate_site
from stsmm_core.errors import CohortError

SMALLEST_SITE = 3
LARGEST_SHIFT = 4.0
"""Mean ages of sites then lie up to 40 years apart."""


def write_synthetic_cohorts(
    out: Path, *, sites: int, patients: int, seed: int, shift: float = 1.0, images: bool = True
) -> list[Path]:
    """Write `sites` cohort folders out/site_1, out/site_2, …, each with an oracle.csv of the true log relative hazards.

    Nothing is left behind when it is interrupted: the folders are built aside and appear at the end, all together.

    Args:
        out: a folder that is absent or empty.
        sites: number of cohorts, of unequal size, the first the largest.
        patients: number of patients of all sites together, at least 3 a site.
        seed: not negative; the same seed gives the same tables and voxels.
        shift: how far sites differ in case mix, scanner and baseline hazard; 0 alike, 1 as a rule, 3 far apart.
        images: without, the sites are clinical-only: what drives the hazard is the same, half of it they cannot see.

    Raises:
        CohortError: for a folder in use or impossible numbers.
    """
    if sites < 1:
        raise CohortError(f"{sites} sites: ask for at least 1")
    if patients < SMALLEST_SITE * sites:
        raise CohortError(
            f"{patients} patients are too few for {sites} sites; ask for at least {SMALLEST_SITE * sites}, "
            f"{SMALLEST_SITE} a site"
        )
    if seed < 0:
        raise CohortError(f"seed {seed} is negative; take 0 or more")
    if not 0 <= shift <= LARGEST_SHIFT:
        raise CohortError(f"shift {shift:g} is not between 0 (sites alike) and {LARGEST_SHIFT:g} (far apart)")
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise CohortError(f"{out} is a file; name a new or empty folder")
    if out.exists() and any(out.iterdir()):
        raise CohortError(f"{out} is not empty; name a new folder, or remove this one first")
    out.parent.mkdir(parents=True, exist_ok=True)
    names = [f"site_{site}" for site in range(1, sites + 1)]
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch, Progress() as progress:
        task = progress.add_task("Synthetic patients", total=patients)
        built = Path(scratch) / "cohorts"
        for site, size in enumerate(site_sizes(sites=sites, patients=patients), start=1):
            simulated = simulate_site(site=site, patients=size, seed=seed, shift=shift)
            _write_site(
                built / names[site - 1],
                simulated,
                site=site,
                seed=seed,
                images=images,
                advance=lambda: progress.advance(task),
            )
        if out.exists():
            out.rmdir()
        built.rename(out)
    return [out / name for name in names]


def site_sizes(*, sites: int, patients: int) -> list[int]:
    """Patients of each site, largest first: 3 each and the rest in proportion to 1 / sqrt(site), 1, 0.71, 0.58, …."""
    rest = patients - SMALLEST_SITE * sites
    share = 1 / np.sqrt(np.arange(1, sites + 1))
    extra = np.floor(rest * share / share.sum()).astype(int)
    extra[: rest - extra.sum()] += 1
    return [SMALLEST_SITE + int(size) for size in extra]


def _write_site(
    root: Path,
    simulated: SimulatedSite,
    *,
    site: int,
    seed: int,
    images: bool,
    advance: Callable[[], None],
) -> None:
    sheet = simulated.clinical.copy()
    tumours = simulated.tumours() if images else [None] * len(sheet)
    for row, (patient, tumour) in enumerate(zip(sheet[PATIENT_ID], tumours, strict=True)):
        if tumour is not None:
            measures = write_patient_images(
                root / IMAGES_FOLDER / patient,
                tumour,
                simulated.scanner,
                np.random.default_rng([seed, site, row + 1]),
            )
            # The sheet says what a reader would measure, not what was drawn.
            sheet.loc[row, ["size_cm", "volume_cm3"]] = round(measures.size_cm, 1), round(measures.volume_cm3, 1)
        advance()
    manifest = Manifest.model_validate(
        {
            "schema_version": SCHEMA_VERSION,
            "name": f"synthetic_site_{site}",
            "site": f"site_{site}",
            "channels": CHANNELS if images else (),
            "endpoints": tuple(ENDPOINTS),
            "time_zero": "surgery",
        }
    )
    write_cohort_tables(root, manifest, sheet.mask(simulated.missing))
    oracle = pd.concat([sheet[PATIENT_ID], simulated.oracle.round(6)], axis=1)
    oracle.to_csv(root / ORACLE_FILE, index=False, encoding="utf-8", lineterminator="\n")
