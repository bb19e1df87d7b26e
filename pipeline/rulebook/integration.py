"""`integrations/<name>.yaml` → an Integration with all defaults filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SecretStr,
    StringConstraints,
    Tag,
)

from pipeline.integrations.dialect import HTTP, Asynchronous, Dialect
from pipeline.part import Part
from pipeline.rulebook.book import Authentication, Integration
from pipeline.rulebook.catalogue import Catalogue, Known, Problem, suggest
from pipeline.rulebook.choosing import CHOICES_MAX, ChoiceConfig, choices_of
from pipeline.rulebook.connection import connection_of
from pipeline.rulebook.duration import Duration
from pipeline.rulebook.validation import validate

ANSWER_TIMEOUT_S_MAX = 300.0
QUEUE_MAX = 100  # waiting downlinks a device, unless the integration says otherwise
BODY_BYTES_MAX = 1_048_576
BODY_BYTES_LIMIT = 16_777_216  # what becomes of a body is larger, and the log's records have 64 MiB

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a whole number")  # noqa: TRY004 - pydantic reads ValueErrors
    return value


_COUNT = BeforeValidator(_no_boolean)  # last, since JSON Schema has no limits that follow it
Secret = Annotated[SecretStr, Field(min_length=1)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]


class HeaderConfig(Part):
    """`{header: X-Api-Key, value: …}`."""

    header: HeaderName
    value: Secret

    def made(self) -> Authentication:
        """Return it as the door compares it: header names in lower case."""
        return Authentication("header", self.header.lower(), self.value.get_secret_value())


class QueryConfig(Part):
    """`{query: key, value: …}`."""

    query: Annotated[str, Field(min_length=1, max_length=64)]
    value: Secret

    def made(self) -> Authentication:
        """Return it as the door compares it."""
        return Authentication("query", self.query, self.value.get_secret_value())


class BearerConfig(Part):
    """`{bearer: …}`."""

    bearer: Secret

    def made(self) -> Authentication:
        """Return it as the door compares it."""
        return Authentication("bearer", "", self.bearer.get_secret_value())


class UserConfig(Part):
    """`{user: …, password: …}`."""

    user: Annotated[str, StringConstraints(pattern=r"^[^:]+$")]
    password: Secret


class BasicConfig(Part):
    """`{basic: {user: …, password: …}}`."""

    basic: UserConfig

    def made(self) -> Authentication:
        """Return it as the door compares it."""
        user = self.basic
        return Authentication("basic", user.user, user.password.get_secret_value())


_KINDS = ("header", "bearer", "basic", "query")


def _authentication_kind(value: Any) -> str | None:
    """Tell the members apart by their key; a tag has a space, so that it is no key itself."""
    if value == "open":
        return "open authentication"
    if isinstance(value, dict):
        kinds = [kind for kind in _KINDS if kind in value]
        return f"{kinds[0]} authentication" if len(kinds) == 1 else None
    return None


AuthenticationConfig = Annotated[
    Annotated[Literal["open"], Tag("open authentication")]
    | Annotated[HeaderConfig, Tag("header authentication")]
    | Annotated[QueryConfig, Tag("query authentication")]
    | Annotated[BearerConfig, Tag("bearer authentication")]
    | Annotated[BasicConfig, Tag("basic authentication")],
    Discriminator(
        _authentication_kind,
        custom_error_type="authentication",
        custom_error_message=(
            "must be `open`, or one of `{header: …, value: …}`, `{bearer: …}`, "
            "`{basic: {user: …, password: …}}`, `{query: …, value: …}`"
        ),
    ),
]


class IntegrationDefaults(Part):
    """What `funicular.yaml` may say once for all integrations, under `defaults:`."""

    unanswered: Literal["requeue", "fail"] = "requeue"
    queue_max: Annotated[int, Field(ge=1, le=10_000), _COUNT] = QUEUE_MAX
    body_bytes_max: Annotated[int, Field(ge=1, le=BODY_BYTES_LIMIT), _COUNT] = BODY_BYTES_MAX
    ordered: bool = True
    metadata: dict[str, Any] = {}


class IntegrationConfig(Part):
    """What a user writes in `integrations/<name>.yaml`."""

    dialect: Annotated[str, Field(description="the network server's way of speaking")]
    authentication: Annotated[
        AuthenticationConfig,
        Field(description="write `authentication: open` if anyone may send"),
    ]
    converter: Annotated[
        str | None, Field(description="of all devices for which nothing more special is found")
    ] = None
    converters: Annotated[
        list[ChoiceConfig],
        Field(max_length=CHOICES_MAX, description="of some devices; the first that fits"),
    ] = []
    device: str | None = None
    device_type: str = ""
    synchronous: bool | None = None
    answer_timeout: Annotated[Duration, Field(gt=0, le=ANSWER_TIMEOUT_S_MAX)] | None = None
    unanswered: Literal["requeue", "fail"] | None = None
    queue_max: Annotated[int, Field(ge=1, le=10_000), _COUNT] | None = None
    body_bytes_max: Annotated[int, Field(ge=1, le=BODY_BYTES_LIMIT), _COUNT] | None = None
    ordered: bool | None = None
    metadata: dict[str, Any] = {}
    options: dict[str, Any] = {}
    transport: Annotated[str, Field(description="how messages come")] = HTTP
    connection: dict[str, Any] = {}


def parse_integration(
    document: Mapping[str, Any],
    *,
    name: str,
    tenant: str,
    defaults: IntegrationDefaults,
    catalogue: Catalogue,
    known: Known,
) -> tuple[Integration | None, list[Problem]]:
    """Return the integration, or None, and all that is wrong with its document."""
    transport = document.get("transport", HTTP)
    connected = isinstance(transport, str) and transport != HTTP
    # Who connects to a broker proves himself there; there is no door that anybody could post to.
    shown = {"authentication": "open", **document} if connected else document
    config, problems = validate(IntegrationConfig, shown)
    dialect = catalogue.dialects.get(_text(document, "dialect"))
    if dialect is None and isinstance(document.get("dialect"), str):
        problems.append(_no_such("dialect", document["dialect"], catalogue.dialects))
    converter = document.get("converter")
    if isinstance(converter, str) and converter not in known.converters:
        problems.append(_no_such("converter", converter, known.converters))
    if dialect is None:
        return None, problems
    options, more = validate(dialect.options, document.get("options", {}), ("options",))
    problems.extend(_without_doubles(problems, more))
    connection, more = connection_of(document, dialect, options, catalogue.transports)
    problems.extend(_without_doubles(problems, more))
    choices, more = choices_of(config.converters if config else [], known, ("converters",))
    problems.extend(more)
    template = _text(document, "device") or dialect.device_template
    if isinstance(document.get("device"), str):
        problems.extend(_check_template(_text(document, "device"), dialect))
    if document.get("synchronous") is True and _only_accepts(dialect):
        message = f"{dialect.name} cannot carry a downlink in its answer"
        problems.append(Problem(("synchronous",), message, "leave `synchronous` out", 0))
    if config is None or any(not problem.warns for problem in problems):
        return None, problems
    named = (tenant, name, template)
    made = _made(named, config, defaults, dialect, options)
    stays_open = connection is not None and connection.stays_open and not _only_accepts(dialect)
    synchronous = config.synchronous is None and stays_open
    return replace(
        made,
        transport=config.transport,
        connection=connection,
        converters=choices,
        synchronous=made.synchronous or synchronous,
    ), problems


def _made(
    named: tuple[str, str, str],
    config: IntegrationConfig,
    defaults: IntegrationDefaults,
    dialect: Dialect,
    options: Any,
) -> Integration:
    tenant, name, template = named

    def chosen(value: Any, default: Any) -> Any:
        return default if value is None else value

    authentication = config.authentication
    return Integration(
        tenant=tenant,
        name=name,
        dialect=dialect,
        options=options,
        authentication=(
            Authentication() if isinstance(authentication, str) else authentication.made()
        ),
        device_template=template,
        converter=config.converter,
        synchronous=chosen(config.synchronous, dialect.synchronous),
        answer_timeout_s=chosen(config.answer_timeout, dialect.answer_timeout_s),
        unanswered=chosen(config.unanswered, defaults.unanswered),
        queue_max=chosen(config.queue_max, defaults.queue_max),
        body_bytes_max=chosen(config.body_bytes_max, defaults.body_bytes_max),
        ordered=chosen(config.ordered, defaults.ordered),
        metadata={**defaults.metadata, **config.metadata},
        device_type=config.device_type,
    )


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""


def _no_such(key: str, name: str, names: Any) -> Problem:
    all_names = sorted(names)
    listed = f"there are {', '.join(f'`{each}`' for each in all_names)}" if all_names else ""
    return Problem((key,), f"there is no {key} `{name}`", suggest(name, all_names) or listed, 0)


def _without_doubles(first: list[Problem], more: list[Problem]) -> list[Problem]:
    """`options: 5` is wrong for the integration's model and the dialect's; once is enough."""
    paths = {problem.path for problem in first}
    return [problem for problem in more if problem.path not in paths]


def _check_template(template: str, dialect: Dialect) -> list[Problem]:
    problems = []
    variables = dialect.device_variables
    listed = ", ".join(f"`{{{variable}}}`" for variable in variables)
    found = list(_PLACEHOLDER.finditer(template))
    for placeholder in found:
        if placeholder[1] not in variables:
            near = suggest(placeholder[1], variables)
            hint = (
                near.replace("`", "`{", 1)[:-2] + "}`?" if near else f"{dialect.name} has {listed}"
            )
            message = f"{dialect.name} knows no `{placeholder[0]}` of a device"
            problems.append(Problem(("device",), message, hint, placeholder.start()))
    rest = _PLACEHOLDER.sub("", template)
    if "{" in rest or "}" in rest:
        problems.append(Problem(("device",), "a brace without its partner", "", 0))
    elif not found:
        message = "names no variable, so that all devices would be one"
        problems.append(Problem(("device",), message, f"{dialect.name} has {listed}", 0))
    return problems


def _only_accepts(dialect: Dialect) -> bool:
    """Return whether the dialect's answer is the plain 202, which carries nothing."""
    return getattr(type(dialect), "answer", None) is Asynchronous.answer
