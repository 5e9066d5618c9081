"""What runs at the sites: packed, signed, and handed to the SuperLink."""

import json
import stat

import pytest
import requests
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign, decode_base64url, verify_signature
from flwr.supercore.utils import parse_app_spec, request_download_link

from server.deploy import apps
from server.deploy.app_service import app_service
from server.deploy.folder import ServerFolder
from server.deploy.signatures import SignatureError, add_signature, make_review_key, read_signatures, sign_app
from stsmm_core.audit.chain import verify
from stsmm_core.errors import RunError


@pytest.fixture
def kit(kits):
    return kits / "server"


@pytest.fixture
def app(kit):
    """An app of a few bytes: what it holds does not matter here."""
    folder = ServerFolder(kit)
    path = apps.app_file(folder, apps.digest(b"an app"))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"an app")
    return path


def test_the_same_code_makes_the_same_app(kit):
    first = apps.pack(kit)
    content = first.read_bytes()
    assert apps.pack(kit) == first
    assert apps.build_app() == content
    assert apps.digest(content) == first.stem
    assert verify(kit / "state" / "audit.jsonl") == 2  # provisioned, packed once


@pytest.mark.parametrize("sha256", ["0" * 63 + "1", "f" * 64, "00ab" * 16])
def test_flower_carries_the_hash_as_a_version(sha256):
    app_id, version = parse_app_spec(apps.specification(sha256))
    assert app_id == apps.APP_ID
    assert apps.sha256_of_version(version) == sha256


@pytest.mark.parametrize("version", ["1.2.3", "0.0.", "0.0.-1", f"0.0.{1 << 256}", "../../etc"])
def test_other_versions_name_no_app(version):
    found = apps.sha256_of_version(version)
    assert found is None


def test_a_changed_app_is_refused(kit, app):
    app.write_bytes(b"an app with something added")
    with pytest.raises(RunError, match="was changed"):
        apps.packed_app(ServerFolder(kit), app.stem)


def test_a_signature_verifies_as_flower_verifies_it(kit, app, tmp_path):
    reviewer = make_review_key(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert add_signature(kit, sign_app(app, tmp_path / "key")) == reviewer.id
    [verification] = read_signatures(ServerFolder(kit), app.stem)
    message = create_message_to_sign(bytes.fromhex(app.stem), verification["signed_at"])
    key = load_ssh_public_key(reviewer.public_key.encode())
    assert verify_signature(key, message, decode_base64url(verification["signature"]))
    assert verification["public_key_id"] == reviewer.id
    with pytest.raises(SignatureError, match="never written over"):
        make_review_key(tmp_path / "key")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("signed_at", 5, "does not fit"), ("public_key_id", "fpk_other", "not the one"), ("signature", 7, "does not fit")],
)
def test_a_changed_signature_is_refused(kit, app, tmp_path, field, value, said):
    make_review_key(tmp_path / "key")
    file = sign_app(app, tmp_path / "key")
    signed = json.loads(file.read_text()) | {field: value}
    if field == "signature":
        signed["signature"] = "A" * 86
    file.write_text(json.dumps(signed))
    with pytest.raises(SignatureError, match=said):
        add_signature(kit, file)
    assert read_signatures(ServerFolder(kit), app.stem) == []


def test_the_app_service_answers_flower(kit, app, tmp_path):
    make_review_key(tmp_path / "key")
    reviewer = add_signature(kit, sign_app(app, tmp_path / "key"))
    app_id, version = parse_app_spec(apps.specification(app.stem))
    with app_service(ServerFolder(kit)) as address:
        url, verifications, _ = request_download_link(app_id, version, f"{address}/hub/fetch-fab", "fab_url")
        assert url.startswith("http://127.0.0.1:")
        assert requests.get(url, timeout=5).content == b"an app"
        assert [each["public_key_id"] for each in verifications] == [reviewer]
        with pytest.raises(ValueError, match="not found"):
            request_download_link(app_id, "1.2.3", f"{address}/hub/fetch-fab", "fab_url")
        app.write_bytes(b"other")
        assert requests.get(url, timeout=5).status_code == 404
