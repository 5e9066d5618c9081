"""The files of a kit beside its keys: kit.toml, what the templates make, fingerprints, and the signed manifest."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from cryptography import x509
from jinja2 import Environment, PackageLoader, StrictUndefined

from server.deploy.authority import Authority
from server.deploy.project import Project
from stsmm_core.certificates import certificate_sha256, read_certificate, spoken_fingerprint
from stsmm_core.files import replace_together
from stsmm_core.kit import (
    CA_FILE,
    MANIFEST_FILE,
    MANIFEST_SIGNATURE_FILE,
    NODES_FOLDER,
    SERVER_CERTIFICATE_FILE,
    KitManifest,
    ServerKit,
    SiteKit,
    file_sha256,
    signed_paths,
)
from stsmm_core.node_keys import node_key_fingerprint, read_node_public_key

OWNER_ONLY = 0o600
FOLDER_OWNER_ONLY = 0o700


def write_private(path: Path, content: bytes) -> None:
    """Write a file of a kit, readable for its owner only; a script can also be run."""
    path.touch(mode=OWNER_ONLY, exist_ok=False)
    path.chmod(FOLDER_OWNER_ONLY if path.suffix == ".sh" else OWNER_ONLY)
    path.write_bytes(content)


def kit_toml(kit: SiteKit | ServerKit) -> bytes:
    """kit.toml."""
    return tomli_w.dumps(kit.model_dump(mode="json")).encode()


def write_templates(folder: Path, kind: str, **values: Any) -> None:
    """Fill in every template of a kind of kit (`server`, `site`)."""
    environment = Environment(
        loader=PackageLoader("server.deploy"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    for name in environment.list_templates(filter_func=lambda name: name.startswith(f"{kind}/")):
        write_private(folder / name.removeprefix(f"{kind}/"), environment.get_template(name).render(**values).encode())


def fingerprint_sheet(
    project: Project, authority: x509.Certificate, server: x509.Certificate, nodes: Sequence[tuple[str, str]]
) -> bytes:
    """What two people compare on the telephone.

    Args:
        nodes: (site, fingerprint of its node's key).
    """
    lines = [
        f"Fingerprints of the consortium {project.name}. Compare them on the telephone, at a number known before.",
        "",
        f"Certificate authority, sha256 (valid until {authority.not_valid_after_utc:%Y-%m-%d}); it stays the same:",
        f"  {spoken_fingerprint(certificate_sha256(authority))}",
        "  openssl x509 -noout -fingerprint -sha256 -in ca.pem",
        "",
        f"Server certificate, sha256 (valid until {server.not_valid_after_utc:%Y-%m-%d}); another one when renewed:",
        f"  {spoken_fingerprint(certificate_sha256(server))}",
        "",
        "Keys of the nodes (ssh-keygen -lf node.pub):",
        *(f"  {name}  {fingerprint}" for name, fingerprint in nodes),
    ]
    return ("\n".join(lines) + "\n").encode()


def node_fingerprint(server_kit: Path, site: str) -> str:
    """Of the key that a site has at the server, or what is to be done that it has one."""
    path = server_kit / NODES_FOLDER / f"{site}.pub"
    if not path.exists():
        return "no key: made at the site by `stsmm site keygen`, not yet added, or revoked"
    return node_key_fingerprint(read_node_public_key(path))


def server_fingerprint_sheet(kit: Path, project: Project) -> bytes:
    """The server's own sheet, of all nodes that may connect."""
    nodes = [(site.name, node_fingerprint(kit, site.name)) for site in project.site]
    return fingerprint_sheet(
        project, read_certificate(kit / CA_FILE), read_certificate(kit / SERVER_CERTIFICATE_FILE), nodes
    )


def seal(folder: Path, kind: str, authority: Authority, changed: dict[Path, bytes] | None = None) -> None:
    """Write the manifest of a kit's files and sign it, together with files that are to change."""
    changed = changed or {}
    files = {name: file_sha256(folder / name) for name in signed_paths(folder, kind)}
    files |= {path.relative_to(folder).as_posix(): hashlib.sha256(new).hexdigest() for path, new in changed.items()}
    manifest = KitManifest.model_validate({"kind": kind, "files": files})
    content = (json.dumps(manifest.model_dump(), indent=1, sort_keys=True) + "\n").encode()
    sealed = {folder / MANIFEST_FILE: content, folder / MANIFEST_SIGNATURE_FILE: authority.sign(content)}
    replace_together(changed | sealed)
