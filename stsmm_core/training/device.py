"""The device that a network is trained on."""

import torch

from stsmm_core.errors import RunError


def available_device(name: str) -> torch.device:
    """The torch device of that name.

    Raises:
        RunError: when there is none of that name, or this machine does not have it.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RunError(
            f"training.device = '{name}' is no device; write 'cpu', 'cuda', or 'cuda:1' for the second GPU"
        ) from None
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise RunError(f"training.device = '{name}' is not available here ({first_line}); 'cpu' always is") from None
    return device
