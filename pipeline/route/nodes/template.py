"""`template`: a message in, a new message with a text that expressions fill out by `then`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from pipeline.errors import ExpressionError, MessageError
from pipeline.expression import Value
from pipeline.part import Part
from pipeline.route.fields import FieldFault, template_text
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Draft, Place
from pipeline.route.turn import encode
from pipeline.route.visit import Visit

CHARACTERS_MAX = 65_536
LINES_MAX = 1_000


def _lines(value: Any) -> tuple[Value, ...]:
    if not isinstance(value, str) or not value:
        raise FieldFault("must be text; `${ … }` in it holds an expression")
    lines = value.split("\n")
    if len(lines) > LINES_MAX:
        raise FieldFault(f"must have at most {LINES_MAX} lines")
    made = []
    offset = 0
    for line in lines:
        try:
            made.append(template_text(line))
        except FieldFault as fault:
            at = None if fault.offset is None else offset + fault.offset
            raise FieldFault(fault.message, suggestion=fault.suggestion, offset=at) from fault
        offset += len(line) + 1
    return tuple(made)


Lines = Annotated[
    tuple[Value, ...],
    PlainValidator(_lines),
    WithJsonSchema({"type": "string", "description": "Text; `${ … }` in it holds an expression."}),
]


class TextConfig(Part):
    """The text, and where it goes."""

    text: Lines = Field(description="The text, of one line or many.")
    into: Place = Field(description="Where it goes.")
    missing: Literal["fail", "leave_out"] = Field(
        default="fail",
        description="What becomes of a line whose expressions have no value here, as for a field "
        "that the message does not bring.",
    )


class Template(Onward):
    """Writes a text of what the message and its device say: for a person, an e-mail, a display.

    Numbers, times and truth values stand in it as JSON has them, lists and mappings as JSON. With
    `missing: leave_out` a line that cannot be told is not there; otherwise the node fails.

    - name: in words
      template:
        into: metadata.text
        missing: leave_out
        text: |
          ${device.name} is at ${telemetry.temperature} °C.
          It should be ${attributes.shared.target} °C.
          Its door is ${telemetry.door}.
    - name: tell the application
      send: {to: application, body: {text: "${metadata.text}"}}
    """

    verb: ClassVar[str] = "template"
    acts: ClassVar[bool] = False

    template: TextConfig

    def apply(self, visit: Visit) -> Outcome:
        """Return a new message by `then`. ExpressionError: a line has no value. MessageError (code
        `template`): the text is too long.
        """
        config, told = self.template, []
        for line in config.text:
            try:
                text = line(visit.scope)
            except ExpressionError:
                if config.missing == "fail":
                    raise
            else:
                told.append(text if isinstance(text, str) else encode(text).decode())
        whole = "\n".join(told)
        if len(whole) > CHARACTERS_MAX:
            raise MessageError(
                f"the text has {len(whole)} characters", code="template", limit=CHARACTERS_MAX
            )
        draft = Draft(visit.message)
        draft.put(config.into, whole)
        return [("then", draft.message())]


NODE = Template
