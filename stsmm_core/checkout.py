"""The checkout that stsmm is installed from: what Flower packs into an app."""

from pathlib import Path

import stsmm_core
from stsmm_core.errors import RunError


def app_folder(need: str) -> Path:
    """The folder whose pyproject.toml makes these packages a Flower app.

    Args:
        need: what needs it, for the message.

    Raises:
        RunError: when stsmm is not installed from its checkout.
    """
    folder = Path(stsmm_core.__file__).resolve().parent.parent
    if not (folder / "pyproject.toml").exists():
        raise RunError(f"{need} needs stsmm installed from its checkout; run `make install` there")
    return folder
