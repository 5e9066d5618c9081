"""reviewers.yaml: whose signatures of an app count. Flower's format; the comment of a key is the reviewer's site."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign, decode_base64url, verify_signature

from stsmm_core.errors import ConfigError
from stsmm_core.files import write_text_atomically
from stsmm_core.kit import REVIEWERS_FILE


@dataclass(frozen=True)
class Reviewer:
    """Somebody whose signature counts, for one site however many keys it has."""

    site: str
    line: str
    """The key in OpenSSH form, with the site as comment."""

    @property
    def key(self) -> Ed25519PublicKey:
        """The public key."""
        key = load_ssh_public_key(self.line.encode())
        assert isinstance(key, Ed25519PublicKey)
        return key


def read_reviewers(kit: Path) -> dict[str, Reviewer]:
    """Reviewers by the id of their key.

    Raises:
        ConfigError: naming the file and the key that is none.
    """
    path = kit / REVIEWERS_FILE
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"{path}: not valid YAML; `stsmm site approve` writes this file") from None
    if not isinstance(entries, dict):
        raise ConfigError(f"{path}: must name keys by id; `stsmm site approve` writes this file")
    return {str(key): _reviewer(str(line), f"{path}: key '{key}'") for key, line in entries.items()}


def add_reviewer(kit: Path, key: str, file: Path, site: str) -> None:
    """Trust a key: `file` is its public part in OpenSSH form."""
    try:
        words = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{file}: cannot be read; it must hold a line 'ssh-ed25519 KEY'") from None
    reviewer = _reviewer(" ".join([*words[:2], site]), str(file))
    _write(kit, read_reviewers(kit) | {key: reviewer})


def remove_reviewer(kit: Path, key: str) -> None:
    """Trust a key no more."""
    reviewers = read_reviewers(kit)
    if key not in reviewers:
        raise ConfigError(f"{kit / REVIEWERS_FILE}: no key '{key}'; there are {', '.join(reviewers) or 'none'}")
    _write(kit, {name: reviewer for name, reviewer in reviewers.items() if name != key})


def signing_sites(digest: bytes, signatures: Mapping[str, str], reviewers: Mapping[str, Reviewer]) -> set[str]:
    """Sites of the trusted reviewers whose signature of an app is valid.

    Args:
        digest: sha256 of the app.
        signatures: JSON with `signature` and `signed_at` by id of the key, as Flower hands them on.
    """
    sites = set()
    for key, reviewer in reviewers.items():
        try:
            signed = json.loads(signatures[key])
            message = create_message_to_sign(digest, signed["signed_at"])
            if verify_signature(reviewer.key, message, decode_base64url(signed["signature"])):
                sites.add(reviewer.site)
        except Exception:  # whatever is wrong with it, it is no signature
            continue
    return sites


def _reviewer(line: str, where: str) -> Reviewer:
    words = line.split()
    try:
        if len(words) != 3 or not isinstance(load_ssh_public_key(line.encode()), Ed25519PublicKey):
            raise ValueError
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{where}: must be 'ssh-ed25519 KEY SITE', an Ed25519 public key and its site") from None
    return Reviewer(words[2], line)


def _write(kit: Path, reviewers: Mapping[str, Reviewer]) -> None:
    write_text_atomically(
        kit / REVIEWERS_FILE, yaml.safe_dump({key: reviewer.line for key, reviewer in reviewers.items()})
    )
