"""Security as operators set it, on a real broker: TLS, mutual TLS, SASL PLAIN and SCRAM."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from structlog.testing import capture_logs

from pipeline.errors import RetryableError, UsageError
from pipeline.model.record import Outgoing
from pipeline.stream.kafka_log import KafkaLog
from pipeline.stream.kafka_settings import ENVIRONMENT, KafkaSettings
from pipeline.stream.kafka_topics import look
from tests.kafka import brokers
from tests.kafka.brokers import Brokers
from tests.kafka.test_edges_log import opened, take

PASSWORD = "a password, with = and ;"
JAAS = "org.apache.kafka.common.security"


class Keys:
    """A CA, the broker's certificate and ours, as PEM files; our key is encrypted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca = folder / "ca.pem"
        self._run(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem"
        )
        self._sign("broker", "subjectAltName=IP:127.0.0.1,DNS:localhost")
        self._sign("client", "extendedKeyUsage=clientAuth")
        self.store = folder / "broker-store.pem"
        self._run("pkcs8 -topk8 -nocrypt -in broker.key -out broker.p8")
        chain = [(folder / name).read_text() for name in ("broker.p8", "broker.pem", "ca.pem")]
        self.store.write_text("".join(chain))
        self._run("rsa -aes256 -passout pass:key-password -in client.key -out client-secret.key")
        self.certificate = folder / "client.pem"
        self.key = folder / "client-secret.key"

    def _sign(self, name: str, extension: str) -> None:
        self._run(
            f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        )
        (self._folder / "extension").write_text(extension)
        self._run(
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2"
            f" -extfile extension -out {name}.pem"
        )

    def _run(self, command: str) -> None:
        subprocess.run(
            ["openssl", *command.split()], cwd=self._folder, check=True, capture_output=True
        )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def secured(keys: Keys) -> Iterator[Brokers]:
    """One broker whose second listener is SASL over TLS."""
    brokers.needed()
    if brokers.source() not in ("container", "jars"):
        pytest.skip("LEFT OUT: a running cluster has the security that it has")
    listener = "listener.name.secure."
    properties = {
        f"{listener}ssl.keystore.type": "PEM",
        f"{listener}ssl.keystore.location": str(keys.store),
        f"{listener}ssl.truststore.type": "PEM",
        f"{listener}ssl.truststore.location": str(keys.ca),
        f"{listener}ssl.client.auth": "requested",
        f"{listener}sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        f"{listener}plain.sasl.jaas.config": f"{JAAS}.plain.PlainLoginModule required"
        f' user_plain="{PASSWORD}";',
        f"{listener}scram-sha-256.sasl.jaas.config": f"{JAAS}.scram.ScramLoginModule required;",
        f"{listener}scram-sha-512.sasl.jaas.config": f"{JAAS}.scram.ScramLoginModule required;",
    }
    with Brokers.start(1, properties=properties, secure="SASL_SSL") as found:
        admin = AdminClient({"bootstrap.servers": found.bootstrap})
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            info = ScramCredentialInfo(mechanism, 4_096)
            user = UserScramCredentialUpsertion("scram", info, PASSWORD.encode())
            for done in admin.alter_user_scram_credentials([user]).values():
                done.result(20)
        yield found


@pytest.fixture(scope="module")
def mutual(keys: Keys) -> Iterator[Brokers]:
    """One broker whose second listener takes only clients with a certificate."""
    brokers.needed()
    if brokers.source() not in ("container", "jars"):
        pytest.skip("LEFT OUT: a running cluster has the security that it has")
    listener = "listener.name.secure."
    properties = {
        f"{listener}ssl.keystore.type": "PEM",
        f"{listener}ssl.keystore.location": str(keys.store),
        f"{listener}ssl.truststore.type": "PEM",
        f"{listener}ssl.truststore.location": str(keys.ca),
        f"{listener}ssl.client.auth": "required",
    }
    with Brokers.start(1, properties=properties, secure="SSL") as found:
        yield found


