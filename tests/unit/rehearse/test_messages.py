"""Files of messages: every form that is read, and what is said of a slip."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.model.event import AttributesChange
from pipeline.rehearse.chain_test_config import StepConfig
from pipeline.rehearse.messages import read_messages


def kinds(text: str) -> list[str]:
    return [
        each.kind if isinstance(each, StepConfig) else type(each).__name__
        for each in read_messages(text.encode(), "m.json")
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"device": "a", "telemetry": {"t": 1}}', ["message"]),
        ('{"message": {"device": "a"}}\n\n{"wait": "1h"}\n', ["message", "wait"]),
        ('[{"attributes": {"device": "a", "set": {"x": 1}}}]', ["attributes"]),
        ('{\n  "uplink": {"bytes": "00", "device": "a"}\n}', ["uplink"]),
        (
            """{"kind": "attributes_change", "id": "1", "tenant": "t", "device": "a",
            "scope": "shared", "time_ms": 1, "set": {"x": 1}}""",
            [AttributesChange.__name__],
        ),
    ],
)
def test_forms(text: str, found: list[str]) -> None:
    """Steps, messages alone and events; one value, a list, or a value a line."""
    assert kinds(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "m.json holds no message"),
        ("{", "m.json is not JSON"),
        ('{"wait": "1h"}\n{', "m.json:2 is not JSON"),
        ("3", "m.json, message 1 is no JSON object"),
        ('{"kind": "nonsense"}', "m.json, message 1 is no event of a device"),
        ('{"devise": "a"}', "m.json, message 1: message.devise"),
        ('[{"wait": "1h"}, {"wait": "soon"}]', "m.json, message 2: wait"),
    ],
)
def test_slips(text: str, said: str) -> None:
    """What is wrong is said with the entry that it is in."""
    with pytest.raises(UsageError) as raised:
        read_messages(text.encode(), "m.json")

    assert raised.value.message.startswith(said)
