"""The script port with codecs in front: who runs what, in which shapes, and how it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from pipeline.convert.codec_port import CodecPort
from pipeline.convert.codecs.codec import codec_models
from pipeline.errors import ScriptError
from pipeline.ports import Script, ScriptCall

LPP = orjson.dumps({"codec": "cayenne_lpp", "f_port": 4}).decode()


class FakeScripts:
    def __init__(self) -> None:
        self.calls: list[ScriptCall] = []
        self.closed = False

    def call(self, calls: Sequence[ScriptCall]) -> list[Any]:
        self.calls += calls
        return [{"data": {"by": call.script.path}, "warnings": []} for call in calls]

    def close(self) -> None:
        self.closed = True


def call(source: str, operation: str = "decode_uplink", **more: Any) -> ScriptCall:
    argument = more.pop("argument", {"bytes": "A2cBEA==", "fPort": 1})
    script = Script("converters/acme/x.yaml", "codec", source)
    return ScriptCall("t", script, operation, argument, **more)


def test_codecs_here_and_scripts_there() -> None:
    """Each call has its result in its place, whoever ran it."""
    scripts = FakeScripts()
    port = CodecPort(scripts)
    script = ScriptCall("t", Script("a.js", "javascript", ""), "decode_uplink", {})
    results = port.call([script, call(LPP), script])
    assert [result["data"] for result in results] == [
        {"by": "a.js"},
        {"temperature_3": 27.2},
        {"by": "a.js"},
    ]
    assert port.call([call(LPP)])[0]["data"] == {"temperature_3": 27.2}
    assert len(scripts.calls) == 2
    port.close()
    assert scripts.closed


def test_encodes_in_both_contracts() -> None:
    """A codec's bytes come in the shape of the contract that asks."""
    port = CodecPort(FakeScripts())
    argument = {"data": {"value_1": 1}, "fPort": None, "variables": {}}
    (plain,) = port.call([call(LPP, "encode_downlink", argument=argument)])
    assert plain == {"bytes": [1, 0, 100], "fPort": 4, "warnings": []}
    argument = {"msg": {"value_1": 1}, "metadata": {}}
    (shaped,) = port.call([call(LPP, "encode_downlink", argument=argument, contract="thingsboard")])
    assert shaped == {"contentType": "BINARY", "data": "AQBk", "metadata": {"fPort": 4}}
    source = '{"codec": "json_mapping", "downlink": {"v": "${fields.v}"}}'
    argument = {"msg": {"v": 5}, "metadata": {}}
    (shaped,) = port.call(
        [call(source, "encode_downlink", argument=argument, contract="thingsboard")]
    )
    assert shaped == {"contentType": "JSON", "data": '{"v":5}', "metadata": {}}


def test_what_is_known_goes_in() -> None:
    """The port, the time of receipt and the metadata reach the codec in ThingsBoard's contract."""
    argument = {
        "payload": "W3sibiI6InQiLCJ2IjoxLCJ0IjotMX1d",
        "metadata": {"fPort": 3},
        "recvTime": "2023-11-14T22:13:20Z",
    }
    port = CodecPort(FakeScripts())
    (result,) = port.call([call('{"codec": "senml"}', argument=argument, contract="thingsboard")])
    assert result == {"telemetry": {"ts": 1_699_999_999_000, "values": {"t": 1}}}
    source = '{"codec": "json_mapping", "uplink": {"telemetry": {"p": "${f_port}"}}}'
    (result,) = port.call([call(source, argument=argument, contract="thingsboard")])
    assert result == {"telemetry": {"p": 3}}


@pytest.mark.parametrize(
    ("source", "operation", "message"),
    [
        (LPP, "decode_downlink", "has no decode_downlink"),
        ('{"codec": "layout", "uplink": [{"f_port": 9, "fields": [{"skip": 1}]}]}',
         "decode_uplink", "no message of the layout fits"),
        ('{"codec": "gone"}', "decode_uplink", "cannot be built"),
        ("{", "decode_uplink", "cannot be built"),
        ('{"codec": "json_mapping", "uplink": {"telemetry": {"t": "${payload.x}"}}}',
         "decode_uplink", "JSON"),
    ],
)  # fmt: skip
def test_errors(source: str, operation: str, message: str) -> None:
    """A codec's refusal is a ScriptError that names the converter's file, and touches no other."""
    port = CodecPort(FakeScripts())
    bad, good = port.call([call(source, operation), call(LPP)])
    assert isinstance(bad, ScriptError)
    assert bad.code == "codec"
    assert bad.message.startswith("converters/acme/x.yaml: ")
    assert message in bad.message
    assert bad.detail["script"] == "converters/acme/x.yaml"
    assert good["data"] == {"temperature_3": 27.2}


def test_the_folder_is_scanned() -> None:
    """Each file of the folder that has a codec is one, by its name."""
    assert set(codec_models()) == {
        "cayenne_lpp",
        "json_mapping",
        "layout",
        "protobuf",
        "senml",
    }
    for model in codec_models().values():
        assert model.model_json_schema()["properties"]
