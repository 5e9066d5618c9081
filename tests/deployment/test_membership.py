import shutil
import tomllib
from datetime import timedelta

import pytest
from consortium_file import NOW
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from typer.testing import CliRunner

from server.cli import app
from server.deploy.membership import add_key, add_site, renew_server_certificate, renew_site_kit, revoke_site
from stsmm_core.audit.chain import verify
from stsmm_core.certificates import read_certificate
from stsmm_core.errors import ConfigError, KitError
from stsmm_core.kit import verify_kit
from stsmm_core.node_keys import new_node_key


def everything(folder):
    """Of a kit, without its log and locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "state" not in path.relative_to(folder).parts
    }


def names(kit, folder="nodes"):
    return sorted(path.name for path in (kit / folder).iterdir())


@pytest.fixture
def server(kits):
    return kits / "server"


@pytest.fixture
def made_at_site(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    new_node_key(folder, "oslo")
    return folder / "node.pub"


def test_a_new_site_gets_a_kit_of_the_same_authority(server, tmp_path, control):
    add_site(server, "rome", tmp_path / "rome", own_key=False, contact="", ca_key=None)
    verify_kit(tmp_path / "rome")
    verify_kit(server)
    assert names(server) == ["leiden.pub", "paris.pub", "rome.pub"]
    assert control == [("register", ["leiden", "paris", "rome"])]
    sites = tomllib.loads((server / "consortium.toml").read_text())["site"]
    assert [site["name"] for site in sites] == ["leiden", "paris", "oslo", "rome"]
    assert (tmp_path / "rome/ca.pem").read_bytes() == (server / "ca.pem").read_bytes()
    assert tomllib.loads((tmp_path / "rome/site.toml").read_text())["min_cell_size"] == 7
    assert "rome  SHA256:" in (server / "fingerprints.txt").read_text()
    # A second in a row: the manifest fits what the first one changed.
    add_site(server, "bonn", tmp_path / "bonn", own_key=True, contact="", ca_key=None)
    assert names(server) == ["leiden.pub", "paris.pub", "rome.pub"]
    assert not [path for path in (tmp_path / "bonn").rglob("*") if path.is_file() and b"PRIVATE" in path.read_bytes()]
    assert len(control) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [("leiden", "two sites are named"), ("LEIDEN", "upper and lower case"), ("../x", "use letters, digits")],
)
def test_a_name_that_is_taken_or_not_allowed_changes_nothing(server, tmp_path, control, name, said):
    before = everything(server)
    with pytest.raises(ConfigError, match=said):
        add_site(server, name, tmp_path / "new", own_key=False, contact="", ca_key=None)
    assert everything(server) == before
    assert not (tmp_path / "new").exists()
    assert control == []


def test_a_folder_that_exists_changes_nothing(server, tmp_path, control):
    before = everything(server)
    (tmp_path / "rome").mkdir()
    for change in (
        lambda: add_site(server, "rome", tmp_path / "rome", own_key=False, contact="", ca_key=None),
        lambda: renew_site_kit(server, "leiden", tmp_path / "rome", ca_key=None),
    ):
        with pytest.raises(KitError, match="exists already"):
            change()
    assert everything(server) == before
    assert control == []


def test_a_full_disk_leaves_the_kit_whole(server, tmp_path, control, monkeypatch):
    before = everything(server)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stsmm_core.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        renew_server_certificate(server, also=[], ca_key=None, now=NOW)
    assert everything(server) == before


def test_the_authoritys_key_may_lie_elsewhere(server, tmp_path, control, made_at_site):
    offline = tmp_path / "stick" / "ca.key"
    offline.parent.mkdir()
    shutil.move(server / "ca.key", offline)
    verify_kit(server)
    for needs in (
        lambda: add_site(server, "rome", tmp_path / "rome", own_key=False, contact="", ca_key=None),
        lambda: renew_server_certificate(server, also=[], ca_key=None, now=NOW),
        lambda: renew_site_kit(server, "leiden", tmp_path / "rome", ca_key=None),
    ):
        with pytest.raises(KitError, match=r"key of the certificate authority is not there.*--ca-key PATH"):
            needs()
    revoke_site(server, "leiden")
    add_key(server, "oslo", made_at_site, replace=False)
    add_site(server, "rome", tmp_path / "rome", own_key=False, contact="", ca_key=offline)
    verify_kit(tmp_path / "rome")
    (tmp_path / "other").mkdir()
    with pytest.raises(KitError, match="not a private key without password in PEM form"):
        renew_server_certificate(server, also=[], ca_key=made_at_site, now=NOW)
    with pytest.raises(KitError, match="not the key of"):
        renew_server_certificate(server, also=[], ca_key=server / "server.key", now=NOW)


def test_a_revoked_key_never_comes_back(server, control, kits):
    revoke_site(server, "leiden")
    assert names(server) == ["paris.pub"]
    assert names(server, "revoked") == ["leiden.1.pub"]
    # When the server is told, the key is out of the folder already: nothing can register it again.
    assert control == [("unregister", "leiden", False)]
    verify_kit(server)
    assert "leiden  no key" in (server / "fingerprints.txt").read_text()
    with pytest.raises(KitError, match="leiden has no key that could be revoked"):
        revoke_site(server, "leiden")
    with pytest.raises(ConfigError, match="no site is named 'rome'"):
        revoke_site(server, "rome")
    with pytest.raises(KitError, match="this key was revoked"):
        add_key(server, "leiden", kits / "sites/leiden/node.pub", replace=False)
    assert verify(server / "state/audit.jsonl") == 2


def test_a_server_that_cannot_be_told_does_not_keep_the_key_in(server, monkeypatch, control):
    import sys

    module = sys.modules["server.deploy.control"]

    def unreachable(*_):
        raise module.ServerUnreachableError("the server does not answer")

    monkeypatch.setattr(module, "unregister_node", unreachable)
    monkeypatch.setattr(module, "register_nodes", unreachable)
    revoke_site(server, "leiden")
    assert names(server) == ["paris.pub"]
    assert "leiden  no key" in (server / "fingerprints.txt").read_text()
    assert "server not told" in (server / "state" / "audit.jsonl").read_text()
    renew_site_kit(server, "paris", server.parent / "paris2", ca_key=None)
    assert (server.parent / "paris2" / "node.key").exists()


def test_a_key_made_at_the_site_is_let_in(server, control, made_at_site):
    fingerprint = add_key(server, "oslo", made_at_site, replace=False)
    assert names(server) == ["leiden.pub", "oslo.pub", "paris.pub"]
    assert control == [("register", ["leiden", "oslo", "paris"])]
    assert f"oslo  {fingerprint}" in (server / "fingerprints.txt").read_text()
    verify_kit(server)


def test_a_new_key_of_a_site_replaces_the_old_one_only_when_told_to(server, control, made_at_site):
    with pytest.raises(KitError, match=r"paris has a key already.*--replace"):
        add_key(server, "paris", made_at_site, replace=False)
    before = (server / "nodes/paris.pub").read_bytes()
    add_key(server, "paris", made_at_site, replace=True)
    assert (server / "revoked/paris.1.pub").read_bytes() == before
    assert control == [("unregister", "paris", False), ("register", ["leiden", "paris"])]


def test_two_sites_do_not_share_a_key(server, control, kits):
    with pytest.raises(KitError, match="this is the key of leiden; each site needs a key of its own"):
        add_key(server, "oslo", kits / "sites/leiden/node.pub", replace=False)
    assert control == []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ec.generate_private_key(ec.SECP256R1()).public_key(), "not an EC P-384 key"),
        (lambda: ed25519.Ed25519PrivateKey.generate().public_key(), "not an EC P-384 key"),
    ],
)
def test_another_kind_of_key_is_refused(server, control, tmp_path, make, said):
    path = tmp_path / "node.pub"
    path.write_bytes(make().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH))
    with pytest.raises(KitError, match=said):
        add_key(server, "oslo", path, replace=False)


def test_a_private_key_that_was_sent_is_refused_with_what_to_do(server, control, made_at_site, tmp_path):
    with pytest.raises(KitError, match=r"PRIVATE key, which must not leave the site; delete it here"):
        add_key(server, "oslo", made_at_site.with_name("node.key"), replace=False)
    (tmp_path / "x.pub").write_text("no key\n")
    with pytest.raises(KitError, match="not a public key in OpenSSH form"):
        add_key(server, "oslo", tmp_path / "x.pub", replace=False)
    with pytest.raises(KitError, match="no such public key"):
        add_key(server, "oslo", tmp_path / "y.pub", replace=False)
    assert names(server) == ["leiden.pub", "paris.pub"]


def test_the_servers_certificate_is_renewed_with_a_new_key(server, control):
    old = read_certificate(server / "server.pem")
    end = renew_server_certificate(server, also=["10.0.0.9"], ca_key=None, now=NOW + timedelta(days=350))
    new = read_certificate(server / "server.pem")
    assert end == new.not_valid_after_utc == NOW + timedelta(days=350 + 397)
    assert new.public_key() != old.public_key()
    key = serialization.load_pem_private_key((server / "server.key").read_bytes(), None)
    assert key.public_key() == new.public_key()
    new.verify_directly_issued_by(read_certificate(server / "ca.pem"))
    verify_kit(server)
    assert tomllib.loads((server / "consortium.toml").read_text())["server"]["also"] == ["10.0.0.5", "10.0.0.9"]
    with pytest.raises(ConfigError, match=r"'1\.2\.3' is not a name"):
        renew_server_certificate(server, also=["1.2.3"], ca_key=None, now=NOW)


def test_no_certificate_outlives_the_authority(server, control):
    authority = read_certificate(server / "ca.pem")
    end = renew_server_certificate(server, also=[], ca_key=None, now=NOW + timedelta(days=3600))
    assert end == authority.not_valid_after_utc
    with pytest.raises(KitError, match="the certificate authority ended on 2036-02-27"):
        renew_server_certificate(server, also=[], ca_key=None, now=NOW + timedelta(days=3650))


def test_a_site_gets_a_new_key_in_a_new_kit(server, control, tmp_path, kits):
    old = (server / "nodes/leiden.pub").read_bytes()
    renew_site_kit(server, "leiden", tmp_path / "leiden", ca_key=None)
    verify_kit(tmp_path / "leiden")
    assert (server / "nodes/leiden.pub").read_bytes() == (tmp_path / "leiden/node.pub").read_bytes() != old
    assert (server / "revoked/leiden.1.pub").read_bytes() == old
    assert control == [("unregister", "leiden", False), ("register", ["leiden", "paris"])]
    renew_site_kit(server, "leiden", tmp_path / "again", ca_key=None)
    revoke_site(server, "leiden")
    assert names(server, "revoked") == ["leiden.1.pub", "leiden.2.pub", "leiden.3.pub"]
    renew_site_kit(server, "leiden", tmp_path / "back", ca_key=None)
    assert "leiden.pub" in names(server)


def test_a_changed_server_kit_is_not_signed_again(server, control, tmp_path):
    (server / "start.sh").write_text("#!/bin/sh\n")
    for change in (
        lambda: add_site(server, "rome", tmp_path / "rome", own_key=False, contact="", ca_key=None),
        lambda: renew_server_certificate(server, also=[], ca_key=None, now=NOW),
        lambda: renew_site_kit(server, "leiden", tmp_path / "rome", ca_key=None),
    ):
        with pytest.raises(KitError, match=r"start\.sh: this file was changed"):
            change()


def test_a_sites_kit_is_not_a_server(kits, control):
    with pytest.raises(KitError, match="not a kit of this kind"):
        revoke_site(kits / "sites/leiden", "leiden")


def test_the_commands(server, control, tmp_path, made_at_site):
    run = CliRunner()
    for arguments, said in (
        (["add-site", server, "rome", "--out", tmp_path / "rome", "--csr", "--contact", "x"], "the site makes it"),
        (["add-key", server, "oslo", made_at_site], "Compare it with what the site reads out"),
        (["revoke-site", server, "oslo"], "oslo: revoked"),
        (["rotate", server, "--also", "stsmm2.example.org"], "Start the server again"),
        (["rotate", server, "--site", "oslo", "--out", tmp_path / "oslo"], "the old key is revoked"),
    ):
        done = run.invoke(app, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output
        assert said in done.output
    for arguments in (["--out", "x"], ["--site", "oslo"], ["--site", "oslo", "--out", "x", "--also", "y"]):
        assert isinstance(run.invoke(app, ["rotate", str(server), *arguments]).exception, KitError)
