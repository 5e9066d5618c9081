"""Who belongs to a consortium: new sites, keys that sites made, revocation, renewal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from server.deploy.authority import new_server_certificate, pem, read_authority
from server.deploy.courier_key import forget_key
from server.deploy.kit_files import seal, server_fingerprint_sheet
from server.deploy.project import Project, read_project
from server.deploy.provision import new_folder, note, write_site_kit
from stsmm_core.errors import KitError
from stsmm_core.files import replace_together
from stsmm_core.kit import (
    FINGERPRINTS_FILE,
    NODE_PUBLIC_KEY_FILE,
    NODES_FOLDER,
    PROJECT_FILE,
    REVOKED_FOLDER,
    SERVER_CERTIFICATE_FILE,
    SERVER_KEY_FILE,
    STATE_FOLDER,
    ServerKit,
    read_kit,
    verify_kit,
)
from stsmm_core.node_keys import node_key_fingerprint, node_public_key_line, read_node_public_key

_LOCK_FILE = "membership.lock"


def add_site(kit: Path, name: str, out: Path, *, own_key: bool, contact: str, ca_key: Path | None) -> None:
    """Write a kit for one more site, and let its key in where the kit has one.

    Args:
        own_key: the site makes its node's key itself.
        ca_key: the authority's key, if it was moved out of the server's kit.

    Raises:
        ConfigError: when the name is not allowed or taken.
        KitError: when a kit is not whole, the authority's key is missing or `out` exists.
    """
    with _changing(kit) as project:
        verify_kit(kit)
        authority = read_authority(kit, ca_key)
        project = project.with_site(name, contact)
        with new_folder(out) as folder:
            write_site_kit(folder, kit, project, project.site_named(name), authority, own_key=own_key)
            seal(kit, "server", authority, {kit / PROJECT_FILE: project.to_toml().encode()})
            if not own_key:
                _put_key(kit, name, folder / NODE_PUBLIC_KEY_FILE)
        note(kit, "site added", site=name)
        _write_sheet(kit, project)
        if not own_key:
            _register(kit)


def add_key(kit: Path, name: str, public_key: Path, *, replace: bool) -> str:
    """Let in the key that a site made; returns its fingerprint.

    Args:
        replace: revoke the key that the site has now.

    Raises:
        ConfigError: when there is no such site.
        KitError: when the key is not one, has been revoked or belongs to another site, or the site has a key.
    """
    with _changing(kit) as project:
        project.site_named(name)
        fingerprint = node_key_fingerprint(read_node_public_key(public_key))
        _refuse_known_key(kit, fingerprint, public_key)
        if _key_file(kit, name).exists():
            if not replace:
                raise KitError(f"{name} has a key already; to revoke it and take this one, give --replace")
            _revoke(kit, name)
        _put_key(kit, name, public_key)
        note(kit, "key added", site=name, key=fingerprint)
        _write_sheet(kit, project)
        _register(kit)
    return fingerprint


def revoke_site(kit: Path, name: str) -> None:
    """Let a site's key in no more. Needs no key of the authority.

    Raises:
        ConfigError: when there is no such site.
        KitError: when it has no key.
    """
    with _changing(kit) as project:
        project.site_named(name)
        if not _key_file(kit, name).exists():
            raise KitError(f"{name} has no key that could be revoked: it is revoked already, or was never added")
        _revoke(kit, name)
        _write_sheet(kit, project)


def renew_server_certificate(kit: Path, *, also: Sequence[str], ca_key: Path | None, now: datetime) -> datetime:
    """Give the server a new key and certificate; returns when it ends.

    Args:
        also: further names and addresses for this and later certificates.

    Raises:
        KitError: when the kit is not whole, or the authority has ended or its key is missing.
    """
    with _changing(kit) as project:
        verify_kit(kit)
        authority = read_authority(kit, ca_key)
        project = project.with_also(list(also))
        certificate, key = new_server_certificate(
            authority, project.name, project.server.certificate_names, project.validity.server_days, now
        )
        changed = {
            kit / SERVER_KEY_FILE: pem(key),
            kit / SERVER_CERTIFICATE_FILE: pem(certificate),
            kit / PROJECT_FILE: project.to_toml().encode(),
        }
        seal(kit, "server", authority, changed)
        note(kit, "server certificate renewed", until=certificate.not_valid_after_utc.isoformat())
        _write_sheet(kit, project)
    return certificate.not_valid_after_utc


def renew_site_kit(kit: Path, name: str, out: Path, *, ca_key: Path | None) -> None:
    """Write a new kit with a new key for a site, and revoke the key that it has.

    Raises:
        ConfigError: when there is no such site.
        KitError: when a kit is not whole, the authority's key is missing or `out` exists.
    """
    with _changing(kit) as project:
        verify_kit(kit)
        authority = read_authority(kit, ca_key)
        with new_folder(out) as folder:
            write_site_kit(folder, kit, project, project.site_named(name), authority, own_key=False)
            if _key_file(kit, name).exists():
                _revoke(kit, name)
            _put_key(kit, name, folder / NODE_PUBLIC_KEY_FILE)
        note(kit, "site got a new kit", site=name)
        _write_sheet(kit, project)
        _register(kit)


@contextmanager
def _changing(kit: Path) -> Iterator[Project]:
    """One change at a time; gives the project as it is now."""
    read_kit(kit, ServerKit)
    with FileLock(kit / STATE_FOLDER / _LOCK_FILE, mode=0o600):
        yield read_project(kit / PROJECT_FILE)


def _key_file(kit: Path, name: str) -> Path:
    return kit / NODES_FOLDER / f"{name}.pub"


def _put_key(kit: Path, name: str, public_key: Path) -> None:
    replace_together({_key_file(kit, name): node_public_key_line(read_node_public_key(public_key), name)})


def _refuse_known_key(kit: Path, fingerprint: str, source: Path) -> None:
    for path in sorted((kit / NODES_FOLDER).glob("*.pub")):
        if node_key_fingerprint(read_node_public_key(path)) == fingerprint:
            raise KitError(f"{source}: this is the key of {path.stem}; each site needs a key of its own")
    for path in sorted((kit / REVOKED_FOLDER).glob("*.pub")):
        if node_key_fingerprint(read_node_public_key(path)) == fingerprint:
            raise KitError(f"{source}: this key was revoked; let the site make a new one")


def _revoke(kit: Path, name: str) -> None:
    """Out of the folder of keys first, so that nothing can register it again; then out of the running server.

    The site's courier goes with it: it stood in for this key.
    """
    path = _key_file(kit, name)
    fingerprint = node_key_fingerprint(read_node_public_key(path))
    number = len(list((kit / REVOKED_FOLDER).glob(f"{name}.*.pub"))) + 1
    path.rename(kit / REVOKED_FOLDER / f"{name}.{number}.pub")
    forget_key(kit, name)
    note(kit, "key revoked", site=name, key=fingerprint)
    from server.deploy.control import ServerUnreachableError, unregister_node

    try:
        unregister_node(kit, name)
    except ServerUnreachableError:
        note(kit, "server not told", site=name)  # it takes only what is in nodes/ when it starts


def _register(kit: Path) -> None:
    from server.deploy.control import ServerUnreachableError, register_nodes

    try:
        register_nodes(kit)
    except ServerUnreachableError:
        note(kit, "server not told")


def _write_sheet(kit: Path, project: Project) -> None:
    replace_together({kit / FINGERPRINTS_FILE: server_fingerprint_sheet(kit, project)})
