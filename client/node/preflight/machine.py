"""This machine: device, memory, disk, cohort."""

import shutil
from pathlib import Path

import numpy as np
import psutil
import torch

from client.node.preflight.finding import Finding
from stsmm_core.cohort.check import check_cohort as check_cohort_folder
from stsmm_core.cohort.reading import parse_cohort
from stsmm_core.config import Experiment
from stsmm_core.kit import STATE_FOLDER
from stsmm_core.model.image_encoder import build_image_encoder

PROCESS_BYTES = 0.5e9
"""The program itself with its libraries (measured: 0.5 GB)."""
LEAST_FREE_BYTES = 1e9
ENOUGH_FREE_BYTES = 5e9
CHECKPOINTS = 4
"""Copies of the network that a site keeps at a time, at most: current, selected, normalisation, one being written."""


def check_device(device: str) -> Finding:
    """Whether the device of site.toml is there."""
    try:
        kind = torch.device(device)
    except RuntimeError:
        return Finding(
            "device",
            "fault",
            "The device in site.toml is not one that PyTorch knows.",
            'Set device to "cpu", "cuda" or "cuda:0".',
            detail=device,
        )
    if kind.type == "cpu":
        return Finding("device", "ok", "Training runs on the processor.", numbers={"cores": psutil.cpu_count() or 1})
    if kind.type != "cuda":
        return Finding(
            "device",
            "fault",
            "The device in site.toml is not supported.",
            'Set device to "cpu", "cuda" or "cuda:0".',
            detail=device,
        )
    if not torch.cuda.is_available():
        return Finding(
            "device",
            "fault",
            "site.toml asks for a GPU, but PyTorch finds none.",
            'Install the GPU driver and a PyTorch build for it, or set device = "cpu".',
            detail=device,
        )
    if (kind.index or 0) >= torch.cuda.device_count():
        return Finding(
            "device",
            "fault",
            "site.toml asks for a GPU that is not there; this machine has {gpus}.",
            'Set device to "cuda:0" or another that exists.',
            {"gpus": torch.cuda.device_count()},
            device,
        )
    return Finding("device", "ok", "The GPU is there.", detail=torch.cuda.get_device_name(kind))


def activation_bytes(experiment: Experiment, channels: int) -> float:
    """Bytes that the image encoder keeps of one batch until its backward pass, counted without computing it."""
    with torch.device("meta"):
        encoder = build_image_encoder(experiment.model, channels).train()
        batch = torch.zeros(experiment.training.batch_size, channels, *experiment.imaging.shape)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that no other storage gets its number
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder(batch)
    return float(sum(storage.nbytes() for storage in kept.values()))


def weight_bytes(experiment: Experiment, channels: int) -> float:
    """Bytes of the image encoder's weights; the rest of the network is negligible."""
    with torch.device("meta"):
        encoder = build_image_encoder(experiment.model, channels)
    return 4.0 * sum(parameter.numel() for parameter in encoder.parameters())


def check_memory(experiment: Experiment, cohort: Path, device: str) -> Finding:
    """Whether the experiment fits into memory: images of all patients, activations of a batch, weights four times."""
    images, network = _needed_bytes(experiment, cohort)
    on_gpu = torch.device(device).type == "cuda"
    main = images + PROCESS_BYTES + (0.0 if on_gpu else network)
    free = float(psutil.virtual_memory().available)
    numbers = {"needed": _gigabytes(main), "free": _gigabytes(free)}
    if on_gpu:
        gpu_free = float(torch.cuda.mem_get_info(torch.device(device))[0])
        if network > gpu_free:
            return Finding(
                "memory",
                "fault",
                "The experiment needs about {needed} GB of the GPU's memory; {free} GB are free.",
                "Free the GPU, or ask the server's operator for a smaller training.batch_size.",
                {"needed": _gigabytes(network), "free": _gigabytes(gpu_free)},
            )
    if main > free:
        return Finding(
            "memory",
            "fault",
            "The experiment needs about {needed} GB of memory; {free} GB are free.",
            "End other programs, take a larger machine, or ask the server's operator for a smaller batch_size.",
            numbers,
        )
    if main > 0.7 * free:
        return Finding(
            "memory",
            "warning",
            "The experiment needs about {needed} GB of memory; {free} GB are free: that is tight.",
            "End other programs while the node runs.",
            numbers,
        )
    return Finding(
        "memory", "ok", "The experiment needs about {needed} GB of memory; {free} GB are free.", numbers=numbers
    )


def check_disk(folder: Path, experiment: Experiment | None, cohort: Path | None) -> Finding:
    """Whether there is space for the site's state, and the cache of images where the experiment is known."""
    state = folder / STATE_FOLDER  # may be on a disk of its own
    free = float(shutil.disk_usage(state if state.exists() else folder).free)
    needed = LEAST_FREE_BYTES
    if experiment is not None and cohort is not None:
        images, _ = _needed_bytes(experiment, cohort)
        needed += images + CHECKPOINTS * weight_bytes(experiment, 1)
    numbers = {"needed": _gigabytes(needed), "free": _gigabytes(free)}
    if free < needed:
        return Finding(
            "disk",
            "fault",
            "The kit's disk has {free} GB free; the node needs about {needed} GB.",
            "Free some space, or move the kit to a larger disk.",
            numbers,
            str(folder),
        )
    if free < max(ENOUGH_FREE_BYTES, 2 * needed):
        return Finding(
            "disk",
            "warning",
            "The kit's disk has {free} GB free: enough to start, but it fills with each run.",
            "Free some space soon; old runs lie in state/runs.",
            numbers,
            str(folder),
        )
    return Finding("disk", "ok", "The kit's disk has {free} GB free.", numbers=numbers)


def check_cohort(cohort: Path) -> Finding:
    """How many faults the cohort has; what they are names patients, so it is not said here."""
    faults = sum(finding.severity == "fault" for finding in check_cohort_folder(cohort))
    if faults:
        return Finding(
            "cohort",
            "fault",
            "The cohort has {faults} faults.",
            "See them with: stsmm cohort check COHORT, and mend them.",
            {"faults": faults},
            str(cohort),
        )
    return Finding("cohort", "ok", "The cohort has no fault.")


def _needed_bytes(experiment: Experiment, cohort: Path) -> tuple[float, float]:
    """Bytes of all patients' preprocessed images, and of training the network on a batch."""
    read, _ = parse_cohort(cohort)
    channels = len(read.manifest.channels) if read is not None and "image" in experiment.data.modalities else 0
    if read is None or channels == 0 or experiment.model.kind != "mmnn":
        return 0.0, 0.0
    images = 4.0 * len(read.patients) * channels * float(np.prod(experiment.imaging.shape))
    return images, activation_bytes(experiment, channels) + 4 * weight_bytes(experiment, channels)


def _gigabytes(number: float) -> float:
    return round(number / 1e9, 1)
