"""Where a character of a YAML scalar's value stands in the scalar's text.

In: the text as written (quotes, escapes, folded lines and all), the value that YAML makes of it,
an offset into the value. Out: the offset into the text. For the places of faults in expressions.
"""

from __future__ import annotations

_ESCAPED = {"x": 4, "u": 6, "U": 10}  # lengths of `\xHH`, `\uHHHH`, `\UHHHHHHHH`


def align(written: str, value: str, offset: int, style: str | None) -> int:
    """Return the index in `written` of the character `value[offset]`; its end where it has none.

    `style` is YAML's: `"`, `'`, `|`, `>`, or empty for plain.
    """
    if style in ("|", ">"):
        return _align_block(written, value, offset)
    index = 1 if style else 0
    for character in value[: max(offset, 0)]:
        index = _past(written, index, character, style)
    if style == '"':
        index = _past_continuation(written, index)
    if written[index : index + 1].isspace() and not value[offset : offset + 1].isspace():
        index = _past_space(written, index)
    return min(index, len(written))


def _past(written: str, index: int, character: str, style: str | None) -> int:
    """Return the index after the one character of the value that stands at `index`."""
    if not character.isspace():
        index = _past_space(written, index)  # what a fold left over: indentation
    if style == '"':
        index = _past_continuation(written, index)
        if written[index : index + 1] == "\\":
            return index + _ESCAPED.get(written[index + 1 : index + 2], 2)
    if style == "'" and written[index : index + 2] == "''":
        return index + 2
    if character.isspace() and "\n" in written[index : _past_space(written, index)]:
        return _past_fold(written, index, character)
    return index + 1


def _past_continuation(written: str, index: int) -> int:
    while written[index : index + 2] == "\\\n":
        index = _past_space(written, index + 2)
    return index


def _past_space(written: str, index: int) -> int:
    while index < len(written) and written[index].isspace():
        index += 1
    return index


def _past_fold(written: str, index: int, character: str) -> int:
    """A folded line's end is a space; each empty line after it is a newline."""
    if character == "\n":
        first = written.find("\n", index)
        following = written.find("\n", first + 1)
        if 0 <= following < _past_space(written, index):
            return following
    return _past_space(written, index)


def _align_block(written: str, value: str, offset: int) -> int:
    index = written.find("\n") + 1
    lines = written[index:].split("\n")
    indent = min((len(line) - len(line.lstrip(" ")) for line in lines if line.strip()), default=0)
    index = _past_indent(written, index, indent)
    for character in value[: max(offset, 0)]:
        at_end = written[index : index + 1] == "\n"
        index += 1
        if at_end and character in " \n":
            index = _past_indent(written, index, indent)
    return min(index, len(written))


def _past_indent(written: str, index: int, indent: int) -> int:
    end = index
    while end < len(written) and end - index < indent and written[end] == " ":
        end += 1
    return end
