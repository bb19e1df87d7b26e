"""An integration's `connection:` with `transport: poll`: which web API is asked, and how.

Either `storage`, where a dialect's network server keeps messages (the dialect knows how), or `url`
with expressions that say what of an answer is a message and how to go on.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import orjson
from pydantic import Field, SecretStr, field_validator, model_validator

from pipeline.expression import (
    Expression,
    ExpressionFault,
    Value,
    compile_expression,
    compile_value,
)
from pipeline.integrations.dialect import Dialect, Stored
from pipeline.rulebook.catalogue import Problem
from pipeline.rulebook.connections.connection_config import ConnectionConfig
from pipeline.rulebook.connections.tls import TlsConfig
from pipeline.rulebook.duration import Duration

MIB = 1024 * 1024
ASKED_BY = frozenset({"cursor", "page", "now"})
ANSWERED = frozenset({"body", "headers", "cursor", "page"})
ITEMS = "body"
_STORAGES = {
    "tts_v3": "https://eu1.cloud.thethings.network",
    "ttn_v2": "https://my-app.data.thethingsnetwork.org",
}
_Expression = Annotated[str, Field(max_length=1_000)]


class PollConfig(ConnectionConfig):
    """`storage`: the address of the network server's storage; or `url`, any API.

    Of both: `key` (or `bearer`: the same), `headers`; `interval`; `timeout` of one request;
    `bytes_max` of one answer; `tls`; `remember`: so many messages are known when they come again.
    Of `storage`: `overlap` is asked for again each time, as messages may be stored late; `back`:
    how far the first time.
    Of `url`: `method`, `query` and `body` (of POST), which may hold `${cursor}`, `${page}`,
    `${now}`; what of `query` is null is left out. `lines`: the answer is a JSON document a line.
    `items`: an expression over `body` (and `headers`) that gives the list of messages. `cursor`:
    one that may also use `items`, and gives what `${cursor}` is the next time; `start` is the
    first time's; of several pages the `last` one's counts, the `first` one's, or the `greatest`
    (`cursor_of`). `next`: gives what `${page}` is for the next page, or its address; null: there is
    none. `pages_max`: of one round.
    """

    storage: str = Field(default="", max_length=2_048)
    url: str = Field(default="", max_length=8_192, repr=False)
    method: Literal["GET", "POST"] = "GET"
    query: dict[str, Any] = Field(default_factory=dict, max_length=100)
    body: Any = None
    headers: dict[str, SecretStr] = Field(default_factory=dict, max_length=50)
    key: SecretStr | None = None
    bearer: SecretStr | None = None
    interval: Annotated[Duration, Field(ge=1, le=30 * 86_400)] = 60.0
    timeout: Annotated[Duration, Field(gt=0, le=600)] = 30.0
    bytes_max: Annotated[int, Field(ge=1_024, le=256 * MIB)] = 16 * MIB
    tls: TlsConfig | None = None
    remember: Annotated[int, Field(ge=0, le=10_000)] = 2_000
    overlap: Annotated[Duration, Field(ge=0, le=86_400)] = 60.0
    back: Annotated[Duration, Field(ge=0, le=365 * 86_400)] = 3_600.0
    lines: bool = False
    items: _Expression = ITEMS
    cursor: _Expression = ""
    cursor_of: Literal["last", "first", "greatest"] = "last"
    start: Any = None
    next: _Expression = ""
    pages_max: Annotated[int, Field(ge=1, le=10_000)] = 100

    @field_validator("storage", "url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not url:
            return url
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:
            host = None
        if not host or parts.scheme not in {"http", "https"} or not url.isprintable() or " " in url:
            raise ValueError("must be a web address, as https://api.example.com/readings")
        if parts.username or parts.password:
            raise ValueError("must hold no user or password: give `bearer` or `headers`")
        if "${" in url:
            raise ValueError("holds an expression: put what changes into `query`")
        return url

    @field_validator("items", "cursor", "next")
    @classmethod
    def _compiles(cls, text: str, info: Any) -> str:
        try:
            if text:
                answer_expression(text, with_items=info.field_name != "items")
        except ExpressionFault as fault:
            raise ValueError(_said(fault)) from None
        return text

    @field_validator("query", "body")
    @classmethod
    def _holds_expressions(cls, value: Any) -> Any:
        try:
            compile_value(value, names=ASKED_BY)
        except ExpressionFault as fault:
            raise ValueError(_said(fault)) from None
        return value

    @field_validator("start")
    @classmethod
    def _as_json(cls, start: Any) -> Any:
        """A time that YAML reads as one is its text, as it is when it comes back from the log."""
        try:
            return orjson.loads(orjson.dumps(start))
        except TypeError:
            raise ValueError("must be text, a number, or a map or list of these") from None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if bool(self.storage) == bool(self.url):
            raise ValueError("give `url`, or `storage` (of a network server): one of the two")
        if self.key is not None and self.bearer is not None:
            raise ValueError("`key` and `bearer` are the same: give one of the two")
        if self.storage:
            only = {"method", "query", "body", "lines", "items", "cursor", "cursor_of", "start",
                    "next"} & self.model_fields_set  # fmt: skip
            if only:
                raise ValueError(f"`{min(only)}` is of `url`: with `storage` the dialect knows")
        elif "{" in self.url:
            raise ValueError("`url` holds a brace: put what changes into `query`")
        if self.body is not None and self.method == "GET":
            raise ValueError("`body` needs `method: POST`")
        return self

    @property
    def one_owner(self) -> bool:
        """Two workers would bring everything twice."""
        return True

    @property
    def secret(self) -> str:
        """The key, empty where there is none."""
        key = self.key or self.bearer
        return key.get_secret_value() if key is not None else ""

    def together(self, dialect: Dialect, options: Any) -> list[Problem]:
        """See `ConnectionConfig`."""
        if not self.storage:
            return []
        if not isinstance(dialect, Stored):
            said = f"{dialect.name} has no storage that could be asked"
            hint = "give `url`, `items` and `cursor`"
            return [Problem(("connection", "storage"), said, hint, 0)]
        if not getattr(options, "application_id", ""):
            hint = "write `options: {application_id: …}`"
            return [Problem(("connection", "storage"), "it is asked by application", hint, 0)]
        return []

    @classmethod
    def template(cls, dialect: Dialect, variable: str) -> list[str]:
        """See `ConnectionConfig`."""
        key = f'  key: "${{env:{variable}_KEY}}"'
        if isinstance(dialect, Stored):
            return [
                f"  storage: {_STORAGES.get(dialect.name, 'https://server.example.com')}",
                f"{key}   # and `options: application_id`, below",
                "  interval: 1m",
                "  # back: 1h      # how far the first time",
            ]
        return [
            "  url: https://api.example.com/v1/readings",
            key.replace("  key", "  bearer"),
            "  interval: 1m",
            "  query:",
            '    after: "${cursor}"    # left out while there is none',
            "  items: body.readings    # the list of messages in the answer",
            "  cursor: items[size(items) - 1].time",
            '  # start: "2026-01-01T00:00:00Z" # the first cursor',
            "  # next: body.next               # the next page: its address, or `${page}`",
        ]


@cache
def answer_expression(text: str, *, with_items: bool) -> Expression:
    """Return an expression over an answer. ExpressionFault: it is none."""
    return compile_expression(text, names=ANSWERED | ({"items"} if with_items else frozenset()))


def asking_value(value: Any) -> Value:
    """Return what a request's `query` or `body` is made by."""
    return compile_value(value, names=ASKED_BY)


def _said(fault: ExpressionFault) -> str:
    hint = f" ({fault.suggestion})" if fault.suggestion else ""
    return f"{fault.message}{hint}"
