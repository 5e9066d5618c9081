"""The files of a run folder that the reports read; what is broken is named, with what to do."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from stsmm_core.config import Experiment, parse_experiment
from stsmm_core.errors import ConfigError, RunError


class Record(BaseModel):
    """A part of a JSON file: keys that the report does not print are ignored, NaN and infinity are faults."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Record)


def read_run_experiment(path: Path) -> Experiment:
    """The resolved experiment of a run."""
    try:
        return parse_experiment(read_text(path), source=str(path))
    except ConfigError as error:
        raise RunError(f"{error}\n  restore the file that the run wrote, or run again") from None


def read_text(path: Path) -> str:
    """The text of a file that a finished run has."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(
            f"{path}: missing; a report needs a finished run, so let the run finish or start it again"
        ) from None
    except UnicodeDecodeError:
        raise broken(path, "not UTF-8 text") from None


def broken(path: Path, problem: str) -> RunError:
    """The error for a file that is there but wrong."""
    return RunError(f"{path}: {problem}; restore the file that the run wrote, or run again")


def read_versions(path: Path) -> dict[str, str]:
    """Versions by package."""
    text = read_text(path)
    try:
        return TypeAdapter(dict[str, str]).validate_python(json.loads(text))
    except json.JSONDecodeError as error:
        raise broken(path, f"not valid JSON ({error})") from None
    except ValidationError:
        raise broken(path, "must map package names to versions") from None


def read_record(path: Path, kind: type[Kind]) -> Kind:
    """A JSON file as a validated tree; every fault in it is named."""
    text = read_text(path)
    try:
        return kind.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        raise broken(path, f"not valid JSON ({error})") from None
    except ValidationError as error:
        faults = [
            ".".join(str(part) for part in fault["loc"]) + ": " + fault["msg"].removeprefix("Value error, ")
            for fault in error.errors()
        ]
        raise broken(path, "; ".join(fault.removeprefix(": ") for fault in faults)) from None
