"""`connection:` of an integration over OPC-UA: what is taken, and what is said of what is not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.integrations.dialect import dialects
from pipeline.rulebook.connections.opcua_server import OpcuaSourceConfig, levels_of

NODE = {"id": "ns=2;s=x", "device": "d", "field": "f"}
SERVER = "opc.tcp://plc.example.com"


def config(**given: Any) -> OpcuaSourceConfig:
    return OpcuaSourceConfig.model_validate({"server": SERVER, "nodes": [NODE], **given})


def test_the_port_is_the_usual_one() -> None:
    """A server without a port is asked at 4840; its path stays."""
    assert config().server == "opc.tcp://plc.example.com:4840"
    assert config(server="opc.tcp://h:1/a").server == "opc.tcp://h:1/a"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"server": "http://x"}, "as opc.tcp"),
        ({"server": "opc.tcp://u:p@x"}, "stand for themselves"),
        ({"server": "opc.tcp://x:99999"}, "as opc.tcp"),
        ({"nodes": []}, "name what to read"),
        ({"nodes": [{**NODE, "id": "press"}]}, "must be a node's id"),
        ({"password": "x"}, "that of a `user`"),
        ({"browse": [{"path": "Line*/{device_id}"}]}, "must begin with `Objects/`"),
        ({"browse": [{"path": "Objects/*/x"}]}, "needs a level `{device_id}`"),
        ({"browse": [{"path": "Objects/{a}/{a}", "device": "{a}"}]}, "a name twice"),
        ({"browse": [{"path": "Objects/{device_id}/**"}]}, "must end with a variable"),
        ({"browse": [{"path": "Objects/{device_id/x"}]}, "must be a name"),
        ({"browse": [{"path": "Objects/{status}/x", "device": "{status}"}]}, "other names"),
        ({"browse": [{"path": "Objects/" + "a/" * 40 + "x", "device": "d"}]}, "more than 32"),
        ({"security": {"certificate_file": "a", "key_file": "b"}}, "server_certificate_file"),
        ({"user_certificate": {"certificate_file": "a", "key_file": "b"}}, "needs `security`"),
        ({"user": "u", "user_certificate": {"certificate_file": "a", "key_file": "b"}}, "give one"),
        ({"publishing_interval": "1ms"}, "greater than or equal"),
        ({"no_such": 1}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_said(given: dict[str, Any], says: str) -> None:
    """Each mistake has a sentence that says what to do."""
    with pytest.raises(ValidationError) as caught:
        config(**given)
    assert says in str(caught.value)


def test_secrets_are_not_shown() -> None:
    """Neither the password nor the key's is in any text of the config."""
    made = config(user="u", password="hush")
    assert "hush" not in f"{made!r} {made}"


def test_a_password_without_security_is_warned_of() -> None:
    """It may go over the network in the clear; `check` says so, and takes it."""
    dialect = dialects()["opcua"]
    (problem,) = config(user="u", password="x").together(dialect, dialect.options())
    assert problem.warns
    assert config().together(dialect, dialect.options()) == []


def test_only_its_own_dialect_comes_over_it() -> None:
    """Nodes have no messages of network servers; two connections would bring all twice."""
    carried = [name for name, each in dialects().items() if not OpcuaSourceConfig.carries(each)]
    assert carried == ["opcua"]
    assert config().one_owner


def test_levels_of_a_path() -> None:
    """Globs and names match one level; other signs mean themselves."""
    objects, line, odd, deep, last = levels_of("Objects/{line:Line*}/a.[b]?/**/{field}")
    assert objects.literal
    assert line.name == "line"
    assert line.pattern.fullmatch("Line 1")
    assert not line.pattern.fullmatch("Hall")
    assert odd.pattern.fullmatch("a.[b]c")
    assert not odd.pattern.fullmatch("axbc")
    assert deep.deep
    assert (last.name, last.literal) == ("field", False)


def test_how_a_device_is_named() -> None:
    """By `{device_id}`, or by a template of other names; the field by its own name otherwise."""
    (way,) = config(browse=[{"path": "Objects/{line}/{m}/T", "device": "{line}-{m}"}]).browse
    assert way.device_of({"line": "L1", "m": "M2"}) == "L1-M2"
    assert way.field_of({"line": "L1", "m": "M2"}, "T") == "T"
    (own,) = config(
        browse=[{"path": "Objects/{device_id}/{part}/{x}", "field": "{part}.{x}"}]
    ).browse
    assert own.field_of({"device_id": "d", "part": "a", "x": "b"}, "b") == "a.b"
