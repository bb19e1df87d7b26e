"""What an operator sets of a Faust app."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.stream.faust_settings import FaustSettings


def test_a_url_and_the_environment_say_all() -> None:
    """The URL has what a Kafka URL has; the environment says what is Faust's own."""
    found = FaustSettings.from_url(
        "faust://one:9092,two:9093?prefix=a.",
        {
            "FUNICULAR_FAUST_APP_ID": "shop",
            "FUNICULAR_FAUST_SYNCHRONOUS_DOWNLINKS": "true",
            "FUNICULAR_FAUST_LINGER_S": "0.5",
            "FUNICULAR_FAUST_COMMIT_S": "3",
        },
    )

    assert found.kafka.bootstrap == "one:9092,two:9093"
    assert found.kafka.prefix == "a."
    assert found.app_id == "shop"
    assert found.synchronous_downlinks
    assert (found.linger_s, found.commit_s) == (0.5, 3.0)


def test_synchronous_downlinks_are_refused_by_default() -> None:
    """Nobody gets answers that may come twice without asking for them."""
    assert not FaustSettings.from_url("faust://one", {}).synchronous_downlinks


@pytest.mark.parametrize(
    ("url", "env", "says"),
    [
        ("kafka://one", {}, "faust://host"),
        ("faust://one?nonsense=1", {}, "nonsense"),
        ("faust://one", {"FUNICULAR_FAUST_SYNCHRONOUS_DOWNLINKS": "perhaps"}, "true or false"),
        ("faust://one", {"FUNICULAR_FAUST_LINGER_S": "soon"}, "LINGER_S is 'soon'"),
        ("faust://one", {"FUNICULAR_FAUST_COMMIT_S": "0"}, "COMMIT_S is '0'"),
        ("faust://one", {"FUNICULAR_FAUST_COMMIT_S": "inf"}, "COMMIT_S is 'inf'"),
    ],
)
def test_what_is_wrong_is_said(url: str, env: dict[str, str], says: str) -> None:
    """A setting that cannot be is refused by name."""
    with pytest.raises(UsageError, match=says):
        FaustSettings.from_url(url, env)


def test_a_password_is_in_no_repr() -> None:
    """The settings can be logged."""
    found = FaustSettings.from_url(
        "faust://one",
        {"FUNICULAR_KAFKA_SASL_USERNAME": "u", "FUNICULAR_KAFKA_SASL_PASSWORD": "hunter2"},
    )

    assert "hunter2" not in repr(found)
    assert found.kafka.security.sasl_password == "hunter2"
