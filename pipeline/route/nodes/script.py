"""`script`: a message in; out whatever a script in JavaScript, Lua or TBEL makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import BeforeValidator, Field, model_validator

from pipeline.errors import MessageError
from pipeline.model.event import DeviceMessage
from pipeline.part import Part
from pipeline.ports import Script
from pipeline.route.fields import Target
from pipeline.route.message import time_text
from pipeline.route.node import THEN, Link, Node, Outcome
from pipeline.route.visit import Visit
from pipeline.rulebook.catalogue import Known, Problem, suggest

OTHERWISE = "otherwise"
MESSAGES_MAX = 500  # as `split`
SOURCE_CHARACTERS_MAX = 262_144
_TYPE_LENGTH_MAX = 64
_LANGUAGES = {"js": "javascript", "lua": "lua", "tbel": "tbel"}

# What ThingsBoard calls our types of messages, for scripts that were written there.
_THINGSBOARD = {"uplink": "POST_TELEMETRY_REQUEST", "attributes_updated": "ATTRIBUTES_UPDATED"}
_OURS = {theirs: ours for ours, theirs in _THINGSBOARD.items()}

# What a script may return of a message, and what it was given besides and may leave in.
_MADE = frozenset({"telemetry", "msg", "metadata", "type", "msgType", "outlet"})
_GIVEN = frozenset({"device", "attributes", "time", "time_ms"})


def _source(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


class ScriptConfig(Part):
    """The script, as text alone or with what else is to be said."""

    source: str | None = Field(default=None, max_length=SOURCE_CHARACTERS_MAX)
    file: str | None = Field(
        default=None, description="Instead: a file beside the chain, `.js`, `.lua` or `.tbel`."
    )
    language: Literal["javascript", "lua", "tbel"] | None = Field(
        default=None, description="By the file's ending, else `javascript`."
    )
    outlets: dict[str, Target] = Field(
        default={}, description="Where a message goes, by the text that the script returns."
    )

    @model_validator(mode="after")
    def _one_of(self) -> ScriptConfig:
        if self.source is None:
            raise ValueError("needs a script: `source`, or a `file` beside the chain")
        if not self.source.strip():
            raise ValueError("is empty")
        return self


class RunScript(Node):
    """Runs a script on the message, within limits of time and memory, in a process of its own.

    A body, as in ThingsBoard, sees `msg` (the telemetry), `metadata` and `msgType`. Or a function
    gets all of it: `handleMessage(message)` (in Lua `handle_message(message)`), with `telemetry`,
    `metadata`, `type`, `time`, `time_ms`, `device`, `attributes`. What it returns decides: a
    message (`{msg, metadata, msgType}` or `{telemetry, metadata, type, outlet}`), a list of them,
    true (`then`) or false (`otherwise`), a text or texts (named in `outlets`, or `then` and
    `otherwise`), or nothing, which ends the way. What a message leaves out stays as it came.

    - name: feels like
      script: |
        if (msg.temperature === undefined) return false;
        msg.feels_like = Math.round(msg.temperature - msg.battery / 100);
        return {msg: msg, metadata: metadata, msgType: msgType};
      otherwise: stop
    - name: which way
      script:
        language: lua
        source: |
          function handle_message(message)
            return message.telemetry.feels_like > 30 and "hot" or "then"
          end
        outlets: {hot: warn}
    - name: archive
      send: {to: archive}
      then: stop
    - name: warn
      log: {level: warning, message: "${device.name} feels like ${telemetry.feels_like}"}
    """

    verb: ClassVar[str] = "script"
    outlets: ClassVar[tuple[str, ...]] = (THEN, OTHERWISE)

    script: Annotated[
        ScriptConfig, BeforeValidator(_source, json_schema_input_type=str | ScriptConfig)
    ]
    then: Target | None = Field(default=None, description="A message, or true.")
    otherwise: Target | None = Field(default=None, description="False.")

    @classmethod
    def filled(
        cls, item: Mapping[str, Any], known: Known
    ) -> tuple[Mapping[str, Any], Sequence[Problem]]:
        """Put a file's text beside its name."""
        wanted = item.get("script")
        if not isinstance(wanted, dict) or wanted.get("source") is not None:
            return item, ()
        name = wanted.get("file")
        if not isinstance(name, str):
            return item, ()
        source = known.scripts.get(f"chains/{name}")
        if source is None:
            beside = [path.removeprefix("chains/") for path in known.scripts]
            hint = suggest(name, beside) or "put it beside the chain: a .js, .lua or .tbel file"
            text = f"there is no script chains/{name}"
            return item, [Problem(("script", "file"), text, hint, 0)]
        return {**item, "script": {**wanted, "source": source}}, ()

    @cached_property
    def compiled(self) -> Script:
        """The script as the engines take it."""
        config = self.script
        ending = (config.file or "").rpartition(".")[2]
        return Script(
            path=f"chains/{config.file}" if config.file else f"the script of `{self.name}`",
            language=config.language or _LANGUAGES.get(ending, "javascript"),  # type: ignore[arg-type]  # of _LANGUAGES
            source=config.source or "",
        )

    def scripts(self) -> tuple[tuple[tuple[str | int, ...], Script], ...]:
        """Return its one script."""
        return ((("script",), self.compiled),)

    def links(self) -> Iterator[Link]:
        """Yield a link a text that is named, called as its target."""
        for text, target in self.script.outlets.items():
            yield Link(target, target, ("script", "outlets", text))
        yield from super().links()

    def apply(self, visit: Visit) -> Outcome:
        """Return what the script says. ScriptError: it failed. MessageError (codes
        `script_result`, `script_outlet`): what it returned is no way to go on.
        """
        result = visit.run_script(self.compiled, _argument(visit))
        if result is None:
            return []
        if isinstance(result, bool):
            return THEN if result else OTHERWISE
        if isinstance(result, str):
            return self._outlet(result)
        if isinstance(result, dict):
            return [self._message(visit, result, None)]
        if not isinstance(result, list) or len(result) > MESSAGES_MAX:
            raise _unfit(f"a script returns a message, a list of at most {MESSAGES_MAX}, a text")
        return [
            (self._outlet(item), visit.message)
            if isinstance(item, str)
            else self._message(visit, item, number)
            for number, item in enumerate(result)
        ]

    def _outlet(self, name: str) -> str:
        if name in self.script.outlets:
            return self.script.outlets[name]
        if name in self.outlets:
            return name
        raise MessageError(
            f"the script returned {name[:_TYPE_LENGTH_MAX]!r}, which `outlets` does not name",
            code="script_outlet",
        )

    def _message(self, visit: Visit, made: Any, number: int | None) -> tuple[str, DeviceMessage]:
        if not isinstance(made, dict):
            raise _unfit("a list that a script returns holds messages or texts")
        odd = next((name for name in made if name not in _MADE and name not in _GIVEN), None)
        if odd is not None:
            raise _unfit(f"a message has no `{odd}`; put it into `telemetry` or `metadata`")
        message = visit.message
        telemetry = made.get("msg", made.get("telemetry", message.telemetry))
        metadata = made.get("metadata", message.metadata)
        if not isinstance(telemetry, dict) or not isinstance(metadata, dict):
            raise _unfit("the telemetry (`msg`) and the metadata of a message are objects")
        changes = {
            "telemetry": telemetry,
            "metadata": metadata,
            "type": _type(made, message.type),
        }
        outlet = self._outlet(str(made.get("outlet", THEN)))
        if number is None:
            return outlet, msgspec.structs.replace(message, **changes)
        return outlet, visit.successor(str(number), **changes)


def _argument(visit: Visit) -> dict[str, Any]:
    message, scope = visit.message, visit.scope
    return {
        "telemetry": message.telemetry,
        "metadata": message.metadata,
        "type": message.type,
        "msgType": _THINGSBOARD.get(message.type, message.type),
        "time": time_text(message.time_ms),
        "time_ms": message.time_ms,
        "device": scope["device"],
        "attributes": scope["attributes"],
    }


def _type(made: dict[str, Any], before: str) -> str:
    said = made.get("type", before)
    if said == before and "msgType" in made:
        said = made["msgType"]
        said = _OURS.get(said, said) if isinstance(said, str) else said
    if not isinstance(said, str) or not 0 < len(said) <= _TYPE_LENGTH_MAX:
        raise _unfit(f"the type of a message is text of 1 to {_TYPE_LENGTH_MAX} characters")
    return said


def _unfit(message: str) -> MessageError:
    return MessageError(message, code="script_result")


NODE = RunScript
