"""The start-up kits of a consortium, known to server and site: their files and the settings in `kit.toml`."""

import tomllib
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stsmm_core.cohort.cohort import Name
from stsmm_core.errors import StsmmError

KIT_FILE = "kit.toml"
"""What the kit is: written by `server provision`, signed, never edited."""
MANIFEST_FILE = "manifest.json"
"""sha256 of every file of the kit that nobody edits."""
MANIFEST_SIGNATURE_FILE = "manifest.sig"
"""Signature of the manifest by the consortium's certificate authority."""
FINGERPRINTS_FILE = "fingerprints.txt"
"""What two people compare on the telephone."""
CA_FILE = "ca.pem"
STATE_FOLDER = "state"
"""Everything that a running server or site writes, except the server's runs."""
FLOWER_FOLDER = "flower"
"""Within state: FLWR_HOME."""
AUDIT_LOG_FILE = "audit.jsonl"
"""Within state: what was decided and what left."""

CA_KEY_FILE = "ca.key"
SERVER_CERTIFICATE_FILE = "server.pem"
SERVER_KEY_FILE = "server.key"
NODES_FOLDER = "nodes"
"""Of the server's kit: NAME.pub, the public key of each site's node, in OpenSSH form."""
REVOKED_FOLDER = "revoked"
"""Of the server's kit: public keys of nodes that may not connect any more."""
APPS_FOLDER = "apps"
"""Of the server's kit: SHA256.fab, the apps, and SHA256.signatures.json beside each."""
RUNS_FOLDER = "runs"
"""Of the server's kit: a run folder a run. Of a site's state: the site's own folder of each run."""

NODE_KEY_FILE = "node.key"
"""Of a site's kit: EC P-384, OpenSSH form, readable for its owner only."""
NODE_PUBLIC_KEY_FILE = "node.pub"
SITE_FILE = "site.toml"
"""Of a site's kit: what the site decides; the one file that the site edits."""
REVIEWERS_FILE = "reviewers.yaml"
"""Of a site's kit: Ed25519 public keys of the reviewers whose signatures the site trusts, by id; Flower's format."""


class KitError(StsmmError):
    """A kit cannot be used as it is."""


class ServerAddress(BaseModel):
    """Where a site reaches the server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    """Name or address."""
    port: Annotated[int, Field(ge=1, le=65535)]
    health_port: Annotated[int, Field(ge=1, le=65535)]
    """gRPC health service, without TLS; says SERVING and nothing else."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SiteKit(BaseModel):
    """kit.toml of a site."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consortium: str
    site: Name
    server: ServerAddress
    stsmm: str
    """Version that wrote the kit."""
    ca_sha256: str
    """Fingerprint of the consortium's certificate authority."""


class ServerKit(BaseModel):
    """kit.toml of the server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consortium: str
    server: ServerAddress
    stsmm: str
    ca_sha256: str


Kit = TypeVar("Kit", SiteKit, ServerKit)


def read_kit(folder: Path, kind: type[Kit]) -> Kit:
    """Read kit.toml of a kit.

    Raises:
        KitError: naming the file and what is wrong with it.
    """
    path = folder / KIT_FILE
    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise KitError(f"{folder}: not a kit, it has no {KIT_FILE}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KitError(f"{path}: not valid TOML ({error}); take the kit as it was sent") from None
    except ValidationError as error:
        faults = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise KitError(f"{path}: not a kit of this kind ({faults}); is it the right folder?") from None