def settings(found: Brokers, prefix: str, **variables: str | Path) -> KafkaSettings:
    env = {ENVIRONMENT + name: str(value) for name, value in variables.items()}
    url = f"kafka://{found.secure_bootstrap}?prefix={prefix}&connect_timeout_s=8"
    return KafkaSettings.from_url(url, env)


async def both_clients_get_in(found: Brokers, prefix: str, secure: KafkaSettings) -> None:
    """One client writes and reads as a group, the other one looks; nothing secret is logged."""
    found.create({prefix + "reply": 1})
    with capture_logs() as logs:
        async with opened(secure, "reply") as log:
            await log.append([Outgoing("reply", "k", b"v", {})])
            (record,) = await take(log.read("reply", "sink-a"), 1)
        assert record.value == b"v"
        assert [each.topic for each in look(secure)] == [prefix + "reply"]
    for secret in (PASSWORD, "key-password"):
        assert secret not in str(logs) + repr(secure)


@pytest.mark.parametrize(
    ("mechanism", "user"),
    [("PLAIN", "plain"), ("SCRAM-SHA-256", "scram"), ("SCRAM-SHA-512", "scram")],
)
async def test_a_name_and_password_over_tls(
    secured: Brokers, keys: Keys, prefix: str, mechanism: str, user: str
) -> None:
    """Each mechanism lets both clients in; the broker is known by the CA's file."""
    secure = settings(
        secured,
        prefix,
        SASL_MECHANISM=mechanism,
        SASL_USERNAME=user,
        SASL_PASSWORD=PASSWORD,
        SSL_CA=keys.ca,
    )
    assert secure.security.protocol == "SASL_SSL"
    await both_clients_get_in(secured, prefix, secure)


async def test_a_certificate_of_ours(mutual: Brokers, keys: Keys, prefix: str) -> None:
    """With mutual TLS our certificate and encrypted key let both clients in."""
    secure = settings(
        mutual,
        prefix,
        SSL_CA=keys.ca,
        SSL_CERTIFICATE=keys.certificate,
        SSL_KEY=keys.key,
        SSL_KEY_PASSWORD="key-password",
    )
    assert secure.security.protocol == "SSL"
    await both_clients_get_in(mutual, prefix, secure)


async def test_who_is_not_known_stays_outside(secured: Brokers, keys: Keys, prefix: str) -> None:
    """A wrong password, and a broker that the CA did not sign, are said in time and in words, and
    without the password.
    """
    secured.create({prefix + "reply": 1})
    wrong = settings(
        secured, prefix, SASL_USERNAME="plain", SASL_PASSWORD="a wrong one", SSL_CA=keys.ca
    )
    unknown = settings(secured, prefix, SASL_USERNAME="plain", SASL_PASSWORD=PASSWORD)
    for secure in (wrong, unknown):
        log = KafkaLog(secure)
        with pytest.raises(RetryableError, match="lets us in") as error:
            await log.start(["reply"])
        await log.close()
        with pytest.raises(RetryableError, match="lets us in") as other:
            look(secure)
        for said in (error.value.message, other.value.message):
            assert PASSWORD not in said
            assert "a wrong one" not in said


async def test_a_key_that_does_not_open_is_the_users_mistake(
    mutual: Brokers, keys: Keys, prefix: str
) -> None:
    """A wrong password of the key is told before anything is connected."""
    secure = settings(
        mutual,
        prefix,
        SSL_CA=keys.ca,
        SSL_CERTIFICATE=keys.certificate,
        SSL_KEY=keys.key,
        SSL_KEY_PASSWORD="hidden",
    )
    log = KafkaLog(secure)
    with pytest.raises(UsageError, match="SSL_KEY_PASSWORD") as error:
        await log.start(["reply"])
    assert "hidden" not in error.value.message
    await log.close()
