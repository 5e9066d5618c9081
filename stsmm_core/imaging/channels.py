"""Whether the channels that the settings name are those of a cohort."""

import re
from collections.abc import Sequence

from stsmm_core.config import Imaging
from stsmm_core.errors import ConfigError

_LOOKS_LIKE_MRI = re.compile(r"(?<![a-z])(t[12]|stir|flair|dixon|vibe|mri?(?![a-z]))", re.IGNORECASE)


def check_registered_channels(channels: Sequence[str], config: Imaging) -> None:
    """Refuse settings that register a channel which the cohort does not have; one without images has nothing to move.

    Raises:
        ConfigError: naming the channel.
    """
    unknown = [name for name in config.registration.channels if name not in channels]
    if channels and unknown and "registration" in config.steps:
        raise ConfigError(
            f"imaging.registration.channels names {', '.join(unknown)}, but the cohort's channels are "
            f"{', '.join(channels)}; write them as in cohort.toml"
        )


def channel_notes(channels: Sequence[str], config: Imaging) -> list[str]:
    """Which channels look like MRI by their name and are not corrected for the bias field, one sentence each.

    Raises:
        ConfigError: as `check_registered_channels`.
    """
    check_registered_channels(channels, config)
    if "bias_correction" not in config.steps:
        return []
    corrected = config.bias_correction.channels
    return [
        f"channel {name} looks like MRI, but its bias field is not corrected: imaging.bias_correction.channels names "
        f"{', '.join(corrected) or 'none'}"
        for name in channels
        if name not in corrected and _LOOKS_LIKE_MRI.search(name)
    ]
