"""What an operator sets of Kafka: where it is, who we are to it, and the limits.

In: a URL, `kafka://host1:9092,host2:9092?prefix=…`, and `FUNICULAR_KAFKA_…` in the environment.
Out: options for aiokafka and for confluent-kafka. Secrets come from the environment alone (or from
files that it names), and are in no repr, log line or error.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

from pipeline.errors import UsageError

MIB = 1024 * 1024
ENVIRONMENT = "FUNICULAR_KAFKA_"
SCHEME = "kafka://"
PORT = 9092
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How a connection is made safe, and who we are on it. Paths are those of PEM files.

    `ssl_certificate` and `ssl_key` are ours, for mutual TLS. `ssl_ca` empty: the system's own.
    """

    protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    ssl_ca: str = ""
    ssl_certificate: str = ""
    ssl_key: str = ""
    ssl_key_password: str = field(default="", repr=False)
    ssl_check_hostname: bool = True

    @property
    def encrypted(self) -> bool:
        """Whether the connection is TLS."""
        return self.protocol in {"SSL", "SASL_SSL"}

    @property
    def sasl(self) -> bool:
        """Whether we say who we are by name and password."""
        return self.protocol.startswith("SASL_")

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Self:
        """Read `FUNICULAR_KAFKA_SECURITY_PROTOCOL`, `…_SASL_…`, `…_SSL_…`.

        Where no protocol is said, the others say it: with a user name SASL_SSL (so that no
        password is ever sent in the clear by default), with a file for TLS alone SSL. UsageError:
        what is wrong; it names variables, never their values where those may be secrets.
        """
        given = {name: _variable(env, name) for name in _SECURITY_NAMES}
        if given["SECURITY_PROTOCOL"]:
            protocol = given["SECURITY_PROTOCOL"].upper()
        elif given["SASL_USERNAME"] or given["SASL_PASSWORD"]:
            protocol = "SASL_SSL"
        elif given["SSL_CA"] or given["SSL_CERTIFICATE"]:
            protocol = "SSL"
        else:
            protocol = "PLAINTEXT"
        found = cls(
            protocol=protocol,
            sasl_mechanism=(given["SASL_MECHANISM"] or "PLAIN").upper(),
            sasl_username=given["SASL_USERNAME"],
            sasl_password=given["SASL_PASSWORD"],
            ssl_ca=given["SSL_CA"],
            ssl_certificate=given["SSL_CERTIFICATE"],
            ssl_key=given["SSL_KEY"],
            ssl_key_password=given["SSL_KEY_PASSWORD"],
            ssl_check_hostname=_flag("SSL_CHECK_HOSTNAME", given["SSL_CHECK_HOSTNAME"] or "true"),
        )
        found.check()
        return found

    def check(self) -> None:
        """UsageError: the parts do not fit together, or a file is not there."""
        _one_of("SECURITY_PROTOCOL", self.protocol, PROTOCOLS)
        if self.sasl:
            _one_of("SASL_MECHANISM", self.sasl_mechanism, MECHANISMS)
            for name, value in (
                ("SASL_USERNAME", self.sasl_username),
                ("SASL_PASSWORD", self.sasl_password),
            ):
                if not value:
                    raise UsageError(f"{ENVIRONMENT}{name} is missing; {self.protocol} needs it")
        elif self.sasl_username or self.sasl_password:
            raise UsageError(
                f"{ENVIRONMENT}SASL_USERNAME is set, but {ENVIRONMENT}SECURITY_PROTOCOL is"
                f" {self.protocol}; set it to SASL_SSL (or SASL_PLAINTEXT), or leave it out"
            )
        files = {
            "SSL_CA": self.ssl_ca,
            "SSL_CERTIFICATE": self.ssl_certificate,
            "SSL_KEY": self.ssl_key,
        }
        for name, path in files.items():
            if path and not self.encrypted:
                raise UsageError(
                    f"{ENVIRONMENT}{name} is set, but {ENVIRONMENT}SECURITY_PROTOCOL is"
                    f" {self.protocol}; set it to SSL or SASL_SSL"
                )
            if path and not Path(path).is_file():
                raise UsageError(f"{ENVIRONMENT}{name} names {path}; there is no such file")
        if self.ssl_key and not self.ssl_certificate:
            raise UsageError(f"{ENVIRONMENT}SSL_KEY is set without {ENVIRONMENT}SSL_CERTIFICATE")

    def context(self) -> ssl.SSLContext | None:
        """Return what TLS needs in Python; None: no TLS. UsageError: a file is not usable."""
        if not self.encrypted:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ssl_ca or None)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(
                f"{ENVIRONMENT}SSL_CA: {self.ssl_ca} is no file of certificates: {error}"
            ) from None
        context.check_hostname = self.ssl_check_hostname
        if self.ssl_certificate:
            try:
                # A function, since OpenSSL would ask on the terminal for what is not given.
                context.load_cert_chain(
                    self.ssl_certificate, self.ssl_key or None, lambda: self.ssl_key_password
                )
            except (ssl.SSLError, OSError) as error:
                raise UsageError(
                    f"{ENVIRONMENT}SSL_CERTIFICATE, {ENVIRONMENT}SSL_KEY: they do not fit each"
                    f" other, or {ENVIRONMENT}SSL_KEY_PASSWORD does not open the key ({error})"
                ) from None
        return context


