"""A catalogue → the JSON Schemas of the files in a rules folder, for editors and `schema`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from pipeline.rulebook.catalogue import Catalogue
from pipeline.rulebook.checks import FolderConfig
from pipeline.rulebook.codec_converter import CodecConverterConfig
from pipeline.rulebook.converter import ConverterConfig
from pipeline.rulebook.integration import IntegrationConfig

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(catalogue: Catalogue) -> dict[str, dict[str, Any]]:
    """Return a schema a kind of file: `funicular`, `integrations`, `converters`, `sinks` and,
    where the catalogue has it, `chains`. Each stands alone.
    """
    schemas = {
        "funicular": _plain(FolderConfig),
        "integrations": _integrations(catalogue),
        "converters": _converters(catalogue),
        "sinks": _sinks(catalogue),
    }
    if catalogue.chain_schema:
        schemas["chains"] = {"$schema": _DRAFT, **catalogue.chain_schema}
    return schemas


def _plain(model: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": _DRAFT, **model.model_json_schema()}


def _integrations(catalogue: Catalogue) -> dict[str, Any]:
    options = {name: dialect.options for name, dialect in sorted(catalogue.dialects.items())}
    references, definitions = _together([IntegrationConfig, *options.values()])
    schema = _resolved(references[IntegrationConfig], definitions)
    schema["properties"]["dialect"] = {
        **schema["properties"]["dialect"],
        "enum": list(options),
    }
    schema["allOf"] = [
        {
            "if": {"properties": {"dialect": {"const": name}}},
            "then": {"properties": {"options": references[model]}},
        }
        for name, model in options.items()
    ]
    return {"$schema": _DRAFT, **schema, "$defs": definitions}


def _converters(catalogue: Catalogue) -> dict[str, Any]:
    if not catalogue.codecs:
        return _plain(ConverterConfig)
    names = sorted(catalogue.codecs)
    models = [catalogue.codecs[name] for name in names]
    references, definitions = _together([ConverterConfig, CodecConverterConfig, *models])
    members = [_resolved(references[ConverterConfig], definitions)]
    beside = _resolved(references[CodecConverterConfig], definitions)["properties"]
    for name, model in zip(names, models, strict=True):
        member = _resolved(references[model], definitions)
        member["properties"] = {**beside, "codec": {"const": name}, **member["properties"]}
        member["required"] = sorted({"codec", *member.get("required", [])})
        members.append(member)
    return {"$schema": _DRAFT, "title": "Converter", "anyOf": members, "$defs": definitions}


def _sinks(catalogue: Catalogue) -> dict[str, Any]:
    names = sorted(catalogue.sinks)
    references, definitions = _together([catalogue.sinks[name] for name in names])
    members = []
    for name in names:
        member = _resolved(references[catalogue.sinks[name]], definitions)
        member["properties"] = {"transport": {"const": name}, **member.get("properties", {})}
        member["required"] = sorted({"transport", *member.get("required", [])})
        members.append(member)
    return {"$schema": _DRAFT, "title": "Sink", "oneOf": members, "$defs": definitions}


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
