"""Errors for the person who must act: what is wrong, where, and what to do about it."""


class StsmmError(Exception):
    """An error whose message is meant for the user; the command line prints it without a traceback."""


class ConfigError(StsmmError):
    """The experiment file is wrong."""


class CohortError(StsmmError):
    """A cohort folder cannot be used as it is."""


class KitError(StsmmError):
    """A start-up kit cannot be used as it is."""


class RunError(StsmmError):
    """A run cannot start or go on."""


def not_installed(package: str) -> RunError:
    """What to say when a package of the optional extra for `stsmm compare` is missing."""
    return RunError(f"{package} is not installed; in the source folder: pip install '.[compare]'")
