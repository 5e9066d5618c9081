"""stsmm site approve, and what the node gets of the environment."""

import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from gate_server import make_app
from typer.testing import CliRunner

from client.cli import app
from client.node import commands
from client.node.ledger import Ledger
from client.node.node import environment
from stsmm_core.errors import ConfigError


def approve(*arguments):
    return CliRunner().invoke(app, ["approve", *map(str, arguments)], catch_exceptions=False)


def test_approve_shows_what_changed_and_asks(kit, tmp_path):
    first, second = tmp_path / "1.fab", tmp_path / "2.fab"
    first.write_bytes(make_app())
    second.write_bytes(make_app("import os"))
    assert "first app" in approve(kit, first, "--yes").output
    said = CliRunner().invoke(app, ["approve", str(kit), str(second), "--diff"], input="n\n")
    assert "1 files changed" in said.output
    assert "+import os" in said.output
    assert said.exit_code == 1
    ledger = Ledger(kit)
    assert ledger.is_approved(hashlib.sha256(first.read_bytes()).hexdigest())
    assert not ledger.is_approved(hashlib.sha256(second.read_bytes()).hexdigest())
    approve(kit, "--revoke", ledger.approvals()[0].sha256[:8])
    assert "revoked" in approve(kit).output


def test_code_cannot_write_to_the_terminal_of_who_reads_it(kit, tmp_path):
    paths, escape = [tmp_path / "1.fab", tmp_path / "2.fab"], "\x1b[1A\x1b[2K"
    paths[0].write_bytes(make_app())
    paths[1].write_bytes(make_app(f"import os  # {escape}\u202e\n\tpass", also=f"client/{escape}x.py"))
    approve(kit, paths[0], "--yes")
    said = approve(kit, paths[1], "--diff", "--yes").output
    assert "+import os  # ?[1A?[2K?" in said
    assert "client/?[1A?[2Kx.py" in said
    Ledger(kit).note_run(7, "", escape, "", "refused")  # what a run calls its code is the server's word
    Ledger(kit).approve("ab" * 32, escape, "tester")
    said += approve(kit).output + CliRunner().invoke(app, ["status", str(kit)], catch_exceptions=False).output
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_what_was_shown_is_approved_though_the_file_changes_while_it_is_read(kit, tmp_path, monkeypatch):
    path, shown, swapped = tmp_path / "app.fab", make_app(), make_app("import os")
    path.write_bytes(shown)
    monkeypatch.setattr(commands.typer, "confirm", lambda _: path.write_bytes(swapped) > 0)
    approve(kit, path)
    digest = hashlib.sha256(shown).hexdigest()
    assert [each.sha256 for each in Ledger(kit).approvals()] == [digest]
    copy = kit / "state" / "approved" / f"{digest}.fab"
    assert copy.read_bytes() == shown
    assert copy.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("spoil", [lambda copy: copy.write_bytes(b""), lambda copy: copy.unlink()])
def test_an_approved_copy_that_was_lost_is_said_and_made_anew(kit, tmp_path, spoil):
    paths = [tmp_path / "1.fab", tmp_path / "2.fab"]
    for path, extra in zip(paths, ("", "import os"), strict=True):
        path.write_bytes(make_app(extra))
        approve(kit, path, "--yes")
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    copies = kit / "state" / "approved"
    spoil(copies / f"{second}.fab")
    said = approve(kit, paths[1], "--yes").output
    assert f"{second} is missing or broken" in said
    assert f"Against the last approved, {first}" in said
    assert (copies / f"{second}.fab").read_bytes() == paths[1].read_bytes()
    for copy in copies.iterdir():
        spoil(copy)
    assert "first app" not in approve(kit, paths[0], "--yes").output


def test_a_full_disk_leaves_nothing_approved_and_no_half_a_copy(kit, tmp_path, monkeypatch):
    path = tmp_path / "app.fab"
    path.write_bytes(make_app())

    def full(copy, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match=r"No space left on device.*not approved"):
        approve(kit, path, "--yes")
    assert not list((kit / "state" / "approved").iterdir())
    assert not Ledger(kit).approvals()


def test_a_file_that_is_no_app_or_was_changed_is_named(kit, tmp_path):
    path = tmp_path / "app.fab"
    path.write_bytes(b"PK")
    with pytest.raises(ConfigError, match="no app"):
        approve(kit, path, "--yes")
    path.write_bytes(make_app().replace(b"# the app", b"# The app"))
    with pytest.raises(ConfigError, match=r"no app|does not fit"):
        approve(kit, path, "--yes")


def test_the_node_gets_no_more_of_the_environment_than_it_needs(kit, monkeypatch):
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    own = environment(kit)
    assert "secret" not in str(own)
    assert "PYTHONPATH" not in own
    assert own["FLWR_TELEMETRY_ENABLED"] == "0"


def test_the_code_that_runs_is_that_of_the_app_not_the_installed_package(tmp_path):
    code = hashlib.sha256(b"").hexdigest()
    folder = tmp_path / "apps" / f"stsmm.stsmm.0.1.0.{code[:8]}"
    (folder / "client").mkdir(parents=True)
    (folder / "client" / "__init__.py").touch()
    (folder / "client" / "app.py").write_text("from flwr.clientapp import ClientApp\napp = ClientApp()\n")
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "stsmm"\nversion = "0.1.0"\n[tool.flwr.app]\npublisher = "stsmm"\n'
        '[tool.flwr.app.components]\nserverapp = "client.app:app"\nclientapp = "client.app:app"\n'
    )
    script = (
        "import sys; from flwr.clientapp.utils import get_load_client_app_fn\n"
        f"get_load_client_app_fn('', None, True)('stsmm/stsmm', '0.1.0', '{code}')\n"
        "print(sys.modules['client.app'].__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"FLWR_HOME": str(tmp_path), "FLWR_TELEMETRY_ENABLED": "0"},
    )
    assert done.stdout.strip() == str(folder / "client" / "app.py")
