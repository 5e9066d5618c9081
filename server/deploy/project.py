"""consortium.toml: what the kits of a consortium are made from."""

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stsmm_core.cohort.manifest import Name
from stsmm_core.errors import ConfigError
from stsmm_core.kit import ServerAddress

ALWAYS_NAMED = ("localhost", "127.0.0.1")
"""Names in every server certificate: the server's own machine calls it so."""
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")

ShortName = Annotated[Name, Field(max_length=40)]
"""Becomes the name of files and part of a certificate's subject, which has 64 characters."""
Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
Days = Annotated[int, Field(ge=1, le=36500, strict=True)]


class Part(BaseModel):
    """A block of the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(Part):
    """Where the sites reach the server."""

    host: str
    """What sites dial: a name or an address."""
    also: tuple[str, ...] = ()
    """Further names and addresses of the certificate."""
    port: Port = 9092
    health_port: Port = 9093
    contact: str = ""
    """Whom a site's staff rings or writes to; printed on the join guides."""

    @field_validator("host")
    @classmethod
    def _host_can_be_dialled(cls, host: str) -> str:
        return _dialled(host)

    @field_validator("also")
    @classmethod
    def _also_can_be_dialled(cls, also: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_dialled(host) for host in also)

    @model_validator(mode="after")
    def _ports_do_not_clash(self) -> "Server":
        if self.port == self.health_port:
            raise ValueError(f"port and health_port are both {self.port}; give the health service a port of its own")
        return self

    @property
    def address(self) -> ServerAddress:
        """As the kits have it."""
        return ServerAddress(host=self.host, port=self.port, health_port=self.health_port)

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """Every name and address of the certificate, each once."""
        return tuple(dict.fromkeys((self.host, *self.also, *ALWAYS_NAMED)))


class Validity(Part):
    """How long certificates are valid, in days."""

    ca_days: Days = 3650
    server_days: Days = 397

    @model_validator(mode="after")
    def _authority_lives_longer(self) -> "Validity":
        if self.server_days > self.ca_days:
            raise ValueError(
                f"server_days ({self.server_days}) must not exceed ca_days ({self.ca_days}): "
                "no certificate outlives its authority"
            )
        return self


class Policy(Part):
    """What each site's site.toml starts with; the site may change all of it."""

    min_cell_size: Annotated[int, Field(ge=1, strict=True)] = 5
    rounds_a_day: Annotated[int, Field(ge=1, strict=True)] = 500
    required_signatures: Annotated[int, Field(ge=0, strict=True)] = 0


class ProjectSite(Part):
    """A site that has, or is to get, a kit."""

    name: ShortName
    contact: str = ""


class Project(Part):
    """A consortium."""

    name: ShortName
    server: Server
    validity: Validity = Validity()
    policy: Policy = Policy()
    site: Annotated[tuple[ProjectSite, ...], Field(min_length=1)]

    @field_validator("site")
    @classmethod
    def _no_site_twice(cls, sites: tuple[ProjectSite, ...]) -> tuple[ProjectSite, ...]:
        seen: dict[str, str] = {}
        for site in sites:
            folded = site.name.lower()
            if folded in seen:
                raise ValueError(
                    f"two sites are named '{seen[folded]}' and '{site.name}'; "
                    "names must differ in more than upper and lower case"
                )
            seen[folded] = site.name
        return sites

    def site_named(self, name: str) -> ProjectSite:
        """The site of this name.

        Raises:
            ConfigError: naming the sites that there are.
        """
        for site in self.site:
            if site.name == name:
                return site
        raise ConfigError(f"no site is named '{name}'; there are {', '.join(site.name for site in self.site)}")

    def with_site(self, name: str, contact: str) -> "Project":
        """The same consortium with one more site.

        Raises:
            ConfigError: when the name is not allowed or taken.
        """
        tree = self.model_dump(mode="json")
        tree["site"].append({"name": name, "contact": contact})
        return _validated(tree, source=f"site '{name}'")

    def with_also(self, also: list[str]) -> "Project":
        """The same consortium with further names in the server's certificate.

        Raises:
            ConfigError: when one is not a name or address.
        """
        tree = self.model_dump(mode="json")
        tree["server"]["also"] = list(dict.fromkeys([*self.server.also, *also]))
        return _validated(tree, source="--also")

    def to_toml(self) -> str:
        """The file, every default spelled out."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def read_project(path: Path) -> Project:
    """Read and validate a consortium.toml.

    Raises:
        ConfigError: naming the file, every wrong key and its remedy.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"{path}: no such project file; docs/deploy-server.md shows one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return _validated(tree, source=str(path))


def _validated(tree: dict[str, Any], *, source: str) -> Project:
    try:
        return Project.model_validate(tree)
    except ValidationError as error:
        faults = "\n".join(f"  {_explain(fault)}" for fault in error.errors())
        raise ConfigError(f"{source}: the consortium is not valid\n{faults}") from None


_PARTS: dict[str, type[Part]] = {"server": Server, "validity": Validity, "policy": Policy, "site": ProjectSite}


def _explain(fault: Any) -> str:
    """One line for one fault: the key, what is wrong, the choices. Sites are counted from 1."""
    location = fault["loc"]
    key = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in location)
    kind = fault["type"]
    if kind == "extra_forbidden":
        choices = _PARTS[location[0]] if len(location) > 1 else Project
        return f"{key}: unknown key; choose from {', '.join(choices.model_fields)}"
    if kind == "missing" and location[0] == "site" and len(location) == 1:
        return "site: missing; write a block [[site]] with a name for each hospital"
    if kind == "missing":
        return f"{key}: missing; add it"
    if kind == "too_short" and location == ("site",):
        return "site: empty; write a block [[site]] with a name for each hospital"
    if kind == "string_pattern_mismatch":
        return f"{key} = {fault['input']!r}: use letters, digits, - and _ only, a letter or digit first"
    message = fault["msg"].removeprefix("Value error, ")
    return (
        f"{key}: {message}"
        if kind == "value_error"
        else f"{key} = {fault['input']!r}: {message[0].lower()}{message[1:]}"
    )


def _dialled(host: str) -> str:
    """A name or address as it is, if a machine can be dialled by it."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return host
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise ValueError(
            f"'{host}' is not a name such as stsmm.example.org, nor an address such as 10.0.0.5; "
            "no scheme, no port, no wildcard, other letters than a-z as punycode"
        )
    return host
