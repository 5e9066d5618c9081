"""Signatures of reviewers over an app, in Flower's format: Ed25519 over the app's sha256 and the time."""

import base64
import binascii
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from server.deploy.apps import app_file, digest, packed_app
from server.deploy.folder import ServerFolder
from stsmm_core.errors import StsmmError
from stsmm_core.files import write_text_atomically

Verification = dict[str, Any]
"""Flower's: public_key_id, signature (base64url), signed_at (seconds since 1970)."""
_FIELDS = ("public_key_id", "signature", "signed_at")


class SignatureError(StsmmError):
    """A reviewer's key or signature cannot be used."""


@dataclass(frozen=True)
class Reviewer:
    """A reviewer's key: its id, and the public part as one line in OpenSSH form."""

    id: str
    public_key: str


def make_review_key(out: Path) -> Reviewer:
    """Make a key pair: `out`, readable for its owner only, and the public part in `out`.pub.

    Raises:
        SignatureError: when the file exists or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    reviewer = _reviewer(key.public_key())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private)
        out.with_name(f"{out.name}.pub").write_text(f"{reviewer.public_key} {reviewer.id}\n", encoding="utf-8")
    except FileExistsError:
        raise SignatureError(f"{out} exists already; a key is never written over, choose another name") from None
    except OSError as error:
        raise SignatureError(f"{out}: cannot be written ({error.strerror})") from None
    return reviewer


def sign_app(app: Path, key: Path) -> Path:
    """Sign an app that was reviewed; writes APP.KEYID.signature.json beside it and returns its path.

    Raises:
        SignatureError: when the app or the key cannot be read.
    """
    try:
        private = serialization.load_ssh_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise SignatureError(f"{key}: no reviewer's key; `stsmm server review-key {key}` makes one")
    try:
        content = app.read_bytes()
    except OSError as error:
        raise SignatureError(f"{app}: cannot be read ({error.strerror})") from None
    reviewer = _reviewer(private.public_key())
    signed_at = int(time.time())
    signature = private.sign(_message(content, signed_at))
    verification = {
        "public_key_id": reviewer.id,
        "signature": base64.urlsafe_b64encode(signature).rstrip(b"=").decode(),
        "signed_at": signed_at,
    }
    path = app.with_name(f"{app.stem}.{reviewer.id}.signature.json")
    signed = {"app": digest(content), "public_key": reviewer.public_key} | verification
    write_text_atomically(path, json.dumps(signed, indent=2) + "\n")
    return path


def add_signature(kit: Path, file: Path) -> str:
    """Put a reviewer's signature to the app in the server kit, in the place of an earlier one of the same key; its id.

    Raises:
        StsmmError: when the app is not packed here, or the signature is not one of its bytes.
    """
    folder = ServerFolder(kit)
    folder.settings()
    try:
        signed = json.loads(file.read_text(encoding="utf-8"))
        app, verification = str(signed["app"]), {field: signed[field] for field in _FIELDS}
        public = serialization.load_ssh_public_key(str(signed["public_key"]).encode())
        signature = base64.urlsafe_b64decode(str(signed["signature"]) + "==")
        signed_at = int(signed["signed_at"])
    except (OSError, ValueError, KeyError, TypeError, UnsupportedAlgorithm, binascii.Error):
        raise SignatureError(f"{file}: no signature file of `stsmm server sign`") from None
    content = packed_app(folder, app)
    if not isinstance(public, Ed25519PublicKey) or _reviewer(public).id != verification["public_key_id"]:
        raise SignatureError(f"{file}: the key in it is not the one that it names")
    try:
        public.verify(signature, _message(content, signed_at))
    except InvalidSignature:
        raise SignatureError(
            f"{file}: the signature does not fit {app_file(folder, app).name}; it was changed, or is of another app"
        ) from None
    others = [each for each in read_signatures(folder, app) if each["public_key_id"] != verification["public_key_id"]]
    write_text_atomically(_signatures_file(folder, app), json.dumps([*others, verification], indent=2) + "\n")
    folder.note("signature added", app=app, reviewer=verification["public_key_id"])
    return str(verification["public_key_id"])


def read_signatures(folder: ServerFolder, sha256: str) -> list[Verification]:
    """The signatures of an app; none where nobody signed it.

    Raises:
        SignatureError: when the file is broken.
    """
    path = _signatures_file(folder, sha256)
    if not path.exists():
        return []
    try:
        return [{field: each[field] for field in _FIELDS} for each in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        raise SignatureError(f"{path}: cannot be read; remove it and add the signatures again") from None


def _signatures_file(folder: ServerFolder, sha256: str) -> Path:
    return folder.apps / f"{sha256}.signatures.json"


def _reviewer(key: Ed25519PublicKey) -> Reviewer:
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return Reviewer(f"fpk_{hashlib.sha256(line.encode()).hexdigest()[:32]}", line)


def _message(content: bytes, signed_at: int) -> bytes:
    from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign

    return create_message_to_sign(hashlib.sha256(content).digest(), signed_at)
