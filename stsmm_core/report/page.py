"""The pages of the reports: templates beside this file, filled strictly and put in place whole."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from stsmm_core.errors import RunError
from stsmm_core.files import write_text_atomically


def template(name: str) -> Template:
    """A template of this package by its path; what is put in is escaped, what is missing is an error."""
    loader = PackageLoader("stsmm_core.report", ".")
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(name)


def write_page(target: Path, text: str) -> None:
    """Put a page in place; an older one is replaced only when the new one is complete.

    Raises:
        RunError: when the folder does not take it.
    """
    try:
        write_text_atomically(target, text)
    except OSError as error:
        raise RunError(f"{target}: cannot be written ({error.strerror}); check the folder's rights and space") from None
