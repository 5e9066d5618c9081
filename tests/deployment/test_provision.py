import json
import os
import stat
import subprocess
import tomllib
from datetime import timedelta

import pytest
import yaml
from consortium_file import NOW
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from flwr.cli.supernode.register import try_load_public_key
from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication
from typer.testing import CliRunner

from client.cli import app as site_app
from server.cli import app as server_app
from server.deploy.provision import provision
from stsmm_core.audit.chain import verify
from stsmm_core.certificates import certificate_sha256, read_certificate, spoken_fingerprint
from stsmm_core.errors import ConfigError, KitError
from stsmm_core.kit import ServerKit, SiteKit, expiry_warnings, read_kit, verify_kit

SITES = ("leiden", "paris", "oslo")


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_kits_have_every_file(kits):
    common = {"kit.toml", "ca.pem", "fingerprints.txt", "manifest.json", "manifest.sig", "start.sh", "compose.yaml"}
    site = common | {"site.toml", "reviewers.yaml", "join.html", "stsmm-site.service"}
    assert set(files_of(kits / "sites/leiden")) == site | {"node.key", "node.pub"}
    assert set(files_of(kits / "sites/oslo")) == site
    server = {name for name in files_of(kits / "server") if not name.startswith("state/")}
    keys = {"ca.key", "server.pem", "server.key", "nodes/leiden.pub", "nodes/paris.pub"}
    assert server == common | keys | {"consortium.toml", "stsmm-server.service"}
    for kit in [kits / "server", *(kits / "sites").iterdir()]:
        verify_kit(kit)
    assert read_kit(kits / "server", ServerKit).ca_sha256 == read_kit(kits / "sites/paris", SiteKit).ca_sha256


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_read_anything(tmp_path, project, umask):
    before = os.umask(umask)
    try:
        provision(project, tmp_path / "kits", own_keys=[], now=NOW)
    finally:
        os.umask(before)
    for path in [tmp_path / "kits", *(tmp_path / "kits").rglob("*")]:
        if path.suffix == ".lock":
            continue  # empty, and in a folder that nobody else can enter
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() or path.suffix == ".sh" else 0o600), path


