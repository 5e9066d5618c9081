"""site.toml: what a site decides for itself. No message of the server can change it."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stsmm_core.cohort.manifest import Name
from stsmm_core.errors import ConfigError, StsmmError
from stsmm_core.training.centre import SMALLEST_SALT, Centre


class Site(BaseModel):
    """The settings of one site, real or virtual."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    cohort: Path
    """The cohort folder."""
    folder: Path
    """The site's own folder: state, predictions, log."""
    cache: Path
    """Preprocessed images."""
    device: str = "cpu"
    threads: Annotated[int, Field(ge=1)] = 1
    min_cell_size: Annotated[int, Field(ge=1)] = 5
    """Counts and sums over fewer patients are withheld."""
    share_risk_sets: bool = False
    """Give the risk-set sums of an unstratified Cox regression also where `min_cell_size` is above 1: those of
    overlapping sets of patients differ by rows of single patients (docs/wire.md)."""
    salt: Annotated[int, Field(ge=SMALLEST_SALT)]
    """The site's secret number that seeds its bootstrap; at least 2^64, so that nobody finds it by trying."""
    patients: tuple[str, ...] | None = None
    """Only these patients of the cohort (a virtual centre); all if left out."""


def read_site(path: Path) -> Site:
    """Read and validate a site.toml.

    Raises:
        ConfigError: naming the file, every wrong key and what is wrong with it.
    """
    try:
        return Site.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such site file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except ValidationError as error:
        faults = "\n".join(
            f"  {'.'.join(map(str, fault['loc']))}: "
            + (
                f"unknown key; choose from {', '.join(Site.model_fields)}"
                if fault["type"] == "extra_forbidden"
                else fault["msg"]
            )
            for fault in error.errors()
        )
        raise ConfigError(f"{path}: the site settings are not valid\n{faults}") from None


class PolicyError(StsmmError):
    """The site does not take part, by its own rules."""


class RiskSetsNotSharedError(StsmmError):
    """The site gives no risk-set sums, by its own rules."""


def check_policy(site: Site, centre: Centre) -> None:
    """Make sure that every sum this site would send rests on enough patients.

    Loss sums and pair counts of a set of a few patients, or the difference between the whole cohort's sums and the
    training set's, would tell of single ones.

    Raises:
        PolicyError: when a training, validation or test set has fewer patients than the minimum cell size.
    """
    sizes = [len(part) for fold in centre.folds for part in (fold.train, fold.validation, fold.test)]
    if any(0 < size < site.min_cell_size for size in sizes):
        raise PolicyError(
            f"the experiment leaves a set of {min(size for size in sizes if size)} of this site's patients, "
            f"below min_cell_size = {site.min_cell_size}; larger fractions or fewer folds would do"
        )
