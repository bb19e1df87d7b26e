"""How an OPC-UA server is reached, and which of its nodes are which device's: what a user writes.

A path is matched level by level from `Objects`: `*` and `?` stand for text, `{name}` takes what it
finds (`{name:Line*}` only what begins so), `**` is any number of levels.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from pipeline.integrations.dialect import Dialect
from pipeline.part import Part
from pipeline.rulebook.catalogue import Problem
from pipeline.rulebook.connections.connection_config import ConnectionConfig
from pipeline.rulebook.duration import Duration

LIBRARY = "asyncua"
PORT = 4840  # IANA's, of opc.tcp
LEVELS_MAX = 32
_SCHEME = "opc.tcp"
_NODE_ID = re.compile(r"(?:ns=\d{1,5};|nsu=[^;]+;)?[isgb]=.+", re.DOTALL)
_CAPTURE = re.compile(r"\{([a-z][a-z0-9_]*)(?::([^{}]+))?\}")
_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_DEEP = "**"
_TAKEN = frozenset({"status", "times"})  # of an uplink's metadata, beside the path's names
_Text = Annotated[str, StringConstraints(min_length=1, max_length=1_024)]
_Path = Annotated[str, StringConstraints(min_length=1, max_length=4_096)]
Access = Literal["read", "write", "both"]


class SecurityConfig(Part):
    """`policy` and `mode` as the server offers them; our certificate, which it must know; and its
    own, by which we know it (`trust_any` takes whoever answers).
    """

    policy: Literal["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = (
        "Basic256Sha256"
    )
    mode: Literal["sign", "sign_and_encrypt"] = "sign_and_encrypt"
    certificate_file: _Path
    key_file: _Path
    key_password: SecretStr | None = None
    server_certificate_file: str = Field(default="", max_length=4_096)
    trust_any: bool = False

    @model_validator(mode="after")
    def _know_the_server(self) -> Self:
        if bool(self.server_certificate_file) == self.trust_any:
            raise ValueError(
                "name the server's certificate (`server_certificate_file`), or say"
                " `trust_any: true`: then whoever answers is believed"
            )
        return self


class UserCertificateConfig(Part):
    """A user who proves himself by a certificate: another one than that of `security`, which is
    the application's.
    """

    certificate_file: _Path
    key_file: _Path
    key_password: SecretStr | None = None


class Level(NamedTuple):
    """One level of a path: what its name must match, and under which name it is kept. `literal`:
    it stands for one name alone. `deep`: any number of levels.
    """

    pattern: re.Pattern[str]
    name: str
    literal: bool
    deep: bool = False


class NodeConfig(Part):
    """One node: `{id: "ns=2;s=Press1.Temperature", device: press-1, field: temperature}`. The
    id's namespace may be an address, `nsu=http://example.com/press;s=…`, which stays the same when
    the server numbers its namespaces anew.
    """

    id: _Text
    device: _Text
    field: _Text
    access: Access = "both"

    @field_validator("id")
    @classmethod
    def _is_an_id(cls, text: str) -> str:
        if not _NODE_ID.fullmatch(text):
            raise ValueError("must be a node's id, as ns=2;s=Press1.Temperature or i=2258")
        return text


class BrowseConfig(Part):
    """Nodes by their names: `{path: "Objects/{line:Line*}/{device_id}/{field}"}`.

    `device` says how the device is named by names of the path (`"{line}-{press}"`; by default
    `{device_id}`), `field` likewise (by default `{field}`, else the variable's own name).
    """

    path: _Text
    device: str = Field(default="{device_id}", min_length=1, max_length=1_024)
    field: str = Field(default="", max_length=1_024)
    access: Access = "both"

    @field_validator("path")
    @classmethod
    def _is_a_path(cls, path: str) -> str:
        levels = levels_of(path)
        if len(levels) < 2 or levels[0].pattern.fullmatch("Objects") is None:
            raise ValueError("must begin with `Objects/`")
        if len(levels) > LEVELS_MAX:
            raise ValueError(f"has more than {LEVELS_MAX} levels")
        if levels[-1].deep:
            raise ValueError("must end with a variable: `**` stands before the last level")
        names = [level.name for level in levels if level.name]
        if len(names) != len(set(names)):
            raise ValueError("has a name twice")
        if _TAKEN & set(names):
            raise ValueError("`status` and `times` have a meaning of their own: choose other names")
        return path

    @model_validator(mode="after")
    def _names_its_device(self) -> Self:
        known = {level.name for level in levels_of(self.path) if level.name}
        for what, template in (("device", self.device), ("field", self.field)):
            for name in _VARIABLE.findall(template):
                if name not in known:
                    raise ValueError(
                        f"`{what}` needs a level `{{{name}}}` in the path, which has"
                        f" {', '.join(sorted(known)) or 'no names'}"
                    )
        return self

    def device_of(self, names: dict[str, str]) -> str:
        """Return the device's name."""
        return _filled(self.device, names)

    def field_of(self, names: dict[str, str], own: str) -> str:
        """Return the field's name; `own` is the variable's."""
        if self.field:
            return _filled(self.field, names)
        return names.get("field", own)


class OpcuaSourceConfig(ConnectionConfig):
    """An integration's `connection:`, with `transport: opcua`.

    `user` and `password`, or `user_certificate`: as whom we come; without them as nobody.
    `nodes` by id, `browse` by names; of both, `access: write` is only written to, `read` only
    read. `publishing_interval`: how often the server tells what changed; `sampling_interval`: how
    often it looks (by default as often). `queue_size`: values of a node that the server keeps for
    us. `deadband`: smaller changes of a number are not told. `history`: after a reconnect what was
    missed is read again, as far back as `history_max`, of nodes that the server keeps history of.
    `browse_again`: look for new nodes so often. `keepalive`: how often the server must give a sign;
    `silence_max`: so long without a value is a fault.
    """

    server: str = Field(description="as opc.tcp://plc.example.com:4840")
    user: Annotated[str, StringConstraints(max_length=256)] = ""
    password: SecretStr | None = None
    user_certificate: UserCertificateConfig | None = None
    security: SecurityConfig | None = None
    nodes: tuple[NodeConfig, ...] = Field(default=(), max_length=100_000)
    browse: tuple[BrowseConfig, ...] = Field(default=(), max_length=100)
    publishing_interval: Annotated[Duration, Field(ge=0.01, le=3_600)] = 1.0
    sampling_interval: Annotated[Duration, Field(ge=0, le=3_600)] | None = None
    queue_size: Annotated[int, Field(ge=1, le=100_000)] = 100
    deadband: Annotated[float, Field(ge=0)] = 0.0
    history: bool = True
    history_max: Annotated[Duration, Field(gt=0, le=30 * 86_400)] = 86_400.0
    browse_again: Annotated[Duration, Field(ge=10)] | None = None
    nodes_max: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    browsed_max: Annotated[int, Field(ge=1, le=10_000_000)] = 200_000
    notifications_max: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    connect_timeout: Annotated[Duration, Field(gt=0, le=120)] = 10.0
    keepalive: Annotated[Duration, Field(ge=1, le=3_600)] = 10.0
    session_timeout: Annotated[Duration, Field(ge=10, le=86_400)] = 60.0
    silence_max: Annotated[Duration, Field(ge=1)] | None = None

    @field_validator("server")
    @classmethod
    def _is_a_server(cls, server: str) -> str:
        try:
            parts = urlsplit(server)
            port = parts.port
        except ValueError:
            raise ValueError("must be an address as opc.tcp://plc.example.com:4840") from None
        if parts.scheme != _SCHEME or not parts.hostname or port == 0:
            raise ValueError("must be an address as opc.tcp://plc.example.com:4840")
        if parts.username or parts.password:
            raise ValueError("`user` and `password` stand for themselves")
        host = parts.netloc if port else f"{parts.netloc}:{PORT}"
        return parts._replace(netloc=host).geturl()

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        if self.password is not None and not self.user:
            raise ValueError("`password` is that of a `user`: set both")
        if self.user_certificate is not None and self.user:
            raise ValueError("`user` and `user_certificate` are two ways to come: give one")
        if self.user_certificate is not None and self.security is None:
            raise ValueError(
                "`user_certificate` needs `security`: what proves it is a signature of the"
                " server's certificate"
            )
        if not self.nodes and not self.browse:
            raise ValueError("name what to read: `nodes` by id, or `browse` by path")
        if find_spec(LIBRARY) is None:
            raise ValueError("OPC-UA needs a library: pip install 'funicular[opcua]'")
        return self

    @classmethod
    def carries(cls, dialect: Dialect) -> list[Problem]:
        """See `ConnectionConfig`."""
        if dialect.name == "opcua":
            return []
        message = f"{dialect.name} does not come over OPC-UA"
        return [Problem(("transport",), message, "its dialect is `opcua`", 0)]

    @property
    def one_owner(self) -> bool:
        """Two subscriptions of the same nodes would bring everything twice."""
        return True

    def together(self, dialect: Dialect, options: Any) -> list[Problem]:  # noqa: ARG002
        """See `ConnectionConfig`."""
        if self.password is not None and self.security is None:
            message = "the password may go over the network as it is: there is no `security`"
            return [Problem(("connection", "password"), message, "", 0, warns=True)]
        return []

    @classmethod
    def template(cls, dialect: Dialect, variable: str) -> list[str]:  # noqa: ARG003
        """See `ConnectionConfig`."""
        return [
            "  server: opc.tcp://plc.example.com:4840",
            f'  user: "${{env:{variable}_USER}}"',
            f'  password: "${{env:{variable}_PASSWORD}}"',
            "  # security:                  # encrypted, where the server can",
            "  #   certificate_file: own.pem",
            "  #   key_file: own.key",
            "  #   server_certificate_file: plc.der",
            "  browse:",
            '    - path: "Objects/{line:Line*}/{device_id}/{field}"   # your server\'s names',
            "  # nodes:",
            '  #   - {id: "ns=2;s=Press1.Temperature", device: press-1, field: temperature}',
            "  # publishing_interval: 1s",
            "  # queue_size: 100            # values of a node that the server keeps for us",
            "  # silence_max: 1h            # so long without a value is a fault",
        ]


@lru_cache(maxsize=1_024)
def levels_of(path: str) -> tuple[Level, ...]:
    """Return a path's levels. ValueError: one is none."""
    levels = []
    for text in path.split("/"):
        capture = _CAPTURE.fullmatch(text)
        if text == _DEEP:
            levels.append(Level(re.compile(".*"), "", literal=False, deep=True))
            continue
        name = capture[1] if capture else ""
        glob = (capture[2] or "*") if capture else text
        if not glob or any(sign in glob for sign in "{}") or _DEEP in glob:
            raise ValueError(
                f"the level `{text}` must be a name with `*` or `?`, `{{name}}`, `{{name:glob}}`"
                " or `**`"
            )
        levels.append(Level(_pattern(glob), name, literal=not set(glob) & set("*?")))
    return tuple(levels)


def _pattern(glob: str) -> re.Pattern[str]:
    """Return a glob as a regular expression; other signs than `*` and `?` mean themselves."""
    text = re.escape(glob).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(text, re.DOTALL)


def _filled(template: str, names: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda found: names[found[1]], template)
