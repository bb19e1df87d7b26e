"""`connection:` of an integration over Kafka: what is taken, and what is said of what is not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.integrations.dialect import dialects
from pipeline.rulebook.connections.kafka_topics import KafkaSourceConfig

GIVEN = {"servers": "k:9092", "topics": "a"}


def test_what_is_left_out_has_a_default() -> None:
    """One topic is enough; a new group begins at what comes; several workers share it."""
    config = KafkaSourceConfig.model_validate(GIVEN)

    assert (config.topics, config.start, config.one_owner) == (("a",), "latest", False)
    assert config.client_options() == {
        "bootstrap_servers": "k:9092",
        "ssl_context": None,
        "security_protocol": "PLAINTEXT",
    }


def test_security_is_that_of_the_sink() -> None:
    """TLS and SASL are given to the client; the password is in no text."""
    given = {**GIVEN, "security": "tls", "sasl": {"user": "u", "password": "geheim77"}}
    config = KafkaSourceConfig.model_validate(given)
    options = config.client_options()

    assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_SSL", "PLAIN")
    assert options["sasl_plain_password"] == "geheim77"
    assert options["ssl_context"].check_hostname
    assert "geheim77" not in repr(config)
    sasl_alone = KafkaSourceConfig.model_validate({**given, "security": "plaintext"})
    assert sasl_alone.client_options()["security_protocol"] == "SASL_PLAINTEXT"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"topics": []}, "name `topics`, or a `pattern`"),
        ({"pattern": "a.*"}, "one of the two"),
        ({"topics": [], "pattern": "a("}, "is no regular expression"),
        ({"topics": ["a b"]}, "should match pattern"),
        ({"tls": {"ca_file": "x"}}, "`tls` needs `security: tls`"),
        ({"start": "yesterday"}, "'latest' or 'earliest'"),
        ({"servers": ""}, "at least 1 character"),
        ({"bootstrap": "x"}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_said(given: dict[str, Any], said: str) -> None:
    """Each fault of a connection has words of its own."""
    with pytest.raises(ValidationError, match=re.escape(said)):
        KafkaSourceConfig.model_validate({**GIVEN, **given})


def test_the_template_names_chirpstacks_topic() -> None:
    """What `funicular new integration` writes has ChirpStack's own topic, and a secret by name."""
    lines = "\n".join(KafkaSourceConfig.template(dialects()["chirpstack"], "BARN"))

    assert "topics: [chirpstack]" in lines
    assert '"${env:BARN_PASSWORD}"' in lines
