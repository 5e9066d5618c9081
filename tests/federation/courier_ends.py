"""The two ends of a courier, with keys and certificates made for the test."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run

from client.node.courier import SiteDesk
from server.deploy.courier import CourierDesk
from stsmm_core.courier.parcel import Parcel

CONSORTIUM = "sarcoma-2026"
HOST = "stsmm.example.org"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


@dataclass(frozen=True)
class Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def issue(self, key: ec.EllipticCurvePrivateKey, *, host: str = HOST, days: tuple[int, int] = (-1, 30)) -> str:
        """A server certificate, PEM; `days`: from when to when, counted from now."""
        certificate = (
            _certificate(key, "server", self.certificate.subject, days)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self.key, hashes.SHA384())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode()


def new_authority() -> Authority:
    key = new_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, CONSORTIUM)])
    return Authority(key, _certificate(key, CONSORTIUM, name, (-1, 3650)).sign(key, hashes.SHA384()))


def _certificate(key, name, issuer, days) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )


@dataclass(frozen=True)
class Ends:
    authority: Authority
    server: CourierDesk
    site: SiteDesk


def new_ends(folder: Path, site: str = "leiden") -> Ends:
    authority, server_key, site_key = new_authority(), new_key(), new_key()
    return Ends(
        authority,
        CourierDesk(
            consortium=CONSORTIUM,
            site=site,
            certificate=authority.issue(server_key),
            sign=server_key,
            reply=new_key(),
            site_key=site_key.public_key(),
            folder=folder / "exchange",
            state=folder / "server",
            audit=folder / "server" / "audit.jsonl",
        ),
        SiteDesk(
            consortium=CONSORTIUM,
            site=site,
            host=HOST,
            authority=authority.certificate,
            key=site_key,
            state=folder / "site",
            audit=folder / "site" / "audit.jsonl",
        ),
    )


def wrapped(message: Message) -> tuple[Message, ObjectTree, dict[str, bytes]]:
    """A message as Flower's server hands it to a node: without content, with the tree and the objects."""
    tree = get_object_tree(message)
    objects = {name: each.deflate() for name, each in get_all_nested_objects(message).items()}
    return message, tree, objects


def parcel_to_server(reply: Message) -> Parcel:
    """What a node sends for a reply of the app."""
    message, tree, objects = wrapped(reply)
    return Parcel(message_to_proto(message).SerializeToString(), tree.SerializeToString(), objects, seconds=1.5)


def message_in(parcel: Parcel) -> Message:
    """The message that a parcel holds, as the app sees it; its numbers come from the objects alone."""
    message = inflate_object_from_contents(ObjectTree.FromString(parcel.tree).object_id, dict(parcel.objects))
    assert isinstance(message, Message)
    named = message_from_proto(ProtoMessage.FromString(parcel.message)).metadata
    message.metadata.__dict__["_message_id"] = named.message_id
    return message


def run_of(message: Message, config: dict[str, str]) -> Run:
    run = Run.create_empty(message.metadata.run_id)
    run.override_config.update(config)
    return run


APP = Fab("0" * 64, b"app", {})
