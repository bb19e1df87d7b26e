"""A catalogue → the JSON Schemas (2020-12) of the files in a rules folder, for editors.

They are made of the models that `check` reads the files with, so that an editor and `check` speak
of the same keys; what a schema cannot say (a sink that is not there, an expression's fault) `check`
says alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from pipeline.integrations.dialect import HTTP
from pipeline.rulebook.catalogue import Catalogue
from pipeline.rulebook.checks import FolderConfig
from pipeline.rulebook.codec_converter import CodecConverterConfig
from pipeline.rulebook.converter import ConverterConfig
from pipeline.rulebook.integration import IntegrationConfig

FILES: Mapping[str, str] = {
    "funicular": "funicular.yaml",
    "integration": "integrations/*.yaml",
    "converter": "converters/*/*.yaml",
    "sink": "sinks/*.yaml",
    "chain": "chains/*.yaml",
    "test": "chains/*_test.yaml",
}
"""The kinds of files, and where they stand in a rules folder."""

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_FILLED_IN = {"type": "string", "pattern": r"\$\{(env|file):", "description": "Filled in."}
_NOT_TEXT = frozenset({"integer", "number", "boolean"})


def json_schema(catalogue: Catalogue) -> dict[str, dict[str, Any]]:
    """Return a schema a kind of file (see `FILES`); chains and tests where the catalogue has them.

    Each stands alone. In files that take `${env:…}` for any value, a number may be such a text.
    """
    schemas = {
        "funicular": _filled_in(_plain(FolderConfig)),
        "integration": _filled_in(_integrations(catalogue)),
        "converter": _converters(catalogue),
        "sink": _filled_in(_sinks(catalogue)),
    }
    if catalogue.chain_schema is not None:
        schemas["chain"] = dict(catalogue.chain_schema())
    if catalogue.test_model is not None:
        schemas["test"] = _plain(catalogue.test_model)
    return {
        kind: {"$schema": _DRAFT, **_tidy(schema), "title": f"rules/{FILES[kind]}"}
        for kind, schema in schemas.items()
    }


def _plain(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _integrations(catalogue: Catalogue) -> dict[str, Any]:
    options = {name: dialect.options for name, dialect in sorted(catalogue.dialects.items())}
    transports = dict(sorted(catalogue.transports.items()))
    references, definitions = _together(
        [IntegrationConfig, *options.values(), *transports.values()]
    )
    schema = _resolved(references[IntegrationConfig], definitions)
    schema["properties"]["dialect"] = {
        "description": schema["properties"]["dialect"]["description"],
        "enum": list(options),
    }
    schema["allOf"] = [
        {
            "if": {"properties": {"dialect": {"const": name}}, "required": ["dialect"]},
            "then": {"properties": {"options": references[model]}},
        }
        for name, model in options.items()
    ]
    if transports:
        _add_transports(schema, {name: references[model] for name, model in transports.items()})
    needed = schema.pop("required")
    return {**_or_of_a_template(schema, needed), "$defs": definitions}


def _or_of_a_template(schema: dict[str, Any], needed: Sequence[str]) -> dict[str, Any]:
    """Return a schema of files that have what is `needed`, or name a template that has it."""
    schema["properties"] |= {
        "template": {"type": "string", "description": "A service's template, in its place."},
        "variables": {"type": "object", "description": "What the template leaves open."},
    }
    return {**schema, "anyOf": [{"required": [*needed]}, {"required": ["template"]}]}


def _add_transports(schema: dict[str, Any], connections: Mapping[str, Any]) -> None:
    """Say how an integration's messages may come, and what its `connection` then is."""
    schema["properties"]["transport"] = {
        "description": schema["properties"]["transport"]["description"],
        "enum": [HTTP, *connections],
        "default": HTTP,
    }
    # Who connects to a broker proves himself there; nobody posts who would have to.
    schema["required"] = [name for name in schema["required"] if name != "authentication"]
    whole = {
        "if": {
            "properties": {"transport": {"enum": list(connections)}},
            "required": ["transport"],
        },
        "then": {"required": ["connection"], "properties": {"authentication": False}},
        "else": {"required": ["authentication"]},
    }
    # Of a template's document a file has only what is the user's.
    schema["allOf"].append({"if": {"required": ["template"]}, "else": whole})
    schema["allOf"] += [
        {
            "if": {"properties": {"transport": {"const": name}}, "required": ["transport"]},
            "then": {"properties": {"connection": connection}},
        }
        for name, connection in connections.items()
    ]


