from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.stream.kafka_settings import ENVIRONMENT, KafkaSettings, Security


def read(url: str = "kafka://one:9092", **variables: str) -> KafkaSettings:
    """Return the settings of a URL, with variables named without their prefix."""
    env = {ENVIRONMENT + name: value for name, value in variables.items()}
    return KafkaSettings.from_url(url, env)


def test_addresses_and_query_of_a_url() -> None:
    """A URL gives the brokers, each with its port, and the shape of the topics."""
    found = read(
        "kafka://one:9092,two,[::1]:9093,[::2]?prefix=acme.&partitions=24&append_timeout_s=2.5"
    )
    assert found.bootstrap == "one:9092,two:9092,[::1]:9093,[::2]:9092"
    assert (found.prefix, found.partitions, found.append_timeout_s) == ("acme.", 24, 2.5)
    assert found.topic("reply") == "acme.reply"
    assert found.name("acme.reply") == "reply"


def test_the_environment_says_what_the_url_does_not() -> None:
    """A variable sets what a URL could; where both do, the URL goes first."""
    variables = {"PREFIX": "env.", "REPLICATION": "3", "DEFAULT_INTEGRATION": "acme/plain"}
    found = read("kafka://one?prefix=url.", **variables)
    assert (found.prefix, found.replication) == ("url.", 3)
    assert found.default_integration == "acme/plain"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://x", "kafka://host:9092"),
        ("kafka://user:secret@one:9092", "No user or password"),
        ("kafka://user:se?cret@one", "No user or password"),
        ("kafka://one/topic", "?prefix="),
        ("kafka://one#topic", "?prefix="),
        ("kafka://[::1", "host:port"),
        ("kafka://one,::2]:9092", "host:port"),
        ("kafka://one:port", "host:port"),
        ("kafka://", "host:port"),
        ("kafka://one?partition=3", "partitions"),
        ("kafka://one?security=x", "not known"),
        ("kafka://one?partitions=many", "number"),
        ("kafka://one?partitions=0", "partitions"),
        ("kafka://one?prefix=a/b", "prefix"),
        ("kafka://one?default_integration=plain", "tenant/integration"),
    ],
)
def test_a_bad_url_is_refused_with_what_to_write(url: str, said: str) -> None:
    """Each fault of a URL is a UsageError that names it, and never shows a password."""
    with pytest.raises(UsageError) as error:
        read(url)
    assert said in error.value.message
    assert "secret" not in error.value.message


def test_a_user_name_alone_means_tls() -> None:
    """No password is sent in the clear unless SASL_PLAINTEXT is asked for."""
    found = read(SASL_USERNAME="me", SASL_PASSWORD="pw").security
    assert found.protocol == "SASL_SSL"
    asked = read(SASL_USERNAME="me", SASL_PASSWORD="pw", SECURITY_PROTOCOL="sasl_plaintext")
    assert asked.security.protocol == "SASL_PLAINTEXT"
    assert read().security.protocol == "PLAINTEXT"


def test_a_file_for_tls_alone_means_tls(tmp_path: Path) -> None:
    """A CA's file makes the connection TLS, without a word on the protocol."""
    path = tmp_path / "ca.pem"
    path.write_text("x")
    assert read(SSL_CA=str(path)).security.protocol == "SSL"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SECURITY_PROTOCOL": "TLS"}, "SASL_SSL"),
        ({"SECURITY_PROTOCOL": "SASL_SSL"}, "SASL_USERNAME is missing"),
        ({"SASL_USERNAME": "me"}, "SASL_PASSWORD is missing"),
        (
            {"SASL_USERNAME": "me", "SASL_PASSWORD": "hidden", "SASL_MECHANISM": "MD5"},
            "SCRAM-SHA-512",
        ),
        ({"SECURITY_PROTOCOL": "SSL", "SASL_USERNAME": "me"}, "SASL_SSL"),
        ({"SECURITY_PROTOCOL": "PLAINTEXT", "SSL_CA": "/nowhere"}, "PLAINTEXT"),
        ({"SSL_CA": "/nowhere"}, "no such file"),
        ({"SECURITY_PROTOCOL": "SSL", "SSL_KEY": __file__}, "SSL_CERTIFICATE"),
        ({"SSL_CHECK_HOSTNAME": "perhaps"}, "true or false"),
        ({"SASL_USERNAME": "me", "SASL_PASSWORD_FILE": "/nowhere"}, "cannot be read"),
    ],
)
def test_security_that_does_not_fit_is_refused(variables: dict[str, str], said: str) -> None:
    """Each fault of the variables is a UsageError that says which one, and shows no secret."""
    with pytest.raises(UsageError) as error:
        read(**variables)
    assert said in error.value.message
    assert "hidden" not in error.value.message


def test_a_password_may_stand_in_a_file(tmp_path: Path) -> None:
    """`…_FILE` names the file of a secret, whose last line break is none of it."""
    path = tmp_path / "password"
    path.write_text("pw with space \n")
    found = read(SASL_USERNAME="me", SASL_PASSWORD_FILE=str(path))
    assert found.security.sasl_password == "pw with space "


def test_secrets_are_in_no_repr() -> None:
    """Neither the settings nor their security show a password or a key's password."""
    security = Security(
        protocol="SASL_SSL",
        sasl_username="me",
        sasl_password="hidden-1",
        ssl_key_password="hidden-2",
    )
    assert "hidden" not in repr(security) + str(security) + repr(KafkaSettings(security=security))


def test_both_clients_get_the_same_security(tmp_path: Path) -> None:
    """What aiokafka is told, confluent-kafka is told too, each by its own names."""
    variables = {
        "SASL_MECHANISM": "scram-sha-256",
        "SASL_USERNAME": "me",
        "SASL_PASSWORD": "pw",
        "SSL_CHECK_HOSTNAME": "false",
    }
    found = read(**variables)
    asyncio_options, options = found.aiokafka(), found.confluent()
    assert asyncio_options["security_protocol"] == options["security.protocol"] == "SASL_SSL"
    assert asyncio_options["sasl_mechanism"] == options["sasl.mechanism"] == "SCRAM-SHA-256"
    assert asyncio_options["sasl_plain_username"] == options["sasl.username"] == "me"
    assert asyncio_options["sasl_plain_password"] == options["sasl.password"] == "pw"
    context = asyncio_options["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert not context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert options["ssl.endpoint.identification.algorithm"] == "none"


def test_a_bad_certificate_is_the_users_mistake(tmp_path: Path) -> None:
    """A file that holds no certificate is named; nothing of a key is shown."""
    path = tmp_path / "bad.pem"
    path.write_text("no certificate")
    with pytest.raises(UsageError, match="SSL_CA"):
        read(SSL_CA=str(path)).aiokafka()
    ours = {"SSL_CERTIFICATE": str(path), "SSL_KEY": str(path), "SSL_KEY_PASSWORD": "hidden"}
    with pytest.raises(UsageError, match="SSL_CERTIFICATE") as error:
        read(**ours).aiokafka()
    assert "hidden" not in error.value.message


def test_without_security_the_clients_get_none() -> None:
    """A plain connection has no TLS context and no user."""
    found = read("kafka://one:1,two:2")
    assert found.aiokafka()["bootstrap_servers"] == ["one:1", "two:2"]
    assert found.aiokafka()["ssl_context"] is None
    assert not [name for name in found.confluent() if name.startswith(("sasl", "ssl"))]
