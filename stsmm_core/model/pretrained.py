"""Pretrained weights of the image encoder: checkpoints of a 3D DenseNet-121, the y-aware BHB-10k one among them."""

import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stsmm_core.errors import RunError

WRAPPERS = ("model", "state_dict")
"""Keys under which training programs keep the weights, beside epochs and optimisers."""
TRUNK = "features."
LAST_NORM = "features.norm5."
"""Follows the last block; the y-aware network has none, and ours starts as the identity."""
FIRST_KERNEL = "features.conv0.weight"
NAMED = 3
"""Names that a message gives as examples."""


@dataclass(frozen=True)
class LoadedWeights:
    """What an encoder took from a checkpoint.

    Attributes:
        source: file name.
        in_file: tensors of the checkpoint.
        loaded: tensors taken, batch statistics and their counters included.
        left: names in the checkpoint that were not taken: its own output layers.
        untouched: tensors of the encoder that keep their initial values.
    """

    source: str
    in_file: int
    loaded: int
    left: tuple[str, ...]
    untouched: tuple[str, ...]

    def __str__(self) -> str:
        left = f"; left out: {', '.join(self.left)}" if self.left else ""
        return (
            f"Pretrained weights: {self.loaded} of {self.in_file} tensors of {self.source} loaded{left}; "
            f"{len(self.untouched)} tensors of the image encoder start anew"
        )


def load_pretrained(encoder: nn.Module, path: Path) -> LoadedWeights:
    """Load the trunk of a 3D DenseNet-121 into an image encoder, in place.

    A DataParallel prefix and the layer names of torchvision and of the y-aware network (Dufumier et al., MICCAI 2021,
    doi 10.1007/978-3-030-87196-3_6) are understood. A first kernel for one channel is repeated over ours and divided by
    their number, so that the same image in every channel gives the features it gave. Output layers are left out.

    Raises:
        RunError: when the file is no checkpoint, or not one of this trunk; nothing is loaded then.
    """
    given = {_our_name(name): value for name, value in _read_tensors(path).items()}
    own = encoder.state_dict()
    trunk = [name for name in own if name.startswith(TRUNK)]
    offered = [name for name in given if name.startswith(TRUNK)]
    last_norm = any(name.startswith(LAST_NORM) for name in offered)
    wanted = [name for name in trunk if last_norm or not name.startswith(LAST_NORM)]
    missing = [name for name in wanted if name not in given]
    if missing:
        raise RunError(
            f"{path}: holds {len(wanted) - len(missing)} of the {len(wanted)} tensors of the trunk; "
            f"{_some(missing)} missing; give a checkpoint of a 3D DenseNet-121, or leave model.pretrained empty"
        )
    homeless = [name for name in offered if name not in own]
    if homeless:
        raise RunError(
            f"{path}: {len(homeless)} of its {len(offered)} trunk tensors have no place in this network, "
            f"{_some(homeless)}; model.pretrained needs image_encoder = 'densenet121' and norm = 'batch'"
        )
    taken = {name: given[name] for name in wanted}
    taken[FIRST_KERNEL] = _over_channels(taken[FIRST_KERNEL], own[FIRST_KERNEL].shape[1])
    other = [name for name in wanted if taken[name].shape != own[name].shape]
    if other:
        shapes = f"{tuple(taken[other[0]].shape)} there, {tuple(own[other[0]].shape)} here"
        raise RunError(
            f"{path}: {len(other)} of {len(wanted)} tensors have another shape, {_some(other)} ({shapes}); give a "
            "checkpoint of a 3D DenseNet-121 for one channel, or for as many as the cohort has"
        )
    spoilt = [name for name in wanted if not torch.isfinite(taken[name]).all()]
    if spoilt:
        raise RunError(
            f"{path}: {len(spoilt)} of {len(wanted)} tensors have values that are not finite, {_some(spoilt)}; "
            "take a checkpoint from before that training diverged"
        )
    encoder.load_state_dict(own | taken)
    return LoadedWeights(
        path.name,
        len(given),
        len(taken),
        tuple(name for name in given if name not in taken),
        tuple(name for name in own if name not in taken),
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint; nothing in the file is executed."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; correct model.pretrained, or leave it empty") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise RunError(  # not in PyTorch's words, which advise to run the code
            f"{path}: is no checkpoint that can be read without running code from it ({type(error).__name__}); "
            "save the network's state_dict() alone with torch.save and give that file"
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    named = content if isinstance(content, dict) else {}
    if not named or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in named.items()):
        raise RunError(
            f"{path}: holds no named tensors, neither by itself nor under {' or '.join(WRAPPERS)}; "
            "save the network's state_dict() with torch.save and give that file"
        )
    return named


def _our_name(name: str) -> str:
    return re.sub(r"(denselayer\d+)\.(?!layers\.)", r"\1.layers.", name.removeprefix("module."))


def _over_channels(kernel: Tensor, channels: int) -> Tensor:
    """A kernel for one input channel, as one for the mean of `channels`; a kernel for several as it is."""
    if kernel.ndim != 5 or kernel.shape[1] != 1:
        return kernel
    return kernel.repeat(1, channels, 1, 1, 1) / channels


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (" and others" if len(names) > NAMED else "")
