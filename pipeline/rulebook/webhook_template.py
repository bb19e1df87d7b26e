"""A webhook template of The Things Stack, as it stands → a template of a sink.

Format: TheThingsNetwork/lorawan-webhook-templates (`schema/lorawan_webhook_templates.go`) and the
documentation's "Instantiation"; how base address and path are joined and which path variables
there are: `pkg/applicationserver/io/web/request.go` of lorawan-stack. The body is that of The
Things Stack's webhooks. All fields are sent, whatever its `field-mask` leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, Field, field_validator
from uritemplate import URITemplate

from pipeline.part import Part
from pipeline.rulebook.catalogue import Problem
from pipeline.rulebook.template import ServiceTemplate, VariableConfig, without_empty_headers
from pipeline.rulebook.validation import validate

MARK = "template-id"
"""The key by which such a template is known from one of ours."""
UPLINK = "uplink-message"
_DEVICE = {
    "appID": "application_id",
    "applicationID": "application_id",
    "devID": "device_id",
    "deviceID": "device_id",
    "devEUI": "dev_eui",
}
"""The path variables that a sink's address has too."""


def _hyphens(name: str) -> str:
    return name.replace("_", "-")


class _Part(Part):
    # What The Things Stack adds to its format some day is passed over, as it does itself.
    model_config = ConfigDict(extra="ignore", alias_generator=_hyphens)


class FieldConfig(_Part):
    """One of `fields`: what a user fills in."""

    id: str = Field(min_length=1, max_length=200)
    name: str = ""
    description: str = ""
    secret: bool = False
    default_value: str | None = None
    optional: bool = False

    @field_validator("default_value", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return str(value).lower()
        return str(value) if isinstance(value, int | float) else value


class WebhookTemplateConfig(_Part):
    """The template; `paths` by the kind of message."""

    template_id: str = Field(min_length=1, max_length=200)
    name: str = ""
    description: str = ""
    documentation_url: str = ""
    base_url: str = Field(min_length=1, max_length=4_096)
    headers: dict[str, str] = Field(default_factory=dict, max_length=50)
    format: str = "json"
    fields: tuple[FieldConfig, ...] = Field(default=(), max_length=50)
    paths: dict[str, str | None] = Field(default_factory=dict)

    @field_validator("headers", "paths", mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("fields", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return () if value is None else value


def parse_webhook_template(document: Any) -> tuple[ServiceTemplate | None, list[Problem]]:
    """Return the template, or None and all that is wrong with it."""
    config, problems = validate(WebhookTemplateConfig, document)
    if config is None:
        return None, problems
    problems += _unfit(config)
    if problems:
        return None, problems
    variables = {
        each.id: VariableConfig(
            description=each.description or each.name or each.id,
            secret=each.secret,
            default=each.default_value or None,
            optional=each.optional,
        )
        for each in config.fields
    }
    template = ServiceTemplate(
        "sink",
        config.name or config.template_id,
        config.description,
        config.documentation_url,
        variables,
        lambda values: (_fill(config, values), []),
    )
    return template, []


def _unfit(config: WebhookTemplateConfig) -> Iterator[Problem]:
    if config.format != "json":
        message = f"the format `{config.format}` is not written here; `json` is"
        yield Problem(("format",), message)
    if config.paths.get(UPLINK) is None:
        yield Problem(("paths",), f"it takes no uplinks: `{UPLINK}` is missing")
    known = {each.id for each in config.fields} | set(_DEVICE)
    for path, text in ((("base-url",), config.base_url), (("paths", UPLINK), _uplink(config))):
        for name in URITemplate(text).variable_names:
            if name not in known:
                message = f"there is no field `{name}`, and no path variable of that name here"
                yield Problem(path, message)


def _uplink(config: WebhookTemplateConfig) -> str:
    return config.paths.get(UPLINK) or ""


def _fill(config: WebhookTemplateConfig, values: Mapping[str, str]) -> dict[str, Any]:
    base, path = _expanded(config.base_url, values), _expanded(_uplink(config), values)
    headers = {}
    for name, text in config.headers.items():
        value = text
        for field, given in values.items():
            value = value.replace(f"{{{field}}}", given)
        headers[name] = value.strip()
    document = {
        "transport": "http",
        "url": _joined(base, path),
        "headers": headers,
        "format": "tts_v3",
    }
    return without_empty_headers(document)


def _expanded(text: str, values: Mapping[str, str]) -> str:
    """Return an address with the fields filled in, and path variables as a sink has them."""
    # The braces of what a sink fills in later would be encoded: they go in as marks.
    marks = {name: f"\N{SYMBOL FOR NULL}{ours}" for name, ours in _DEVICE.items()}
    made = URITemplate(text).expand({**marks, **values})
    for ours in set(_DEVICE.values()):
        made = made.replace(f"%E2%90%80{ours}", f"{{{ours}}}")
        made = made.replace(f"\N{SYMBOL FOR NULL}{ours}", f"{{{ours}}}")
    return made


def _joined(base: str, path: str) -> str:
    address, question, query = base.partition("?")
    path, more, own = path.partition("?")
    if path and not address.endswith("/"):
        address += "/"
    address += path.lstrip("/")
    query = own if more else query
    return f"{address}?{query}" if question or more else address
