"""An explanation → lines for a terminal: each with a style, which the command colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pipeline.rehearse.effects import Effect
from pipeline.rehearse.evaluation import Evaluation, short
from pipeline.rehearse.explanation import Explanation
from pipeline.rehearse.report import printable
from pipeline.rehearse.step_changes import Change
from pipeline.rehearse.trace import ChainRun, Fault, ScriptRun, Step

Style = Literal["head", "node", "why", "change", "exit", "fault", "plain", "faint"]

_MESSAGE_SHOWN = ("telemetry", "attributes", "changed", "previous", "metadata", "warnings")
_EFFECTS = {"downlink": "asks for a downlink", "delivery": "sends to", "event": "tells"}

_CONVERTERS = ("decode_uplink", "encode_downlink", "decode_downlink", "normalize_uplink")
_BY = {
    "timer": "its timer was due",
    "reply": "what it waited for came",
    "arrival": "another device handed it over",
}


class Line(NamedTuple):
    """One line; `style` is for its colour."""

    text: str
    style: Style = "plain"


def lines(explanation: Explanation) -> list[Line]:
    """Return all that a terminal is shown. Texts of devices and scripts cannot steer it."""
    made = [
        Line(f"rules of {explanation.tenant}, version {explanation.rules}", "head"),
        Line(f"state before: {explanation.start.text}", "faint"),
        *_before(explanation),
        *(Line(f"note: {note}", "faint") for note in explanation.notes),
    ]
    downlinks = {effect.id: effect for effect in explanation.effects.downlinks}
    for told in explanation.told:
        made.append(Line(""))
        made += _script(told) if isinstance(told, ScriptRun) else _run(told, downlinks)
    made += _untaken(explanation)
    made += _outcome(explanation)
    return [Line(printable(text), style) for text, style in made]


def _before(explanation: Explanation) -> Iterator[Line]:
    for key, kept in explanation.before.items():
        of = f" of {key}" if len(explanation.before) > 1 else ""
        for name, value in kept.items():
            yield Line(f"  {name}{of}: {short(value)}", "faint")


def _script(told: ScriptRun) -> Iterator[Line]:
    is_converter = told.operation in _CONVERTERS
    said = f"converter {told.script}  {told.operation}" if is_converter else f"script {told.script}"
    yield Line(said, "head")
    for name, value in told.argument.items():
        yield Line(f"    {name}: {_value(value)}")
    if told.fault is not None:
        yield from _fault(told.fault, "    ")
        return
    result = told.result
    if told.operation == "encode_downlink" and isinstance(result, dict) and "bytes" in result:
        port = result.get("fPort")
        at_port = "" if port is None else f"  port {port}"
        yield Line(f"    → {_hex(result['bytes'])}{at_port}", "change")
    else:
        data = result.get("data", result) if isinstance(result, dict) else result
        yield Line(f"    → {short(data)}", "change")
    warnings = result.get("warnings") if isinstance(result, dict) else None
    for warning in warnings or ():
        yield Line(f"    warning: {warning}", "fault")


def _run(run: ChainRun, downlinks: Mapping[str, Effect]) -> Iterator[Line]:
    message = run.message
    said = f"{message['type']} of {run.device}, {message['time']}"
    yield Line(f"chain {run.chain}  {said}  ({message['id']})", "head")
    for name in _MESSAGE_SHOWN:
        if name in message:
            yield Line(f"  {name}: {short(message[name])}", "faint")
    for step in run.steps:
        yield from _step(step, downlinks)
    if run.undone is not None:
        text = "  ✗ nobody takes this failure: all that the chain did is undone → dead letter"
        yield Line(text, "fault")


def _step(step: Step, downlinks: Mapping[str, Effect]) -> Iterator[Line]:
    indent = "  " + "  " * step.depth
    of_chain = f"{step.chain}/" if step.depth else ""
    by = f"  ({_BY[step.by]})" if step.by else ""
    yield Line(f"{indent}{of_chain}{step.node}  [{step.kind}]{by}", "node")
    for evaluation in step.evaluations:
        yield Line(f"{indent}    {_evaluated(evaluation)}", "why")
    if step.fault is not None:
        yield from _fault(step.fault, f"{indent}    ")
    elif not step.changes and not step.evaluations:
        yield Line(f"{indent}    changes nothing", "faint")
    for change in step.changes:
        yield Line(f"{indent}    {_changed(change, downlinks)}", "change")
    for number, out in enumerate(step.exits, 1):
        message = f" (message {number})" if len(step.exits) > 1 else ""
        to = "the way ends" if out.to == "end" else out.to
        outlet = "" if out.outlet == to else f"{out.outlet} "  # a switch calls them alike
        yield Line(f"{indent}    {outlet}→ {to}{message}", "exit")
    if not step.exits and step.fault is None:
        yield Line(f"{indent}    the way ends here, or waits", "exit")


def _evaluated(told: Evaluation) -> str:
    if told.error:
        return f"{told.text} → fails: {told.error}"
    return f"{told.text} → {short(told.result)}"


def _fault(fault: Fault, indent: str) -> Iterator[Line]:
    yield Line(f"{indent}fails: {fault.message}  ({fault.reason})", "fault")


def _changed(change: Change, downlinks: Mapping[str, Effect]) -> str:
    if change.what == "downlink":
        return f"asks for a downlink: {_asked(change, downlinks)}"
    if change.what in _EFFECTS:
        return f"{_EFFECTS[change.what]} {change.name}: {short(change.after)}"
    if change.what == "log":
        return f"logs ({change.name}): {change.after}"
    if change.what == "record":
        return f"writes to {change.name}"
    what = {"message": "", "memory": "keeps ", "state": "keeps "}.get(
        change.what, f"{change.what} "
    )
    if change.what == "timer":
        return f"timer {change.name}: {change.after}"
    if change.after is None:
        return f"{what}{change.name}: {short(change.before)} → gone"
    before = "" if change.before is None else f"{short(change.before)} → "
    new = "  (new)" if change.before is None else ""
    return f"{what}{change.name}: {before}{short(change.after)}{new}"


def _asked(change: Change, downlinks: Mapping[str, Effect]) -> str:
    asked = change.after
    payload = asked.get("payload")
    said = short(asked.get("fields")) if payload is None else f"bytes {payload}"
    became = downlinks.get(change.name)
    if became is None:
        return said
    made = became.shown
    if payload is None and "bytes" in made:
        said += f" = bytes {made['bytes']}"
    return f"{said}; {made['state']}" + (f" ({made['reason']})" if "reason" in made else "")


def _untaken(explanation: Explanation) -> Iterator[Line]:
    if explanation.untaken:
        yield Line("")
        for each in explanation.untaken:
            yield Line(f"chain {each.chain} did not take {each.event}: {each.why}", "faint")


def _outcome(explanation: Explanation) -> Iterator[Line]:
    effects = explanation.effects
    yield Line("")
    yield Line("what came of it", "head")
    for answer in explanation.answers:
        body = f" {_value(answer['body'])}" if "body" in answer else " (empty)"
        yield Line(f"  answer {answer['status']}{body}")
    for downlink in effects.downlinks:
        yield Line(f"  downlink to {downlink.device}: {_listed(downlink.shown)}")
    for delivery in effects.deliveries:
        yield Line(f"  delivery to {delivery.to}: {short(delivery.shown)}")
    for letter in effects.dead_letters:
        shown = letter.shown
        place = "/".join(
            str(shown["detail"][name]) for name in ("chain", "node") if name in shown["detail"]
        )
        at = f" at {place}" if place else ""
        said = f"  dead letter of {letter.to}{at}: {shown['message']}  ({shown['reason']})"
        yield Line(said, "fault")
    if not (explanation.answers or effects.downlinks or effects.deliveries or effects.dead_letters):
        yield Line("  nothing that is seen outside")


def _listed(shown: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in shown.items())


def _value(value: Any) -> str:
    return value if isinstance(value, str) else short(value)


def _hex(values: Sequence[int]) -> str:
    try:
        return bytes(values).hex(" ")
    except (TypeError, ValueError):
        return short(values)
