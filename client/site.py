"""site.toml: what a site decides for itself. No message of the server can change it."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stsmm_core.cohort.cohort import Name
from stsmm_core.errors import ConfigError


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
    salt: Annotated[int, Field(ge=0)]
    """The site's secret number that seeds its bootstrap."""
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
