"""What one courier file carries: a message of Flower in parts, as bytes, and with the way out the run and its app."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stsmm_core.errors import StsmmError


class CourierError(StsmmError):
    """A courier file cannot be used."""


@dataclass(frozen=True, eq=False)
class Parcel:
    """A message as Flower's node and server hand it to each other.

    Attributes:
        message: protobuf of the message without its content.
        tree: protobuf of the tree of its objects.
        objects: the content, by the sha256 that the tree names.
        run: protobuf of the run with its configuration; empty on the way back.
        app: protobuf of the app with its signatures; empty on the way back.
        seconds: how long the site worked on the answer; 0 on the way out.
    """

    message: bytes
    tree: bytes
    objects: Mapping[str, bytes] = field(default_factory=dict)
    run: bytes = b""
    app: bytes = b""
    seconds: float = 0.0


Length = Annotated[int, Field(ge=0)]


class _Contents(BaseModel):
    """Lengths in bytes of the parts, in the order in which they follow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    message: Length
    tree: Length
    run: Length
    app: Length
    objects: list[tuple[str, Length]]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


def pack(parcel: Parcel) -> bytes:
    """A parcel as bytes: length and JSON of the contents, then the parts. Nothing in it is run by who unpacks it."""
    parts = (parcel.message, parcel.tree, parcel.run, parcel.app)
    message, tree, run, app = (len(part) for part in parts)
    objects = [(name, len(content)) for name, content in parcel.objects.items()]
    contents = _Contents(message=message, tree=tree, run=run, app=app, objects=objects, seconds=parcel.seconds)
    index = json.dumps(contents.model_dump()).encode()
    return b"".join([struct.pack(">Q", len(index)), index, *parts, *parcel.objects.values()])


def unpack(data: bytes) -> Parcel:
    """The parcel that was packed.

    Raises:
        CourierError: when the bytes are none.
    """
    try:
        (length,) = struct.unpack_from(">Q", data)
        contents = _Contents.model_validate_json(data[8 : 8 + length])
    except (struct.error, ValidationError):
        raise _no_parcel() from None
    lengths = [contents.message, contents.tree, contents.run, contents.app, *(size for _, size in contents.objects)]
    place = 8 + length
    if place + sum(lengths) != len(data):
        raise _no_parcel()
    parts = []
    for size in lengths:
        parts.append(data[place : place + size])
        place += size
    message, tree, run, app, *objects = parts
    names = [name for name, _ in contents.objects]
    return Parcel(message, tree, dict(zip(names, objects, strict=True)), run, app, contents.seconds)


def _no_parcel() -> CourierError:
    return CourierError("the courier file holds no message; was it made by another version of stsmm?")
