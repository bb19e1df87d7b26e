"""`device:` of a connection: how bytes without an envelope say whose they are, and prove it.

In: a message, or a connection's first frame. Out: the device's name, its token, the rest.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, SecretStr, Tag

from pipeline.errors import MessageError
from pipeline.integrations.dialect import check_device_name
from pipeline.part import Part
from pipeline.rulebook.connections.octets import Octets

TOKENS_MAX = 10_000


class Named(NamedTuple):
    """Whose a message is. `name` empty: it does not say."""

    name: str
    token: str
    body: bytes


class FieldNaming(Part):
    """`{offset: 0, length: 8, as: hex}`: these bytes of each message name it, in hexadecimal of
    lower case or as text. They stay in the message.
    """

    offset: Annotated[int, Field(ge=0, le=65_535)] = 0
    length: Annotated[int, Field(ge=1, le=255)]
    as_: Annotated[Literal["hex", "text"], Field(alias="as")] = "hex"

    def read(self, message: bytes) -> Named:
        """Return whose a message is."""
        found = message[self.offset : self.offset + self.length]
        whole = len(found) == self.length
        name = (found.hex() if self.as_ == "hex" else _text(found)) if whole else ""
        return Named(_checked(name), "", message)

    def write(self, name: str, token: str, body: bytes) -> bytes:  # noqa: ARG002 - has no token
        """Return a message of a device. MessageError: the name does not fit there."""
        try:
            found = bytes.fromhex(name) if self.as_ == "hex" else name.encode()
        except ValueError:
            found = b""
        if len(found) != self.length:
            raise MessageError(
                f"`{name}` is not {self.length} bytes as {self.as_}", code="device_name"
            )
        return body[: self.offset].ljust(self.offset, b"\0") + found + body[self.offset :]


class HeadNaming(Part):
    """`{head: ";"}`: each message begins with the name, then these bytes; they are taken off.
    Where there are tokens, `name;token;` comes before the message.
    """

    head: Octets

    def read(self, message: bytes, *, token: bool) -> Named:
        """Return whose a message is."""
        parts = message.split(self.head, 2 if token else 1)
        if len(parts) != (3 if token else 2):
            return Named("", "", message)
        return Named(_checked(_text(parts[0])), _text(parts[1]) if token else "", parts[-1])

    def write(self, name: str, token: str, body: bytes) -> bytes:
        """Return a message of a device."""
        said = [name.encode(), token.encode()] if token else [name.encode()]
        return self.head.join([*said, body])


class HandshakeNaming(Part):
    """`{handshake: " "}`: the first frame of a connection is the name, and, after these bytes, the
    token where there are any; it is no message.
    """

    handshake: Octets

    def read(self, frame: bytes) -> Named:
        """Return who connects."""
        name, _, token = frame.partition(self.handshake)
        return Named(_checked(_text(name).strip()), _text(token).strip(), b"")

    def write(self, name: str, token: str) -> bytes:
        """Return the first frame."""
        return name.encode() + (self.handshake + token.encode() if token else b"")


def _kind(value: Any) -> str | None:
    if value == "peer":
        return "peer"
    keys = value if isinstance(value, dict) else getattr(type(value), "model_fields", ())
    for key in ("head", "handshake"):
        if key in keys:
            return key
    return "field" if "length" in keys else None


DeviceNaming = Annotated[
    Annotated[Literal["peer"], Tag("peer")]
    | Annotated[HeadNaming, Tag("head")]
    | Annotated[HandshakeNaming, Tag("handshake")]
    | Annotated[FieldNaming, Tag("field")],
    Discriminator(
        _kind,
        custom_error_type="device",
        custom_error_message=(
            "must be `peer`, or one of `{offset: 0, length: 8, as: hex}`, `{head: …}`, "
            "`{handshake: …}`"
        ),
    ),
]
"""A field that takes any of them; `peer`: the address that it comes from is the name."""


class Tokens(Part):
    """Who may send: `token` is everybody's, `tokens` are each device's own."""

    token: SecretStr | None = None
    tokens: Annotated[dict[str, SecretStr], Field(max_length=TOKENS_MAX)] = {}

    @property
    def wanted(self) -> bool:
        """Whether a device must show one."""
        return self.token is not None or bool(self.tokens)

    def of(self, name: str) -> str:
        """Return the token that a device shows; empty: it needs none, or has none."""
        own = self.tokens.get(name, self.token)
        return own.get_secret_value() if own is not None else ""

    def proven(self, name: str, token: str) -> bool:
        """Return whether a device may send, in a time that tells nothing of its token."""
        if not self.wanted:
            return True
        wanted = self.of(name)
        return compare_digest(wanted.encode(), token.encode()) and bool(wanted)


def _text(found: bytes) -> str:
    """Return text; of bytes that are none, an empty one."""
    try:
        return found.decode()
    except UnicodeDecodeError:
        return ""


def _checked(name: str) -> str:
    """Return a name that a device can have, else an empty one."""
    try:
        check_device_name(name)
    except MessageError:
        return ""
    return name
