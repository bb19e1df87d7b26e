"""What each node of a chain saw, decided and did, told while a rehearsal runs.

In: the nodes of chains and the calls of scripts, to be watched. Out: `Trace.told`, in the order in
which things happened: a `ScriptRun` a call of a script, a `ChainRun` a message's way through a
chain, with a `Step` a node.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pipeline.errors import ExpressionError, MessageError, ScriptError
from pipeline.expression import Expression, Value
from pipeline.model.event import DeviceMessage
from pipeline.part import Part
from pipeline.ports import ScriptCall, ScriptPort
from pipeline.rehearse.evaluation import Evaluation, evaluation_of
from pipeline.rehearse.step_changes import Before, Change, changes_since
from pipeline.rehearse.watched import Apply, By, watched
from pipeline.route.chain import Step as ChainStep
from pipeline.route.message import time_text
from pipeline.route.node import FAILURE, Node, Outcome
from pipeline.route.scripts import Deferred
from pipeline.route.turn import Turn
from pipeline.route.visit import Visit

STEPS_MAX = 5_000
"""Steps that are told of one explanation; a chain's own limit ends most of what would be longer."""


class Exit(msgspec.Struct, frozen=True):
    """A message left a node: by which outlet, and to which node (`end`: its way ends there)."""

    outlet: str
    to: str


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why something failed; as in a dead letter."""

    reason: str
    message: str
    detail: dict[str, Any] = {}


class Step(msgspec.Struct, omit_defaults=True):
    """One node on one message. `depth` counts the chains that run the node's chain; `by` is how the
    message came, where that was not from the node before. With a `fault` what it did is undone.
    """

    chain: str
    node: str
    kind: str
    depth: int = 0
    by: By = ""
    evaluations: list[Evaluation] = []
    changes: list[Change] = []
    exits: list[Exit] = []
    fault: Fault | None = None


class ChainRun(msgspec.Struct, omit_defaults=True, tag_field="what", tag="chain"):
    """One message's way through a chain. `undone`: it failed, and only its dead letter is left."""

    chain: str
    device: str
    message: dict[str, Any]
    steps: list[Step] = []
    undone: Fault | None = None


class ScriptRun(msgspec.Struct, omit_defaults=True, tag_field="what", tag="script"):
    """One call of a converter's script: its argument (bytes in hexadecimal), and its result."""

    script: str
    operation: str
    argument: dict[str, Any]
    result: Any = None
    fault: Fault | None = None


Told = ScriptRun | ChainRun


class Trace:
    """Keeps what is told. `muted`: nothing is, for what comes before the message in question.

    `watch` is for `Route`; `scripts` wraps the port that stages call.
    """

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.muted = False
        self.left_out = 0
        """Steps past STEPS_MAX."""
        self._steps = 0
        self._turn: Turn | None = None
        self._turn_begin = 0  # where in `told` it begins
        self._visit: Visit | None = None
        self._run: ChainRun | None = None
        self._open: list[Step] = []

    def watch(self, chain: str, node: Node) -> Node:  # noqa: ARG002 - the shape of `chain.Watch`
        """Return a copy of a node that tells what it does."""
        told: Node = self._watched(node)
        return watched(told, self._around)

    def scripts(self, port: ScriptPort) -> ScriptPort:
        """Return a port that tells of its calls."""
        return _ToldScripts(port, self)

    def take(self, told: Told) -> None:
        """Keep something, unless muted."""
        if not self.muted:
            self.told.append(told)

    @property
    def listens(self) -> bool:
        """Whether a node is at work that is told of."""
        return bool(self._open)

    def evaluated(self, evaluation: Evaluation) -> None:
        """Keep what an expression gave, for the node that is at work; `listens` is true."""
        self._open[-1].evaluations.append(evaluation)

    def _watched(self, value: Any) -> Any:
        """Return a part of a node with every expression in it told of."""
        if isinstance(value, Expression):
            return _ToldExpression(value, self)
        if isinstance(value, Value):
            return value if value.constant else _told_value(value, self)
        if isinstance(value, Part):
            return value.model_copy(
                update={
                    name: self._watched(getattr(value, name)) for name in type(value).model_fields
                }
            )
        if type(value) in (tuple, list):
            return type(value)(self._watched(item) for item in value)
        if type(value) is dict:
            return {key: self._watched(item) for key, item in value.items()}
        return value

    def _around(self, apply: Apply, by: By) -> Apply:
        def told(visit: Visit) -> Outcome:
            if self.muted:
                return apply(visit)
            if self._steps >= STEPS_MAX:
                self.left_out += 1
                return apply(visit)
            return self._tell(visit, apply, by)

        return told

    def _tell(self, visit: Visit, apply: Apply, by: By) -> Outcome:
        run = self._run_of(visit)
        at, message = visit.step, visit.message
        step = Step(at.chain, at.name, at.node.verb, depth=len(self._open), by=by)
        run.steps.append(step)
        self._steps += 1
        number, before = len(run.steps), Before(visit.turn)
        self._open.append(step)
        try:
            outcome = apply(visit)
        except MessageError as fault:
            step.fault = Fault(fault.code, fault.message, fault.detail)
            if at.failure is not None:
                step.exits.append(_exit(visit, at, FAILURE))
            elif step.depth == 0:
                run.undone = step.fault
            raise
        except Deferred:
            self._forget_turn()
            raise
        finally:
            self._open.pop()
        made = [outcome] if isinstance(outcome, str) else [outlet for outlet, _ in outcome]
        step.exits += [_exit(visit, at, outlet) for outlet in made]
        out = [] if isinstance(outcome, str) else [message for _, message in outcome]
        # What another chain's nodes did stands at them, not again at the node that runs it.
        own = len(run.steps) == number
        step.changes += changes_since(before, message, out, effects=own)
        return outcome

    def _forget_turn(self) -> None:
        """Forget what a turn did that will be taken again, with the result of a script."""
        kept = self.told[self._turn_begin :]
        self.told[self._turn_begin :] = [told for told in kept if isinstance(told, ScriptRun)]
        self._turn = self._visit = self._run = None

    def _run_of(self, visit: Visit) -> ChainRun:
        if visit.turn is not self._turn:
            self._turn, self._turn_begin = visit.turn, len(self.told)
        if visit is not self._visit or self._run is None:
            self._visit = visit
            self._run = ChainRun(visit.step.chain, visit.turn.device, message_shown(visit.message))
            self.told.append(self._run)
        return self._run


