"""`stsmm server provision`: one project file becomes a kit for the server and one for each site."""

import getpass
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from server.deploy.authority import Authority, new_authority, new_server_certificate, pem
from server.deploy.kit_files import (
    FOLDER_OWNER_ONLY,
    OWNER_ONLY,
    fingerprint_sheet,
    kit_toml,
    seal,
    server_fingerprint_sheet,
    write_private,
    write_templates,
)
from server.deploy.project import Project, ProjectSite
from stsmm_core.audit.chain import append
from stsmm_core.certificates import certificate_sha256, read_certificate, spoken_fingerprint
from stsmm_core.errors import KitError
from stsmm_core.kit import (
    APPS_FOLDER,
    AUDIT_LOG_FILE,
    CA_FILE,
    CA_KEY_FILE,
    FINGERPRINTS_FILE,
    KIT_FILE,
    NODE_PUBLIC_KEY_FILE,
    NODES_FOLDER,
    PROJECT_FILE,
    REVOKED_FOLDER,
    RUNS_FOLDER,
    SERVER_CERTIFICATE_FILE,
    SERVER_KEY_FILE,
    STATE_FOLDER,
    ServerKit,
    SiteKit,
    verify_kit,
)
from stsmm_core.node_keys import new_node_key

SERVER_FOLDER = "server"
SITES_FOLDER = "sites"


def provision(project: Project, out: Path, *, own_keys: Collection[str], now: datetime) -> None:
    """Write OUT/server and OUT/sites/NAME; OUT is there whole or not at all.

    Args:
        own_keys: sites that make their node's key themselves.

    Raises:
        KitError: when OUT exists.
        ConfigError: when a site of `own_keys` is not in the project.
    """
    for name in own_keys:
        project.site_named(name)
    with new_folder(out) as temporary:
        authority = new_authority(project.name, project.validity.ca_days, now)
        server_kit = temporary / SERVER_FOLDER
        _write_server_kit(server_kit, project, authority, now)
        sites = temporary / SITES_FOLDER
        sites.mkdir(FOLDER_OWNER_ONLY)
        for site in project.site:
            kit = sites / site.name
            write_site_kit(kit, server_kit, project, site, authority, own_key=site.name in own_keys)
            if site.name not in own_keys:
                shutil.copy(kit / NODE_PUBLIC_KEY_FILE, server_kit / NODES_FOLDER / f"{site.name}.pub")
        write_private(server_kit / FINGERPRINTS_FILE, server_fingerprint_sheet(server_kit, project))
        seal(server_kit, "server", authority)
        verify_kit(server_kit)
        note(server_kit, "provisioned", sites=[site.name for site in project.site])


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A private temporary folder beside `out`, which becomes `out` at the end.

    Raises:
        KitError: when `out` exists.
    """
    out = out.absolute()
    if out.exists() or out.is_symlink():
        raise KitError(f"{out}: exists already, and is left as it is; name a new folder")
    if not out.parent.is_dir():
        raise KitError(f"{out.parent}: no such folder; make it first")
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        yield temporary
        os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_site_kit(
    folder: Path, server_kit: Path, project: Project, site: ProjectSite, authority: Authority, *, own_key: bool
) -> None:
    """Write a site's kit.

    Args:
        own_key: the site makes its node's key itself; the kit has none.
    """
    folder.mkdir(FOLDER_OWNER_ONLY, exist_ok=True)
    (folder / STATE_FOLDER).mkdir(FOLDER_OWNER_ONLY)
    sha256 = certificate_sha256(authority.certificate)
    kit = SiteKit(
        consortium=project.name,
        site=site.name,
        server=project.server.address,
        stsmm=version("stsmm"),
        ca_sha256=sha256,
    )
    write_private(folder / KIT_FILE, kit_toml(kit))
    write_private(folder / CA_FILE, pem(authority.certificate))
    fingerprint = "made at the site: `stsmm site keygen` prints it" if own_key else new_node_key(folder, site.name)
    server = read_certificate(server_kit / SERVER_CERTIFICATE_FILE)
    sheet = fingerprint_sheet(project, authority.certificate, server, [(site.name, fingerprint)])
    write_private(folder / FINGERPRINTS_FILE, sheet)
    write_templates(
        folder,
        "site",
        project=project,
        policy=project.policy,
        site=site,
        version=kit.stsmm,
        own_key=own_key,
        ca_fingerprint=spoken_fingerprint(sha256),
    )
    seal(folder, "site", authority)
    verify_kit(folder)


def note(server_kit: Path, event: str, **details: object) -> None:
    """Write who did what to the membership into the server's audit log."""
    log = server_kit / STATE_FOLDER / AUDIT_LOG_FILE
    log.touch(mode=OWNER_ONLY)
    append(log, {"event": event, "by": getpass.getuser(), **details})


def _write_server_kit(folder: Path, project: Project, authority: Authority, now: datetime) -> None:
    folder.mkdir(FOLDER_OWNER_ONLY)
    for name in (NODES_FOLDER, REVOKED_FOLDER, APPS_FOLDER, RUNS_FOLDER, STATE_FOLDER):
        (folder / name).mkdir(FOLDER_OWNER_ONLY)
    certificate, key = new_server_certificate(
        authority, project.name, project.server.certificate_names, project.validity.server_days, now
    )
    kit = ServerKit(
        consortium=project.name,
        server=project.server.address,
        stsmm=version("stsmm"),
        ca_sha256=certificate_sha256(authority.certificate),
    )
    write_private(folder / KIT_FILE, kit_toml(kit))
    write_private(folder / PROJECT_FILE, project.to_toml().encode())
    write_private(folder / CA_FILE, pem(authority.certificate))
    write_private(folder / CA_KEY_FILE, pem(authority.key))
    write_private(folder / SERVER_CERTIFICATE_FILE, pem(certificate))
    write_private(folder / SERVER_KEY_FILE, pem(key))
    write_templates(folder, "server", project=project, version=kit.stsmm)
