"""The stsmm command as a whole: what its help says, and what it says when it is interrupted."""

import sys

import pytest
import typer
from rich.text import Text

from stsmm_core import cli
from stsmm_core.errors import StsmmError


def all_helps(command, name="stsmm"):
    for parameter in command.params:
        yield f"{name} {parameter.name}", getattr(parameter, "help", None)
    for child in getattr(command, "commands", {}).values():
        yield from all_helps(child, f"{name} {child.name}")


def test_no_help_is_swallowed_as_markup():
    helps = [(name, text) for name, text in all_helps(typer.main.get_command(cli.build_app())) if text]
    assert len(helps) > 20
    for name, text in helps:
        assert Text.from_markup(text).plain == text.replace("\\[", "["), name


def test_an_error_writes_nothing_to_the_terminal_but_its_letters(monkeypatch, capsys):
    def fails():
        raise StsmmError("a file of \x1b[2K[bold]Mallory:\nlook at it again")

    monkeypatch.setattr(cli, "build_app", lambda: fails)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "Error: a file of ?[2K[bold]Mallory:\nlook at it again\n"


@pytest.mark.parametrize(
    ("command", "goes_on"), [("train", True), ("simulate", True), ("compare", True), ("preprocess", False)]
)
def test_only_a_run_goes_on(monkeypatch, capsys, command, goes_on):
    def interrupted():
        sys.exit(cli.INTERRUPTED)

    monkeypatch.setattr(cli, "build_app", lambda: interrupted)
    monkeypatch.setattr(sys, "argv", ["stsmm", command])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err
    assert said.startswith("Interrupted")
    assert ("goes on from its last round" in said) == goes_on