def message_shown(message: DeviceMessage) -> dict[str, Any]:
    """Return a message as explanations show it: without what is empty, and without how the device
    is reached, which may hold secrets.
    """
    shown = {
        "id": message.id,
        "type": message.type,
        "time": time_text(message.time_ms),
        "device_type": message.device_type,
        "integration": message.integration,
        "f_port": message.f_port,
        "telemetry": message.telemetry,
        "attributes": message.attributes,
        "changed": list(message.changed),
        "previous": message.previous,
        "metadata": message.metadata,
        "warnings": list(message.warnings),
    }
    return {name: value for name, value in shown.items() if value not in ("", None, {}, [])}


def _exit(visit: Visit, at: ChainStep, outlet: str) -> Exit:
    edge = at.edges.get(outlet)
    rules = visit.turn.rules
    if edge is None or edge.target < 0 or rules is None:
        return Exit(outlet, "end")
    return Exit(outlet, rules.chains[at.chain].steps[edge.target].name)


class _ToldExpression(Expression):
    """An expression that tells what it gave."""

    __slots__ = ("_told", "_trace")

    def __init__(self, told: Expression, trace: Trace) -> None:
        self.source, self.names, self.is_path = told.source, told.names, told.is_path
        self._told = told
        self._trace = trace

    def __call__(self, scope: Any) -> Any:
        """See `Expression`."""
        return self._tell(scope, self._told)

    def test(self, scope: Any) -> bool:
        """See `Expression`."""
        result: bool = self._tell(scope, self._told.test)
        return result

    def _tell(self, scope: Any, compute: Callable[[Any], Any]) -> Any:
        if not self._trace.listens:
            return compute(scope)
        try:
            result = compute(scope)
        except ExpressionError as error:
            self._trace.evaluated(evaluation_of(self._told, scope, error=error.message))
            raise
        self._trace.evaluated(evaluation_of(self._told, scope, result))
        return result


def _told_value(value: Value, trace: Trace) -> Value:
    """Return a value that tells what each of its expressions gives."""

    def compute(scope: Any) -> Any:
        for expression in value.expressions if trace.listens else ():
            try:
                evaluation = evaluation_of(expression, scope, expression(scope))
            except ExpressionError as error:
                evaluation = evaluation_of(expression, scope, error=error.message)
            trace.evaluated(evaluation)
        return value(scope)

    return Value(compute, value.names, constant=False, expressions=value.expressions)


class _ToldScripts:
    """`ports.ScriptPort` that tells of its calls."""

    def __init__(self, port: ScriptPort, trace: Trace) -> None:
        self._port = port
        self._trace = trace

    def call(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """See `ports.ScriptPort`."""
        results = self._port.call(calls)
        for call, result in zip(calls, results, strict=True):
            run = ScriptRun(call.script.path, call.operation, _argument(call.argument))
            if isinstance(result, ScriptError):
                run.fault = Fault(result.code, result.message, result.detail)
            else:
                run.result = result
            self._trace.take(run)
        return results

    def close(self) -> None:
        """See `ports.ScriptPort`."""
        self._port.close()


def _argument(given: dict[str, Any]) -> dict[str, Any]:
    """Return a call's argument without what is empty, its bytes in hexadecimal."""
    return {
        name: _hexadecimal(value) if name in ("bytes", "payload") else value
        for name, value in given.items()
        if value not in (None, {}, "") and name != "integrationMetadata"
    }


def _hexadecimal(value: Any) -> Any:
    """Return bytes as they are handed to a decoder (base64) or to a normalizer (a list)."""
    if isinstance(value, str):
        return b64decode(value).hex(" ")
    if isinstance(value, list) and all(isinstance(each, int) for each in value):
        return bytes(each & 255 for each in value).hex(" ")
    return value