def test_an_existing_folder_is_left_alone_and_a_failure_leaves_nothing(tmp_path, project, monkeypatch):
    (tmp_path / "kits").mkdir()
    with pytest.raises(KitError, match="exists already"):
        provision(project, tmp_path / "kits", own_keys=[], now=NOW)
    with pytest.raises(ConfigError, match="no site is named 'rome'; there are leiden, paris, oslo"):
        provision(project, tmp_path / "other", own_keys=["rome"], now=NOW)
    monkeypatch.setattr("server.deploy.provision.verify_kit", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        provision(project, tmp_path / "other", own_keys=[], now=NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["kits"]
    assert not list((tmp_path / "kits").iterdir())


def test_flower_reads_the_keys(kits):
    from argparse import Namespace

    for name in ("leiden", "paris"):
        kit = kits / "sites" / name
        arguments = Namespace(auth_supernode_private_key=str(kit / "node.key"), auth_supernode_public_key=None)
        private, public = _try_setup_client_authentication(arguments)
        assert isinstance(private.curve, ec.SECP384R1)
        registered = kits / "server/nodes" / f"{name}.pub"
        assert try_load_public_key(registered)
        assert load_ssh_public_key(registered.read_bytes()) == public


def test_no_kit_holds_a_secret_of_another(kits):
    """Contents, not names: the numbers of each private key must be in one file of one folder only."""
    texts = {path: path.read_bytes() for path in files_of(kits).values()}
    private = {path for path, text in texts.items() if b"PRIVATE KEY" in text}
    assert private == {
        kits / name for name in ("server/ca.key", "server/server.key", "sites/leiden/node.key", "sites/paris/node.key")
    }
    bodies = [b"".join(texts[path].split(b"\n")[1:-2]) for path in private]
    assert len(set(bodies)) == 4
    for path in private:
        body = texts[path].split(b"\n")[3]
        assert [other for other, text in texts.items() if body in text] == [path]


def test_a_site_with_its_own_key_has_no_private_key_at_the_server(tmp_path, project):
    provision(project, tmp_path / "kits", own_keys=SITES, now=NOW)
    private = [path.name for path in files_of(tmp_path / "kits").values() if b"PRIVATE" in path.read_bytes()]
    assert sorted(private) == ["ca.key", "server.key"]
    assert not list((tmp_path / "kits/server/nodes").iterdir())
    kit = tmp_path / "kits/sites/oslo"
    done = CliRunner().invoke(site_app, [*site_arguments("keygen"), str(kit)])
    assert done.exit_code == 0, done.output
    verify_kit(kit)
    assert stat.S_IMODE((kit / "node.key").stat().st_mode) == 0o600
    printed = subprocess.run(["ssh-keygen", "-lf", kit / "node.pub"], capture_output=True, text=True, check=True).stdout
    assert printed.split()[1] in done.output
    assert load_ssh_private_key((kit / "node.key").read_bytes(), None).public_key() == load_ssh_public_key(
        (kit / "node.pub").read_bytes()
    )
    key = (kit / "node.key").read_bytes()
    again = CliRunner().invoke(site_app, [*site_arguments("keygen"), str(kit)])
    assert isinstance(again.exception, KitError)
    assert (kit / "node.key").read_bytes() == key


def site_arguments(command):
    """A Typer app of a single command takes no command name."""
    return [command] if len(site_app.registered_commands) > 1 else []


def change(kit):
    path = kit / "compose.yaml"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    return "compose.yaml: this file was changed"


def add(kit):
    (kit / "sitecustomize.py").write_text("")
    return "sitecustomize.py: this file was added"


def add_deep(kit):
    (kit / "more" / "state").mkdir(parents=True)
    (kit / "more" / "state" / "x").write_text("")
    return "more/state/x: this file was added"


def link_a_folder(kit):
    (kit / "more").symlink_to(kit.parent, target_is_directory=True)
    return "more: this file was added"


def remove(kit):
    (kit / "start.sh").unlink()
    return "start.sh: this file of the kit is missing"


def link(kit):
    (kit / "start.sh").rename(kit / "state" / "start.sh")
    (kit / "start.sh").symlink_to(kit / "state" / "start.sh")
    return "start.sh: this file of the kit is missing"


def change_manifest(kit):
    manifest = json.loads((kit / "manifest.json").read_text())
    del manifest["files"]["compose.yaml"]
    (kit / "manifest.json").write_text(json.dumps(manifest))
    return "manifest.json: not signed by the authority"


def remove_signature(kit):
    (kit / "manifest.sig").unlink()
    return "manifest.sig: this file of the kit is missing"


def replace_authority(kit):
    (kit / "ca.pem").write_text("x")
    return "ca.pem: not a certificate"


def open_key(kit):
    key = "node.key" if (kit / "node.key").exists() else "server.key"
    (kit / key).chmod(0o640)
    return f"{key}: this private key can be read by other users; chmod 600"


@pytest.mark.parametrize("folder", ["sites/leiden", "server"])
@pytest.mark.parametrize(
    "tamper",
    [
        change,
        add,
        add_deep,
        link_a_folder,
        remove,
        link,
        change_manifest,
        remove_signature,
        replace_authority,
        open_key,
    ],
)
def test_tampering_is_named(kits, folder, tamper):
    said = tamper(kits / folder)
    with pytest.raises(KitError) as error:
        verify_kit(kits / folder)
    assert said in str(error.value)


def test_another_consortiums_authority_and_files_do_not_pass(tmp_path, project, kits):
    provision(project, tmp_path / "other", own_keys=[], now=NOW)
    (kits / "sites/leiden/ca.pem").write_bytes((tmp_path / "other/sites/leiden/ca.pem").read_bytes())
    with pytest.raises(KitError, match="not signed by the authority"):
        verify_kit(kits / "sites/leiden")


def test_what_a_site_edits_is_its_own(kits):
    kit = kits / "sites/leiden"
    (kit / "site.toml").write_text("threads = 2\n")
    (kit / "reviewers.yaml").write_text("a: b\n")
    (kit / "state/anything").write_text("x")
    verify_kit(kit)


def test_openssl_checks_the_signature_and_ssh_keygen_the_fingerprint(kits, tmp_path):
    kit = kits / "sites/leiden"
    public = subprocess.run(
        ["openssl", "x509", "-in", kit / "ca.pem", "-pubkey", "-noout"], capture_output=True, check=True
    ).stdout
    (tmp_path / "ca.pub").write_bytes(public)
    command = ["openssl", "dgst", "-sha384", "-verify", tmp_path / "ca.pub", "-signature", kit / "manifest.sig"]
    assert b"OK" in subprocess.run([*command, kit / "manifest.json"], capture_output=True, check=True).stdout
    printed = subprocess.run(["ssh-keygen", "-lf", kit / "node.pub"], capture_output=True, text=True, check=True).stdout
    sheet = (kit / "fingerprints.txt").read_text()
    assert f"leiden  {printed.split()[1]}\n" in sheet
    assert "paris" not in sheet
    command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in"]
    for certificate in (kit / "ca.pem", kits / "server/server.pem"):
        printed = subprocess.run([*command, certificate], capture_output=True, text=True, check=True).stdout
        assert printed.strip().split("=")[1] in sheet
    sheet = (kits / "server/fingerprints.txt").read_text()
    assert sheet.count("SHA256:") == 2
    assert "oslo  no key" in sheet


def test_settings_start_with_the_policy_of_the_project(kits):
    settings = tomllib.loads((kits / "sites/oslo/site.toml").read_text())
    assert settings == {
        "cohort": "",
        "data_folder": "",
        "device": "cpu",
        "threads": 1,
        "min_cell_size": 7,
        "share_risk_sets": False,
        "policy": {
            "rounds_a_day": 300,
            "required_signatures": 0,
            "models": ["mmnn", "cox"],
            "endpoints": ["os", "dm"],
            "require_secure_aggregation": False,
            "share_predictions": False,
        },
    }
    assert yaml.safe_load((kits / "sites/oslo/reviewers.yaml").read_text()) == {}
    kit = read_kit(kits / "sites/oslo", SiteKit)
    assert (kit.consortium, kit.site, str(kit.server)) == ("sarcoma-2026", "oslo", "stsmm.example.org:9092")


def test_guides_and_scripts_are_filled_in(kits):
    page = (kits / "sites/leiden/join.html").read_text()
    for words in ("stsmm.example.org", "port 9092", "port 9093", "Ada &lt;ada@example.org&gt;", "it@example.org"):
        assert words in page
    fingerprint = spoken_fingerprint(certificate_sha256(read_certificate(kits / "server/ca.pem")))
    assert fingerprint in page
    assert "keygen" not in page
    assert "stsmm site keygen oslo" in (kits / "sites/oslo/join.html").read_text()
    for path in files_of(kits).values():
        if path.suffix in (".service", ".sh", ".yaml", ".html", ".toml"):
            assert "{{" not in path.read_text(), path
    compose = yaml.safe_load((kits / "sites/leiden/compose.yaml").read_text())
    assert "ports" not in compose["services"]["node"]
    compose = yaml.safe_load((kits / "server/compose.yaml").read_text())
    assert compose["services"]["server"]["ports"] == ["9092:9092", "9093:9093"]


@pytest.mark.parametrize("script", ["server/start.sh", "sites/leiden/start.sh"])
def test_start_scripts_run_from_anywhere(kits, tmp_path, script):
    stsmm = tmp_path / "stsmm command"
    stsmm.write_text('#!/bin/sh\necho "$@"\n')
    stsmm.chmod(0o700)
    run = subprocess.run(
        [kits / script],
        cwd="/",
        env={"STSMM_COMMAND": str(stsmm), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    kind = "server" if script.startswith("server") else "site"
    assert run.stdout == f"{kind} start {(kits / script).parent}\n", run.stderr


def test_expiry_is_said_sixty_days_before(kits):
    site, server = kits / "sites/leiden", kits / "server"
    day = timedelta(days=1)
    assert expiry_warnings(server, NOW + 336 * day) == []
    assert expiry_warnings(site, NOW + 500 * day) == []
    (said,) = expiry_warnings(server, NOW + 338 * day)
    assert said.startswith("server.pem ends on 2027-04-02, in 59 days: stsmm server rotate")
    (said,) = expiry_warnings(server, NOW + 397 * day)
    assert said.startswith("server.pem ended on 2027-04-02 12:00 UTC, nobody can connect")
    assert len(expiry_warnings(server, NOW + 3649 * day)) == 2
    (said,) = expiry_warnings(site, NOW + 3649 * day)
    assert "ca.pem ends" in said
    assert "new authority" in said
    (said,) = expiry_warnings(site, NOW - day)
    assert "is this machine's clock right?" in said
    assert expiry_warnings(site, NOW - timedelta(minutes=50)) == []


def test_the_command_says_where_the_kits_are(project_file, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(server_app, ["provision", str(project_file), str(out), "--csr", "oslo", "--csr", "paris"])
    assert done.exit_code == 0, done.output
    assert f"{out}/sites/oslo: kit of oslo, without a key" in done.output
    assert verify(out / "server/state/audit.jsonl") == 1
    assert expiry_warnings(out / "server", read_certificate(out / "server/server.pem").not_valid_before_utc) == []
