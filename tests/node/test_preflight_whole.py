"""All checks together, the command, and a support bundle that tells of nobody."""

import ast
import json
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from preflight_servers import authority, closed_port, pem
from rich.console import Console
from typer.testing import CliRunner

import client.node.preflight
from client.cli import app
from client.node.preflight import checks
from client.node.preflight.bundle import KNOWN_SENTENCES, known_lines, write_bundle
from client.node.preflight.checks import NEEDS, run_checks
from client.node.preflight.command import show
from client.node.preflight.finding import CHECKS, Finding
from client.node.preflight.folder import check_node_key, check_permissions
from client.node.preflight.machine import activation_bytes, check_device, check_memory
from client.node.preflight.policy import check_approved, check_settings
from stsmm_core.config import Experiment, Imaging, Model, Training

SECRETS = (
    "PAT-00017-Jansen",
    "jdoe",
    "pacs01.umc-secret.example",
    "/srv/secret-share",
    "1957-03-11",
    "hunter2",
    "proxy.umc-secret.example",
)


@pytest.fixture
def keyed(kit):
    """The kit with keys, and a server that is not there."""
    key = ec.generate_private_key(ec.SECP384R1())
    (kit / "node.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    )
    (kit / "node.key").chmod(0o600)
    kit.chmod(0o700)
    (kit / "node.pub").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    (kit / "ca.pem").write_bytes(pem(authority()))
    text = (kit / "kit.toml").read_text().replace("localhost", "127.0.0.1")
    (kit / "kit.toml").write_text(text.replace("9092", str(closed_port())).replace("9093", str(closed_port())))
    return kit


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("https_proxy", "all_proxy", "http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def states(findings):
    return {finding.check: finding.state for finding in findings}


def test_all_checks_run_and_dependent_ones_are_skipped(keyed):
    found = states(run_checks(keyed))
    assert list(found) == [check for check in CHECKS if check != "memory"]
    assert found["port"] == "fault"
    assert {found[check] for check in ("certificate", "clock", "registration", "version", "control")} == {"skipped"}
    assert found["kit unchanged"] == "fault"  # it has no manifest
    assert {found[check] for check in ("kit", "permissions", "node key", "settings", "name", "cohort")} <= {
        "ok",
        "warning",
    }
    assert found["approved code"] == "warning"


def test_a_folder_that_is_no_kit(tmp_path):
    found = states(run_checks(tmp_path))
    assert found["kit"] == "fault"
    assert found["port"] == "skipped"
    assert {found[check] for check in ("permissions", "node key", "settings", "disk")} == {"skipped"}


def test_what_is_needed_comes_first():
    for check, needed in NEEDS.items():
        assert all(CHECKS.index(need) < CHECKS.index(check) for need in needed), check


def test_a_check_that_hangs_and_one_that_fails_keep_nobody_up(keyed, monkeypatch):
    import threading

    monkeypatch.setattr(checks, "LIMIT_SECONDS", 0.3)
    monkeypatch.setattr(checks, "check_name", lambda server, proxy: threading.Event().wait(5))
    monkeypatch.setattr(checks, "check_device", lambda device: 1 / 0)
    monkeypatch.setattr(checks, "check_cohort", lambda cohort: threading.Event().wait(5))
    findings = {finding.check: finding for finding in run_checks(keyed)}
    assert findings["name"].state == "fault"
    assert "No result" in findings["name"].what
    assert findings["device"].what == "The check itself failed."
    assert findings["cohort"].state == "warning"


def test_permissions_and_keys(keyed):
    assert check_permissions(keyed).state == "ok"
    (keyed / "node.key").chmod(0o640)
    assert check_permissions(keyed).state == "fault"
    (keyed / "node.key").chmod(0o600)
    assert check_node_key(keyed).state == "ok"
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    (keyed / "node.pub").write_bytes(
        other.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    assert "do not belong together" in check_node_key(keyed).what
    (keyed / "node.key").write_text("nonsense")
    assert "cannot be used" in check_node_key(keyed).what


def test_settings_of_the_site(keyed):
    original = (keyed / "site.toml").read_text()
    assert check_settings(keyed).state == "ok"
    for text, state in (
        (original + "min_cell_size = 1\n", "warning"),
        (original + "share_risk_sets = true\n", "warning"),
        (original + "[policy]\nrequire_secure_aggregation = true\n", "fault"),
        ("", "fault"),
        (original + "colour = 1\n", "fault"),
        (original.replace("data_folder", "elsewhere"), "fault"),
    ):
        (keyed / "site.toml").write_text(text)
        assert check_settings(keyed).state == state, text
    (keyed / "site.toml").write_text(original + "[policy]\nrequired_signatures = 2\n")
    assert check_approved(keyed).numbers == {"known": 0, "required": 2}


def test_device():
    assert check_device("cpu").state == "ok"
    assert check_device("abacus").state == "fault"
    assert check_device("cuda:99").state == "fault"


def test_memory_grows_with_the_batch_and_is_held_against_what_is_free(data, monkeypatch):
    (cohort,) = [each.parent for each in data.rglob("cohort.toml")]

    def experiment(batch):
        return Experiment(
            model=Model(image_encoder="small_densenet"),
            imaging=Imaging(shape=(32, 32, 32)),
            training=Training(batch_size=batch),
        )

    # Every kept tensor has the batch as first axis, but for the weights.
    small, large = activation_bytes(experiment(4), 2), activation_bytes(experiment(8), 2)
    assert large == pytest.approx(2 * small, rel=0.05)
    assert check_memory(experiment(8), cohort, "cpu").state == "ok"

    class Little:
        available = 1e8

    monkeypatch.setattr("psutil.virtual_memory", Little)
    assert check_memory(experiment(8), cohort, "cpu").state == "fault"


def test_the_command(keyed):
    result = CliRunner().invoke(app, ["check", str(keyed), "--json"])
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert {"check", "state", "what", "remedy", "numbers", "detail"} == set(told[0])
    table = CliRunner().invoke(app, ["check", str(keyed)]).stdout
    assert "refused" in table


def test_the_table_fits_80_columns():
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(console, [Finding("registration", "fault", "word " * 60, "do " * 60, detail="/x" * 100)])
    assert max(map(len, console.export_text().splitlines())) <= 80


def test_findings_are_fixed_sentences():
    """What a bundle shows of a finding is written in the source, word for word; only numbers are filled in."""
    folder = Path(client.node.preflight.__file__).parent
    made = 0
    for path in folder.glob("*.py"):
        if path.name == "finding.py":  # `skipped` fills in names of checks
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                named = {keyword.arg: keyword.value for keyword in node.keywords}
                for words in [*node.args[2:4], *(named[key] for key in ("what", "remedy") if key in named)]:
                    assert isinstance(words, ast.Constant), f"{path.name}:{node.lineno}"
                made += 1
    assert made > 60


def test_the_bundle_tells_of_nobody(keyed, monkeypatch, tmp_path):
    """Names, paths and keys are planted wherever the bundle could take them from."""
    monkeypatch.setenv("HTTPS_PROXY", "http://jdoe:hunter2@proxy.umc-secret.example:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("USER", "jdoe")
    monkeypatch.setattr("socket.gethostname", lambda: "pacs01.umc-secret.example")
    monkeypatch.setattr("platform.node", lambda: "pacs01.umc-secret.example")
    monkeypatch.setattr("platform.machine", lambda: "pacs01.umc-secret.example")
    secrets = " ".join(SECRETS)
    for name in ("kit.toml", "site.toml"):
        (keyed / name).write_text((keyed / name).read_text() + f"# {secrets}\n")
    state = keyed / "state"
    state.mkdir(exist_ok=True)
    lines = [f"2026-11-24 21:00:0{n % 10},1 INFO {known}: {secrets}" for n, known in enumerate(KNOWN_SENTENCES)]
    (state / "node.log").write_text("\n".join([*lines, secrets, f"1957-03-11 {secrets}"]))
    findings = run_checks(keyed)
    findings += [Finding(check, "fault", "What.", "Do.", detail=secrets) for check in ("cohort", "name")]
    for unchanged in (True, False):
        if unchanged:
            findings = [finding for finding in findings if finding.check != "kit unchanged"]
            findings.append(Finding("kit unchanged", "ok", "Yes."))
        else:
            findings[-1] = Finding("kit unchanged", "fault", "No.")
        path = tmp_path / "support.zip"
        write_bundle(path, keyed, findings)
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name).decode() for name in archive.namelist()}
        assert set(files) == {"findings.json", "versions.json", "kit.json", "policy.json", "log.txt"}
        told = "\n".join([*files, *files.values()])
        key = (keyed / "node.key").read_text().splitlines()
        for secret in [*SECRETS, str(keyed), str(tmp_path), str(Path.home()) + "/", *key[1:-1]]:
            assert secret not in told, secret
        assert (json.loads(files["kit.json"]) == {}) is not unchanged
        assert json.loads(files["policy.json"])["min_cell_size"] == 5
        assert "(2 other lines left out)" in files["log.txt"]
        assert files["log.txt"].count("2026-11-24 21:00:0") == len(KNOWN_SENTENCES)


def test_the_nodes_own_sentences_are_those_that_it_logs():
    """Whoever rewords one in the node's log must do so in the list."""
    node = Path(client.node.preflight.__file__).parents[1]
    logged = (node / "process.py").read_text() + (node / "gate.py").read_text()
    own = ("No connection to", "Refused a message", "The gate could not judge a message", "The gate held an answer")
    assert set(own) <= set(KNOWN_SENTENCES)
    assert [sentence for sentence in own if sentence not in logged] == []


def test_a_log_line_gives_its_sentence_and_nothing_else():
    assert known_lines(["2026-01-02 03:04:05,6 ERROR x: Connection refused to /srv/secret", "PAT-1"]) == [
        "2026-01-02 03:04:05 Connection refused",
        "(1 other lines left out)",
    ]


def test_memory_is_checked_with_an_experiment(keyed):
    found = states(run_checks(keyed, Experiment(model=Model(image_encoder="small_densenet"))))
    assert found["memory"] in ("ok", "warning")
