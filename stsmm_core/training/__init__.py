"""Gradient blending, the trainer, checkpoints and the experiment that ties them together."""
