"""A new integration's YAML, to be filled in: what `funicular new integration` writes.

In: a name, a dialect, a transport. Out: the text of `integrations/<name>.yaml`, which `check` takes
as it is, but for what only the user knows: those values are asked for by `${env:…}`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from pipeline.errors import UsageError
from pipeline.integrations.dialect import HTTP, Dialect, usual_transport
from pipeline.rulebook.catalogue import suggest
from pipeline.rulebook.connections.connection_config import ConnectionConfig
from pipeline.rulebook.folder import NAME, NAME_RULE

_VARIABLE = "VARIABLE"
_APPLICATION = f'  application_id: "${{env:{_VARIABLE}_APPLICATION}}"'
# What a dialect, or a dialect over one transport, needs besides its connection, to be replaced by
# what is the user's.
_NEEDED = {
    "ttn_v2/poll": _APPLICATION,
    "tts_v3/poll": _APPLICATION,
    "mqtt": "  topic: sensors/{device_id}/{kind}   # yours; `{kind}` may be left out",
    "aws_iot": "  topic: dt/{application}/{device_id}/{kind}   # yours",
    "azure_iot_hub": f'  device_id: "${{env:{_VARIABLE}_DEVICE}}"',
}


def dialect_of(dialects: Mapping[str, Dialect], name: str) -> Dialect:
    """Return a dialect by name. UsageError: there is none."""
    if name not in dialects:
        listed = ", ".join(sorted(dialects))
        hint = suggest(name, dialects) or f"there are {listed}"
        raise UsageError(f"there is no dialect `{name}`: {hint}", code="no_dialect")
    return dialects[name]


def new_integration(
    name: str,
    dialect: Dialect,
    transport: str = "",
    *,
    transports: Mapping[str, type[ConnectionConfig]],
) -> str:
    """Return the YAML. `transport` empty: the dialect's usual one. UsageError: the name cannot
    be one, there is no such transport, or the dialect does not come that way.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"`{name}` cannot be a name: {NAME_RULE}", code="name")
    usual = usual_transport(dialect)
    chosen = transport or usual
    if chosen not in {HTTP, *transports}:
        listed = ", ".join([HTTP, *sorted(transports)])
        raise UsageError(f"there is no transport `{chosen}`: there are {listed}", code="transport")
    if chosen != HTTP and (refused := transports[chosen].carries(dialect)):
        raise UsageError(refused[0].message, code="transport")
    if chosen == HTTP and usual != HTTP:
        said = f"the dialect `{dialect.name}` is not posted over HTTP; it comes over {usual}"
        raise UsageError(said, code="transport")
    lines = [*_about(dialect), f"dialect: {dialect.name}"]
    variable = re.sub(r"[^A-Z0-9]", "_", name.upper())
    if chosen == HTTP:
        lines += _door(dialect, variable)
    else:
        given = transports[chosen].template(dialect, variable)
        lines += [f"transport: {chosen}", "connection:", *given]
        if dialect.synchronous and not transports[chosen].answers:
            lines.append(f"synchronous: false   # a message over {chosen} is not answered")
    names = ", ".join(f"{{{each}}}" for each in dialect.device_variables)
    lines += [
        "# converter: vendor/model     # makes telemetry of the payload",
        "# device_type: thermostat     # what chains know its devices by",
        f'# device: "{dialect.device_template}"   # how devices are named; there are {names}',
    ]
    needed = _NEEDED.get(f"{dialect.name}/{chosen}") or _NEEDED.get(dialect.name, "")
    lines += _options(dialect.options, needed=needed.replace(_VARIABLE, variable))
    return "\n".join(lines) + "\n"


def write_new(rules: Path, name: str, text: str) -> Path:
    """Write the file and return its path. UsageError: it is there already, or cannot be written."""
    path = rules / "integrations" / f"{name}.yaml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already; choose another name", code="exists") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", code="unwritable") from None
    return path


def _about(dialect: Dialect) -> list[str]:
    """Return the first paragraph of the dialect's module, as a comment."""
    module = inspect.getmodule(type(dialect))
    told = inspect.getdoc(module) or dialect.name if module else dialect.name
    return [f"# {line}" for line in told.split("\n\n")[0].splitlines()]


def _door(dialect: Dialect, variable: str) -> list[str]:
    if dialect.name == "sigfox":
        secret = ["  basic:", "    user: sigfox", f'    password: "${{env:{variable}_KEY}}"']
    elif dialect.name == "ttn_v2":
        secret = ["  header: Authorization", f'  value: "${{env:{variable}_KEY}}"']
    else:
        secret = [f'  bearer: "${{env:{variable}_KEY}}"']
    return ["authentication:   # what the network server shows; a secret of your own", *secret]


def _options(model: type[BaseModel], *, needed: str) -> list[str]:
    """Return the dialect's options, commented, under what their model says of them."""
    told = [f"# {line}".rstrip() for line in _told(model).splitlines()]
    if not model.model_fields:
        return told
    set_already = needed.partition(":")[0].strip()
    named = [f"#   {name}: …" for name in model.model_fields if name != set_already]
    head = ["options:", needed] if needed else ["# options:"]
    return ["", *told, *head, *named]


def _told(model: type[BaseModel]) -> str:
    """Return what a model says of its options, and what those that it extends say of theirs that
    it says nothing of.
    """
    told = ""
    for each in model.__mro__:
        fields = vars(each).get("__annotations__", {}).keys() & model.model_fields.keys()
        own = inspect.cleandoc(vars(each).get("__doc__") or "")
        if own and any(f"`{name}`" not in told for name in fields):
            told = f"{told}\n\n{own}" if told else own
    return told
