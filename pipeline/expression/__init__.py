"""CEL expressions over JSON values, compiled to Python code. Text in, a function of a scope out.

The language is CEL's (github.com/google/cel-spec, doc/langdef.md): all literals, operators, the
standard macros and functions, its errors, and `&&` and `||` that go on past an error when the
other side decides. A scope is a mapping of names to JSON values (also bytes, datetime with a time
zone, timedelta); nothing of it is converted. An expression reaches nothing but its scope: no
Python attribute, no builtin. What it may take and make is bounded by `Limits`.

Where it differs from CEL, on purpose:
- Numbers behave as in JSON: int, uint and double mix in arithmetic (`1 + 0.5`), as they do in
  CEL's own comparisons. What a double takes part in is a double; else what an int takes part in
  is an int. Two whole numbers still divide to a whole one (`7 / 2` is 3; write `7 / 2.0`).
- `string(x)` of a double is JSON's text of the number: `1000000`, not `1e+06`; `2` for 2.0.
- An int and a double are compared exactly; Google's runtime rounds past 2^53.
- Timestamps and durations count microseconds; finer digits are cut off. Their texts have as many
  digits as they need: `3.5s`.
- All durations fit 64 bits of nanoseconds (292 years), as the definition says; Google's runtime
  reads longer ones and fails later.
- Faults are found early: a pattern, timestamp, duration or time zone written as a constant that
  cannot be read, an operation on types that never fit, an unknown function. CEL may leave these to
  an evaluation that perhaps never comes to them.
- A map cannot have both the keys true and 1, or both 1 and 1u.
- A type as the result is its name, a uint is an int.
- Messages (`Foo{…}`), optional access (`a.?b`) and extension functions are not supported.
"""

from pipeline.expression.checks import Roots, Shape
from pipeline.expression.expression import Expression, compile_expression
from pipeline.expression.fault import LIMITS, ExpressionFault, Limits
from pipeline.expression.value import Value, compile_value

__all__ = [
    "LIMITS",
    "Expression",
    "ExpressionFault",
    "Limits",
    "Roots",
    "Shape",
    "Value",
    "compile_expression",
    "compile_value",
]
