"""The kit on this machine: whole, private, set up, in use."""

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from client.node.preflight.finding import Finding
from stsmm_core.kit import (
    KIT_FILE,
    NODE_KEY_FILE,
    NODE_PUBLIC_KEY_FILE,
    STATE_FOLDER,
    KitError,
    SiteKit,
    read_kit,
    verify_kit,
)


class NodeKeyError(KitError):
    """The node's key cannot be used."""


def check_kit_file(folder: Path) -> Finding:
    """Whether the folder is a site's kit."""
    try:
        read_kit(folder, SiteKit)
    except (KitError, OSError) as error:
        return Finding(
            "kit",
            "fault",
            "The folder is not a site's kit, or its kit.toml cannot be read.",
            "Give the folder that was unpacked from the kit; if it is that one, unpack the kit again.",
            detail=str(error),
        )
    return Finding("kit", "ok", "The folder is a site's kit.", detail=str(folder / KIT_FILE))


def check_unchanged(folder: Path) -> Finding:
    """Whether every file that nobody edits is as the server's operator made it."""
    try:
        verify_kit(folder)
    except (KitError, OSError) as error:
        return Finding(
            "kit unchanged",
            "fault",
            "The kit is not as it was sent: a file was changed, is missing, was added, or can be read by others.",
            "Remove what was added; else unpack the kit again, and keep your site.toml, reviewers.yaml and state.",
            detail=str(error),
        )
    return Finding("kit unchanged", "ok", "The kit is as it was sent.")


def check_permissions(folder: Path) -> Finding:
    """Whether the key is its owner's only, and the node can write its state."""
    key = folder / NODE_KEY_FILE
    try:
        mode = stat.S_IMODE(key.stat().st_mode)
    except OSError:
        return Finding(
            "permissions",
            "fault",
            "The private key of the node (node.key) is missing.",
            "If the kit came without it, make it: stsmm site keygen KIT. If it was in the kit, unpack the kit again.",
            detail=str(key),
        )
    if mode & 0o077:
        return Finding(
            "permissions",
            "fault",
            "Other users of this machine can read or change the node's private key.",
            "chmod 600 node.key. If others could have copied it, ask the server's operator for a new key.",
            detail=str(key),
        )
    if not os.access(key, os.R_OK):
        return Finding(
            "permissions",
            "fault",
            "This user cannot read the node's private key.",
            "Run stsmm as the user who owns the kit, or change its owner.",
            detail=str(key),
        )
    state = folder / STATE_FOLDER
    if not os.access(state if state.exists() else folder, os.W_OK | os.X_OK):
        return Finding(
            "permissions",
            "fault",
            "This user cannot write to the kit's state folder.",
            "Run stsmm as the user who owns the kit, or change its owner.",
            detail=str(state),
        )
    if stat.S_IMODE(folder.stat().st_mode) & 0o022:
        return Finding(
            "permissions",
            "warning",
            "Other users of this machine can change files of the kit.",
            "chmod 700 the kit's folder.",
            detail=str(folder),
        )
    return Finding("permissions", "ok", "The key and the kit are private.")


def load_node_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """The node's private key.

    Raises:
        NodeKeyError: when it cannot be read, is of another kind or has a passphrase.
    """
    try:
        key = load_ssh_private_key((folder / NODE_KEY_FILE).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise NodeKeyError(f"{folder / NODE_KEY_FILE}: not a readable key without passphrase ({error})") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise NodeKeyError(f"{folder / NODE_KEY_FILE}: not a key of the kind EC P-384")
    return key


def check_node_key(folder: Path) -> Finding:
    """Whether node.key is a key that Flower takes, and node.pub its public part."""
    try:
        key = load_node_key(folder)
    except NodeKeyError as error:
        return Finding(
            "node key",
            "fault",
            "The private key of the node cannot be used.",
            "It must be an EC P-384 key in OpenSSH form without passphrase: take the kit's, or make yours again.",
            detail=str(error),
        )
    try:
        public = load_ssh_public_key((folder / NODE_PUBLIC_KEY_FILE).read_bytes())
    except (OSError, ValueError) as error:
        return Finding(
            "node key",
            "fault",
            "The public key of the node (node.pub) is missing or cannot be read.",
            "ssh-keygen -y -f node.key > node.pub",
            detail=str(error),
        )
    if public != key.public_key():
        return Finding(
            "node key",
            "fault",
            "The private and the public key of the node do not belong together.",
            "Put back the private key that belongs to node.pub, whose fingerprint the server knows.",
        )
    return Finding("node key", "ok", "The node's keys belong together.")


def check_running(*, running: bool) -> Finding:
    """Whether a node runs from this kit already."""
    if running:
        return Finding("this node", "ok", "The node of this kit is running.")
    return Finding("this node", "ok", "No node runs from this kit yet.")
