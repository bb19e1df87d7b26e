from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from pipeline.rulebook.schema import FILES, json_schema


class FakeTests(BaseModel):
    tests: list[str]


def test_every_kind_of_file_has_a_schema(rules: Any) -> None:
    """Each stands alone and is JSON; chains come from route."""
    assert set(json_schema(rules.catalogue)) == {*("funicular", "integration", "converter", "sink")}
    rules.with_catalogue(chain_schema=lambda: {"type": "object"}, test_model=FakeTests)
    schemas = json_schema(rules.catalogue)

    assert set(schemas) == set(FILES)
    assert schemas["chain"]["type"] == "object"
    assert schemas["test"]["required"] == ["tests"]
    for schema in schemas.values():
        assert schema["$schema"].endswith("2020-12/schema")
        for reference in references(schema):
            assert reference.removeprefix("#/$defs/") in schema["$defs"]


def references(schema: Any) -> list[str]:
    """All references in a schema."""
    text = json.dumps(schema)
    return [part.split('"')[0] for part in text.split('"$ref": "')[1:]]


def test_integrations_know_their_dialects_options(rules: Any) -> None:
    """An editor offers the dialects, and the options of the one that was chosen."""
    schema = json_schema(rules.catalogue)["integration"]

    assert schema["properties"]["dialect"]["enum"] == ["sigfox", "ttn_v2", "tts_v3"]
    assert schema["anyOf"] == [
        {"required": ["dialect", "authentication"]}, {"required": ["template"]}
    ]  # fmt: skip
    assert schema["additionalProperties"] is False
    assert [rule["if"]["properties"]["dialect"]["const"] for rule in schema["allOf"]] == [
        *("sigfox", "ttn_v2", "tts_v3")
    ]
    name = schema["allOf"][0]["then"]["properties"]["options"]["$ref"].split("/")[-1]
    assert set(schema["$defs"][name]["properties"]) == {"server", "api_key"}


def test_sinks_are_one_of_their_transports(rules: Any) -> None:
    """Each transport has its own keys beside `transport`."""
    schema = json_schema(rules.catalogue)["sink"]
    members = [rule["then"] for rule in schema["then"]["allOf"]]

    assert schema["properties"]["transport"]["enum"] == ["file", "http"]
    assert [member["properties"]["transport"] for member in members] == [
        {"const": "file"},
        {"const": "http"},
    ]
    assert members[1]["required"] == ["url"]
