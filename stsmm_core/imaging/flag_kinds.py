"""What can be odd about a patient's images. Without imports of its own, for those that only count."""

from typing import Literal, get_args

FlagKind = Literal["border", "parts", "volume", "contrast", "spacing", "grid", "coverage", "registration"]
FLAG_KINDS: tuple[FlagKind, ...] = get_args(FlagKind)
KINDS_AS_READ: tuple[FlagKind, ...] = ("border", "parts", "volume", "contrast", "spacing")
"""Seen on the images as read; the others depend on `imaging`, which a server chooses: they stay at the site."""
