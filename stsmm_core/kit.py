"""The start-up kits of a consortium, known to server and site: files, settings in `kit.toml`, signature, expiry."""

import hashlib
import os
import stat
import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stsmm_core.certificates import certificate_sha256, read_certificate
from stsmm_core.cohort.manifest import Name
from stsmm_core.errors import KitError

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
"""Of the server's kit, unless it was moved to a safe place: needed for new sites and certificates, not to run."""
PROJECT_FILE = "consortium.toml"
"""Of the server's kit: what the kits were made from."""
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


UNSIGNED: dict[str, frozenset[str]] = {
    "server": frozenset(
        {CA_KEY_FILE, NODES_FOLDER, REVOKED_FOLDER, FINGERPRINTS_FILE, APPS_FOLDER, RUNS_FOLDER, STATE_FOLDER}
    ),
    "site": frozenset({NODE_KEY_FILE, NODE_PUBLIC_KEY_FILE, SITE_FILE, REVIEWERS_FILE, STATE_FOLDER}),
}
"""What the manifest of each kind of kit may leave out: what somebody edits or a running program writes; a key that is
made at the site; and at the server who is a member, so that a site can be revoked at once while the authority's key
lies elsewhere."""
PRIVATE_KEYS = (CA_KEY_FILE, SERVER_KEY_FILE, NODE_KEY_FILE)
WARNED_BEFORE = timedelta(days=60)


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
    except OSError as error:
        raise KitError(f"{path}: cannot be read ({error.strerror}); run this as the owner of the kit") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KitError(f"{path}: not valid TOML ({error}); take the kit as it was sent") from None
    except ValidationError as error:
        faults = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise KitError(f"{path}: not a kit of this kind ({faults}); is it the right folder?") from None


class KitManifest(BaseModel):
    """manifest.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["server", "site"]
    files: dict[str, str]
    """sha256 by path within the kit, with forward slashes."""


def verify_kit(folder: Path) -> None:
    """Make sure that a kit is as its consortium's certificate authority signed it, and its keys are private.

    Who swaps the authority as well is found by comparing fingerprints.txt on the telephone.

    Raises:
        KitError: naming the file that was changed, is missing or was added, or that others can read.
    """
    authority = read_certificate(folder / CA_FILE)
    manifest = _read_manifest(folder, authority)
    for name, sha256 in sorted(manifest.files.items()):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise KitError(f"{path}: this file of the kit is missing; take the kit as it was sent")
        if file_sha256(path) != sha256:
            raise KitError(f"{path}: this file was changed since the kit was made; take the kit as it was sent")
    for name in signed_paths(folder, manifest.kind):
        if name not in manifest.files:
            raise KitError(f"{folder / name}: this file was added since the kit was made; remove it")
    kit = read_kit(folder, SiteKit) if manifest.kind == "site" else read_kit(folder, ServerKit)
    if kit.ca_sha256 != certificate_sha256(authority):
        raise KitError(f"{folder / CA_FILE}: not the authority that {KIT_FILE} names; take the kit as it was sent")
    for name in PRIVATE_KEYS:
        path = folder / name
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KitError(f"{path}: this private key can be read by other users; chmod 600 {path}")


def signed_paths(folder: Path, kind: str) -> list[str]:
    """Paths of a kit's files, without what its manifest may leave out, the manifest and its signature."""
    left_out = UNSIGNED[kind] | {MANIFEST_FILE, MANIFEST_SIGNATURE_FILE}
    paths = []
    for root, folders, files in os.walk(folder):
        here = Path(root).relative_to(folder)
        if here == Path():
            folders[:] = [name for name in folders if name not in left_out]
            files = [name for name in files if name not in left_out]
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        paths += [(here / name).as_posix() for name in [*files, *links]]
    return sorted(paths)


def file_sha256(path: Path) -> str:
    """Digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def expiry_warnings(kit: Path, now: datetime) -> list[str]:
    """Sentences on the certificates of a kit (server's or site's) that are not valid now, or not for much longer.

    Args:
        now: with a time zone.
    """
    remedies = {CA_FILE: "the consortium needs a new authority, and each site a new kit: stsmm server provision"}
    if (kit / SERVER_CERTIFICATE_FILE).exists():
        remedies[SERVER_CERTIFICATE_FILE] = f"stsmm server rotate {kit}, then start the server again"
    sentences = []
    for file, remedy in remedies.items():
        certificate = read_certificate(kit / file)
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now < begin:
            sentences.append(
                f"{file} is valid from {begin:%Y-%m-%d %H:%M} UTC, and here it is {now:%Y-%m-%d %H:%M %Z}: "
                "is this machine's clock right?"
            )
        elif now >= end:
            sentences.append(f"{file} ended on {end:%Y-%m-%d %H:%M} UTC, nobody can connect: {remedy}")
        elif now >= end - WARNED_BEFORE:
            sentences.append(f"{file} ends on {end:%Y-%m-%d}, in {(end - now).days} days: {remedy}")
    return sentences


def _read_manifest(folder: Path, authority: x509.Certificate) -> KitManifest:
    path = folder / MANIFEST_FILE
    try:
        content, signature = path.read_bytes(), (folder / MANIFEST_SIGNATURE_FILE).read_bytes()
    except FileNotFoundError as error:
        raise KitError(f"{error.filename}: this file of the kit is missing; take the kit as it was sent") from None
    key = authority.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature, content, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise KitError(
            f"{path}: not signed by the authority in {CA_FILE}: one of the two, or {MANIFEST_SIGNATURE_FILE}, was "
            "changed; take the kit as it was sent"
        ) from None
    return KitManifest.model_validate_json(content)