_SECURITY_NAMES = (
    "SECURITY_PROTOCOL", "SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD", "SSL_CA",
    "SSL_CERTIFICATE", "SSL_KEY", "SSL_KEY_PASSWORD", "SSL_CHECK_HOSTNAME",
)  # fmt: skip
_SECRETS = ("SASL_PASSWORD", "SSL_KEY_PASSWORD")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """The cluster, our topics there, and the limits of the asyncio edges.

    `prefix` stands before each topic's name, so that several installations share a cluster.
    `partitions`, `replication` (0: the cluster's default) and `min_insync_replicas` (0: likewise)
    are what `topics create` makes and `topics check` expects.
    `default_integration` (`tenant/integration`) is whose the records of `uplink.received` are that
    say it neither by headers nor by their key.
    """

    bootstrap: str = f"localhost:{PORT}"
    security: Security = field(default_factory=Security)
    prefix: str = ""
    partitions: int = 12
    replication: int = 0
    min_insync_replicas: int = 0
    default_integration: str = ""
    client_id: str = "funicular"
    # Of one record with its key and headers; topics are made for as much (`max.message.bytes`).
    # An event is larger than the body that it came from: base64, decoded fields.
    record_bytes_max: int = 8 * MIB
    # An append that is not acknowledged by then fails; the door answers 503.
    append_timeout_s: float = 10.0
    # For a single request to a broker, and for its wait for the other replicas.
    request_timeout_s: float = 10.0
    # At the start; and for a reader to find the end of its topic.
    connect_timeout_s: float = 30.0
    # How soon new topics, partitions and leaders are seen where no error tells of them.
    metadata_max_age_s: float = 10.0
    # Appends to one partition share a request of at most this size; `queue_bytes_max` of all may
    # wait, the next ones wait outside.
    batch_bytes_max: int = 512 * 1024
    queue_bytes_max: int = 64 * MIB
    # Of one fetch, all partitions and each; a reader holds about twice as much.
    fetch_bytes_max: int = 8 * MIB
    partition_fetch_bytes_max: int = 1 * MIB
    # A member of a group that is not heard of for `session_timeout_s` is out; a rebalance waits
    # `rebalance_timeout_s` for members that finish what is in flight.
    session_timeout_s: float = 10.0
    heartbeat_s: float = 3.0
    rebalance_timeout_s: float = 30.0
    commit_timeout_s: float = 5.0
    # A reader that gets nothing for so long, while there is something, is made anew.
    stall_s: float = 20.0
    retry_first_s: float = 0.2
    retry_max_s: float = 5.0

    @classmethod
    def from_url(cls, url: str, env: Mapping[str, str]) -> Self:
        """Read `kafka://host:port,host:port?prefix=…&partitions=…` and the environment.

        What the URL's query may say, `FUNICULAR_KAFKA_<NAME>` says too; the URL goes first.
        UsageError: what is wrong, and what to write instead.
        """
        addresses, query = _split(url)
        known = {each.name: each.type for each in fields(cls)}
        said = {
            name: env[variable]
            for name in known
            if (variable := ENVIRONMENT + name.upper()) in env and name not in _NOT_IN_URLS
        }
        for name, text in query:
            if name not in known or name in _NOT_IN_URLS:
                allowed = ", ".join(sorted(known.keys() - _NOT_IN_URLS))
                raise UsageError(
                    f"{SCHEME}…?{name}= is not known; there are {allowed}; security is set by"
                    f" {ENVIRONMENT}… in the environment"
                )
            said[name] = text
        values: dict[str, Any] = {
            name: _number(name, text, str(known[name])) for name, text in said.items()
        }
        found = cls(
            bootstrap=",".join(addresses), security=Security.from_environment(env), **values
        )
        found.check()
        return found

    def check(self) -> None:
        """UsageError: a value that cannot be."""
        for each in fields(self):
            value = getattr(self, each.name)
            least = 0 if each.name in {"replication", "min_insync_replicas"} else 1e-9
            if isinstance(value, int | float) and value < least:
                raise UsageError(f"Kafka's {each.name} is {value}; it must be more than that")
        if self.prefix and not all(
            c.isascii() and (c.isalnum() or c in "._-") for c in self.prefix
        ):
            raise UsageError(
                f"The prefix {self.prefix!r} cannot be in a topic's name; there may be letters,"
                " digits, dot, underscore, minus"
            )
        tenant, _, integration = self.default_integration.partition("/")
        if self.default_integration and not (tenant and integration):
            raise UsageError(
                f"default_integration is {self.default_integration!r}; write tenant/integration"
            )

    def topic(self, name: str) -> str:
        """Return the name on the cluster of one of our topics."""
        return self.prefix + name

    def name(self, topic: str) -> str:
        """Return our name of a topic of the cluster."""
        return topic.removeprefix(self.prefix)

    def group(self, name: str) -> str:
        """Return the id on the cluster of one of our consumer groups."""
        return self.prefix + name

    def with_prefix(self, prefix: str) -> Self:
        """Return the same for other topics."""
        return replace(self, prefix=prefix)

    def aiokafka(self) -> dict[str, Any]:
        """Return the options of every aiokafka client. UsageError: a file is not usable."""
        security = self.security
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap.split(","),
            "client_id": self.client_id,
            "security_protocol": security.protocol,
            "ssl_context": security.context(),
            "request_timeout_ms": round(self.request_timeout_s * 1_000),
            "metadata_max_age_ms": round(self.metadata_max_age_s * 1_000),
        }
        if security.sasl:
            options["sasl_mechanism"] = security.sasl_mechanism
            options["sasl_plain_username"] = security.sasl_username
            options["sasl_plain_password"] = security.sasl_password
        return options

    def confluent(self) -> dict[str, Any]:
        """Return the options of every confluent-kafka client: connection and security alone.

        The result holds secrets; hand it to the client and nowhere else.
        """
        security = self.security
        options: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap,
            "client.id": self.client_id,
            "security.protocol": security.protocol,
        }
        if security.sasl:
            options["sasl.mechanism"] = security.sasl_mechanism
            options["sasl.username"] = security.sasl_username
            options["sasl.password"] = security.sasl_password
        if security.encrypted:
            given = {
                "ssl.ca.location": security.ssl_ca,
                "ssl.certificate.location": security.ssl_certificate,
                # One file may hold both, as Python's client takes it.
                "ssl.key.location": security.ssl_key or security.ssl_certificate,
                "ssl.key.password": security.ssl_key_password,
            }
            options |= {name: value for name, value in given.items() if value}
            check = "https" if security.ssl_check_hostname else "none"
            options["ssl.endpoint.identification.algorithm"] = check
        return options