def _converters(catalogue: Catalogue) -> dict[str, Any]:
    names = sorted(catalogue.codecs)
    models = [catalogue.codecs[name] for name in names]
    references, definitions = _together([ConverterConfig, CodecConverterConfig, *models])
    script = _resolved(references[ConverterConfig], definitions)
    if not names:
        return {**script, "$defs": definitions}
    beside = _resolved(references[CodecConverterConfig], definitions)["properties"]
    members = {}
    for name, model in zip(names, models, strict=True):
        member = _resolved(references[model], definitions)
        member["properties"] = {**beside, "codec": {"const": name}, **member["properties"]}
        members[name] = member
    schema = _chosen("codec", members, definitions)
    schema["else"] = script
    return schema


def _sinks(catalogue: Catalogue) -> dict[str, Any]:
    names = sorted(catalogue.sinks)
    references, definitions = _together([catalogue.sinks[name] for name in names])
    members = {}
    for name in names:
        member = _resolved(references[catalogue.sinks[name]], definitions)
        member["properties"] = {"transport": {"const": name}, **member.get("properties", {})}
        members[name] = member
    schema = _chosen("transport", members, definitions)
    return _or_of_a_template(schema, ["transport"])


def _chosen(
    key: str, members: Mapping[str, dict[str, Any]], definitions: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the schema of a mapping whose `key` says which member it is.

    `if` and `then` rather than `oneOf`: an editor then says what is wrong with the one member that
    was meant, and not that none of all fits.
    """
    told = "\n".join(
        f"- `{name}`: {member.get('description', '').split(chr(10))[0]}"
        for name, member in members.items()
    )
    return {
        "type": "object",
        "properties": {key: {"enum": list(members), "description": told}},
        "if": {"required": [key]},
        "then": {
            "allOf": [
                {"if": {"properties": {key: {"const": name}}}, "then": member}
                for name, member in members.items()
            ]
        },
        "$defs": dict(definitions),
    }


def _together(
    models: list[type[BaseModel]],
) -> tuple[dict[type[BaseModel], dict[str, Any]], dict[str, Any]]:
    """Return references to the models, and the definitions that all of them share."""
    unique = list(dict.fromkeys(models))
    made, whole = models_json_schema([(model, "validation") for model in unique])
    return {model: made[model, "validation"] for model in unique}, whole.get("$defs", {})


def _resolved(reference: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    name = reference["$ref"].removeprefix("#/$defs/")
    schema = dict(definitions[name])
    schema["properties"] = dict(schema.get("properties", {}))
    return schema


def _filled_in(schema: Any) -> Any:
    """Return a schema that also takes `${env:…}` where it wants a number, a boolean or one of
    several texts.
    """
    if isinstance(schema, list):
        return [_filled_in(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: item if key == "default" else _filled_in(item) for key, item in schema.items()}
    narrow = any(key in made for key in ("pattern", "format", "maxLength"))
    kind = made.get("type")
    if not isinstance(kind, str):
        return made
    if kind in _NOT_TEXT or (kind == "string" and ("enum" in made or narrow)):
        told = {key: made.pop(key) for key in ("title", "description", "default") if key in made}
        return {**told, "anyOf": [made, _FILLED_IN]}
    return made


def _tidy(schema: Any, *, names: bool = False) -> Any:
    """Return a schema without what pydantic adds for nobody: a title a key, defaults that are not
    written as users write them (durations in milliseconds, places in their parts).

    `names`: the mapping's keys are names of ours, not words of JSON Schema.
    """
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: _tidy(item, names=not names and key in ("properties", "$defs"))
        for key, item in schema.items()
        if names or key not in ("title", "default")
    }
    default = schema.get("default")
    # Durations and places are those with a pattern; what is empty tells nobody anything.
    as_written = "pattern" not in str(schema) and default not in (None, "", [], {})
    if not names and as_written:
        made["default"] = default
    return made
