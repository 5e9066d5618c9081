"""A cohort's manifest, and what may name a cohort, a site or a channel."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Manifest(BaseModel):
    """cohort.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1]
    name: Name
    site: Name
    channels: tuple[Name, ...]
    """Image channels, in the order of the tensor; empty for a cohort without images."""
    endpoints: tuple[Literal["os", "dm"], ...] = Field(min_length=1)
    time_zero: Literal["surgery", "diagnosis"]

    @field_validator("channels", "endpoints")
    @classmethod
    def _not_twice(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names an entry twice")
        return value

    @field_validator("channels")
    @classmethod
    def _not_a_mask(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(name == "mask" or name.endswith("_mask") for name in value):
            raise ValueError("a channel cannot be called mask or end in _mask: that names a tumour mask")
        return value
