"""Synthetic hospitals without images, which are quick to make and to load."""

from pathlib import Path

from stsmm_core.cohort.cohort import write_cohort_tables
from stsmm_core.cohort.manifest import Manifest
from stsmm_core.cohort.synthetic_patients import simulate_site


def write_clinical_cohorts(out: Path, sizes: tuple[int, ...]) -> Path:
    """One cohort a size, out/site_1, out/site_2, …."""
    for site, patients in enumerate(sizes, start=1):
        simulated = simulate_site(site=site, patients=patients, seed=3)
        manifest = Manifest(
            schema_version=1,
            name=f"clinical_{site}",
            site=f"site_{site}",
            channels=(),
            endpoints=("os", "dm"),
            time_zero="surgery",
        )
        write_cohort_tables(out / f"site_{site}", manifest, simulated.clinical.mask(simulated.missing))
    return out
