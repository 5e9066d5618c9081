"""stsmm audit verify and show."""

import pytest
from typer.testing import CliRunner

from stsmm_core.audit.chain import AuditError, append, head
from stsmm_core.audit.cli import app


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "audit.jsonl"
    append(path, {"site": "leiden", "decision": "left out", "reason": "[bold]\x1b[2J NaN"})
    append(path, {"site": "berlin", "decision": "answered", "bytes": 12})
    return path


def run(*arguments) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "300"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_verify_prints_the_head_to_note(log):
    output = run("verify", log)
    assert "2 lines" in output
    assert head(log).sha256 in output
    assert "noted is that of one of them" in run("verify", log, "--head", head(log).sha256)


def test_verify_says_where_writing_was_cut_off(log):
    with log.open("ab") as file:
        file.write(b"{")
    append(log, {"site": "leiden"})
    assert "cut off 1 times" in run("verify", log)


def test_verify_fails_on_a_changed_log(log):
    log.write_bytes(log.read_bytes().replace(b"leiden", b"berlin"))
    with pytest.raises(AuditError, match="line 2"):
        run("verify", log)


def test_show_has_a_row_a_line_and_no_control_character(log):
    output = run("show", log)
    assert "\x1b" not in output
    assert "[bold]?[2J NaN" in output
    assert "bytes: 12" in output
    (first,) = [line for line in output.splitlines() if "leiden" in line]
    assert "left out" in first
