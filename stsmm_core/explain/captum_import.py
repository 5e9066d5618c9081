"""Captum, which only explanations need."""

from types import ModuleType

from stsmm_core.errors import RunError


def import_captum() -> ModuleType:
    """captum.attr.

    Raises:
        RunError: when the extra `compare` is not installed.
    """
    try:
        import captum.attr
    except ImportError:
        raise RunError("explanations need captum; in the source folder: pip install '.[compare]'") from None
    return captum.attr