_NOT_IN_URLS = frozenset({"bootstrap", "security"})


def _split(url: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the addresses and the query of a URL."""
    if not url.startswith(SCHEME):
        raise UsageError(f"A Kafka log is written {SCHEME}host:{PORT},host:{PORT}?prefix=…")
    # Not `urlsplit`: Python with a mended one takes no bracket after the first address.
    rest, _, fragment = url.removeprefix(SCHEME).partition("#")
    rest, _, query = rest.partition("?")
    addresses, _, path = rest.partition("/")
    if "@" in url:
        raise UsageError(
            f"No user or password in {SCHEME}…: they would be in the list of processes; set"
            f" {ENVIRONMENT}SASL_USERNAME and {ENVIRONMENT}SASL_PASSWORD in the environment"
        )
    if path.strip("/") or fragment:
        raise UsageError(f"{SCHEME}…/{path} has a path; a prefix of topics is ?prefix=…")
    return list(map(_address, addresses.split(","))), parse_qsl(query, keep_blank_values=True)


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):  # an IPv6 address without a port ends in a bracket
        host, port = text, str(PORT)
    closed = host.startswith("[") == host.endswith("]")
    if not host or not closed or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise UsageError(f"{text!r} is no address of a broker; write host:port")
    return f"{host}:{port}"


def _number(name: str, text: str, kind: str) -> Any:
    if kind == "str":
        return text
    try:
        return int(text) if kind == "int" else float(text)
    except ValueError:
        raise UsageError(f"Kafka's {name} is {text!r}; it must be a number") from None


def _variable(env: Mapping[str, str], name: str) -> str:
    """Return a variable's value; a secret may stand in a file that `…_FILE` names."""
    value = env.get(ENVIRONMENT + name, "")
    path = env.get(f"{ENVIRONMENT}{name}_FILE", "") if name in _SECRETS else ""
    if value or not path:
        return value
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{ENVIRONMENT}{name}_FILE: {path} cannot be read: {error}") from None


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{ENVIRONMENT}{name} is {value!r}; it must be {', '.join(known)}")


def _flag(name: str, value: str) -> bool:
    flag = _FLAGS.get(value.strip().lower())
    if flag is None:
        raise UsageError(f"{ENVIRONMENT}{name} is {value!r}; write true or false")
    return flag
