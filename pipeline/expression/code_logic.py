"""Python for `&&`, `||`, `? :` and the macros.

`&&` and `||` are commutative in CEL: an operand's error counts only if no other operand decides.
So an operand is evaluated in a `try`, and its error becomes a value (a `Failure`) that is raised
at the end, if at all.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.expression import build, operators
from pipeline.expression.fault import ExpressionFault
from pipeline.expression.generator import Generator, Piece
from pipeline.expression.tree import Condition, Logic, Macro, Node

ERRORS, NOTE = "ERRORS", "note"  # names in the generated code's globals, see `expression`


def condition_of(generator: Generator, node: Condition) -> Piece:
    """`test ? yes : no`: only one of the two is evaluated."""
    test = generator.boolean(node.test, "what `?` asks")
    pieces: list[Piece] = []
    before_yes = generator.block(lambda: pieces.append(generator.piece(node.yes)))
    before_no = generator.block(lambda: pieces.append(generator.piece(node.no)))
    yes, no = pieces
    kind = yes.type if yes.type == no.type else "dyn"
    if not before_yes and not before_no:
        return Piece(build.placed(build.choose(test, yes.python, no.python), node.at), kind)
    target = generator.new()
    before_yes.append(build.placed(build.assign(target, yes.python), node.yes.at))
    before_no.append(build.placed(build.assign(target, no.python), node.no.at))
    generator.emit(build.when(test, before_yes, before_no), node.at)
    return Piece(build.name(target), kind)


# && and ||


def logic_of(generator: Generator, node: Logic) -> Piece:
    """A row of `&&`, or of `||`."""
    target = generator.new()
    _attempt_row(generator, node, target)
    _raise_failure(generator, target, node.at)
    return Piece(build.name(target), "bool")


def _raise_failure(generator: Generator, target: str, at: int) -> None:
    failed = build.both(_is_not(target, value=True), _is_not(target, value=False))
    generator.emit(build.when(failed, [build.placed(build.throw(build.name(target)), at)]), at)


def _is(target: str, *, value: bool) -> ast.expr:
    return build.compare(build.name(target), "is", build.constant(value))


def _is_not(target: str, *, value: bool) -> ast.expr:
    return build.compare(build.name(target), "is not", build.constant(value))


def _attempt_row(generator: Generator, node: Logic, target: str) -> None:
    """Emit code that leaves True, False or a Failure in `target`."""
    decisive = node.sign == "||"
    first, *others = node.operands
    _attempt(generator, first, target, node.sign)
    for operand in others:

        def next_one(operand: Node = operand) -> None:
            found = generator.new()
            _attempt(generator, operand, found, node.sign)
            # A decision always counts; anything else only where no error is waiting.
            counts = build.either(_is(found, value=decisive), _is(target, value=not decisive))
            taken = build.placed(build.assign(target, build.name(found)), operand.at)
            generator.emit(build.when(counts, [taken]), operand.at)

        body = generator.block(next_one)
        generator.emit(build.when(_is_not(target, value=decisive), body), operand.at)


def _attempt(generator: Generator, node: Node, target: str, sign: str) -> None:
    """Emit code that leaves an operand's value, or its Failure, in `target`."""
    if isinstance(node, Logic):
        _attempt_row(generator, node, target)
        return

    def evaluate() -> None:
        what = f"what `{sign}` joins"
        value = generator.enclosed(node.at, lambda: generator.boolean(node, what))
        generator.emit(build.assign(target, value), node.at)

    body = generator.block(evaluate, nests=True)
    generator.emit(build.attempt(body, ERRORS, target, NOTE), node.at)


# Macros


def macro_of(generator: Generator, node: Macro) -> Piece:
    """`all exists exists_one map filter`: a loop, every turn of which takes steps."""
    kinds: list[str] = []

    def make() -> ast.expr:
        piece = _MACROS[node.name](_Loop(generator, node))
        kinds.append(piece.type)
        return piece.python

    python = generator.enclosed(node.at, make)
    return Piece(python, kinds[0])


@dataclass(frozen=True, slots=True)
class _Loop:
    """One macro's loop, about to be written."""

    generator: Generator
    node: Macro

    def emit(self, turn: Callable[[str], None]) -> None:
        """Emit the loop; `turn` emits what is done with each element, given its variable."""
        generator, node = self.generator, self.node
        over = generator.piece(node.over)
        if over.type not in ("list", "map", "dyn"):
            raise ExpressionFault(
                f"{node.name}() goes over a list or a map, not {over.type}", node.at
            )
        variable = generator.new("v")
        outer = dict(generator.variables)
        generator.variables[node.variable] = variable

        def body() -> None:
            generator.spend(_cost(node), node.at)
            turn(variable)

        statements = generator.block(body, nests=True)
        generator.variables = outer
        elements = build.placed(generator.call(operators.iterate, over.python), node.at)
        generator.emit(build.loop(variable, elements, statements), node.at)


def _cost(node: Macro) -> int:
    """Return the steps of one turn: the nodes that it evaluates."""
    return sum(part.size for part in (node.test, node.result) if part is not None)


def _stop() -> ast.stmt:
    return ast.Break()


def _all_or_any(loop: _Loop) -> Piece:
    """`all` is a row of `&&` over the elements, `exists` one of `||`."""
    generator, node = loop.generator, loop.node
    decisive = node.name == "exists"
    test = node.test
    assert test is not None
    target = generator.new()
    generator.emit(build.assign(target, build.constant(not decisive)), node.at)

    def turn(_variable: str) -> None:
        found = generator.new()
        _attempt(generator, test, found, f"{node.name}()")
        taken = build.placed(build.assign(target, build.name(found)), node.at)
        decided = build.when(_is(found, value=decisive), [taken, build.placed(_stop(), node.at)])
        generator.emit(decided, node.at)
        again = build.placed(build.assign(target, build.name(found)), node.at)
        generator.emit(build.when(_is_not(found, value=not decisive), [again]), node.at)

    loop.emit(turn)
    _raise_failure(generator, target, node.at)
    return Piece(build.name(target), "bool")


def _exists_one(loop: _Loop) -> Piece:
    generator, node = loop.generator, loop.node
    test = node.test
    assert test is not None
    count = generator.new()
    generator.emit(build.assign(count, build.constant(0)), node.at)

    def turn(_variable: str) -> None:
        found = generator.boolean(test, "the test of exists_one()")
        one = build.placed(build.extend(count, build.constant(1)), node.at)
        generator.emit(build.when(found, [one]), node.at)

    loop.emit(turn)
    return Piece(build.compare(build.name(count), "==", build.constant(1)), "bool")


def _map_or_filter(loop: _Loop) -> Piece:
    generator, node = loop.generator, loop.node
    generator.makes = True
    target = generator.new()
    generator.emit(build.assign(target, build.many([], ast.List)), node.at)

    def keep(variable: str) -> None:
        value = build.name(variable) if node.result is None else generator.piece(node.result).python
        at = node.at if node.result is None else node.result.at
        generator.emit(build.extend(target, build.many([value], ast.List)), at)

    def turn(variable: str) -> None:
        if node.test is None:
            keep(variable)
            return
        test = generator.boolean(node.test, f"the test of {node.name}()")
        generator.emit(build.when(test, generator.block(lambda: keep(variable))), node.test.at)

    loop.emit(turn)
    return Piece(build.name(target), "list")


_MACROS = {
    "all": _all_or_any,
    "exists": _all_or_any,
    "exists_one": _exists_one,
    "map": _map_or_filter,
    "filter": _map_or_filter,
}
