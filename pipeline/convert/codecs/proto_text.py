"""Protocol Buffers' `.proto` text → a FileDescriptorSet, as `protoc` would make it of messages and
enums; services and options of others are passed over.

The grammar is the library proto-schema-parser's; the names of types are resolved by protobuf's own
descriptor pool. Both come with `pip install 'funicular[protobuf]'`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

from pipeline.convert.codecs.codec import bad

DEPTH_MAX = 32
"""Levels of messages within messages."""
# The numbers of FieldDescriptorProto.Type; 10, 11 and 14 are groups, messages and enums.
_SCALARS = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "fixed64": 6, "fixed32": 7,
    "bool": 8, "string": 9, "bytes": 12, "uint32": 13, "sfixed32": 15, "sfixed64": 16,
    "sint32": 17, "sint64": 18,
}  # fmt: skip
_SYNTAXES = (None, "proto2", "proto3")


def compile_text(files: Mapping[str, str], main: str) -> Any:
    """Return the FileDescriptorSet of the file `main` and all that it imports, in their order.

    `files`: texts by name. MessageError: a file is missing or is no .proto; says file, line and
    column.
    """
    descriptors: dict[str, Any] = {}
    _add(files, main, descriptors, ())
    from google.protobuf.descriptor_pb2 import FileDescriptorSet  # noqa: PLC0415 - an extra

    return FileDescriptorSet(file=descriptors.values())


def _add(
    files: Mapping[str, str], name: str, found: dict[str, Any], above: tuple[str, ...]
) -> None:
    if name in found:
        return
    if name in above:
        raise bad(f"{above[-1]} imports {name}, which imports it")
    if name not in files and name.startswith("google/protobuf/"):
        found[name] = _well_known(name, above)
        return
    if name not in files:
        listed = ", ".join(sorted(files)) or "none"
        where = f" ({above[-1]} imports it)" if above else ""
        raise bad(f"there is no file {name}{where}; there are {listed}", key="schema")
    descriptor = _descriptor(name, files[name])
    for imported in descriptor.dependency:
        _add(files, imported, found, (*above, name))
    found[name] = descriptor


def _well_known(name: str, above: tuple[str, ...]) -> Any:
    """Return one of the files that come with protobuf."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto  # noqa: PLC0415 - an extra

    module = name.removesuffix(".proto").replace("/", ".") + "_pb2"
    made = FileDescriptorProto()
    try:
        import_module(module).DESCRIPTOR.CopyToProto(made)
    except ImportError:
        raise bad(f"there is no file {name} ({above[-1]} imports it)", key="schema") from None
    return made


@lru_cache(100)
def _descriptor(name: str, text: str) -> Any:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto  # noqa: PLC0415 - an extra
    from proto_schema_parser import ast  # noqa: PLC0415 - likewise

    parsed = _parsed(name, text)
    if parsed.syntax not in _SYNTAXES or parsed.edition is not None:
        said = parsed.edition or parsed.syntax
        raise bad(f"{name}: it is of {said}; there are proto2 and proto3", key="schema")
    made = FileDescriptorProto(name=name)
    if parsed.syntax == "proto3":
        made.syntax = "proto3"
    for element in parsed.file_elements:
        if isinstance(element, ast.Package):
            made.package = element.name
        elif isinstance(element, ast.Import):
            made.dependency.append(element.name)
            if element.public:
                made.public_dependency.append(len(made.dependency) - 1)
        elif isinstance(element, ast.Message):
            _message(element, made.message_type.add(), parsed.syntax, name, 0)
        elif isinstance(element, ast.Enum):
            _enum(element, made.enum_type.add())
        elif isinstance(element, ast.Extension):
            raise bad(f"{name}: `extend {element.typeName}` is not known here", key="schema")
    return made


def _parsed(name: str, text: str) -> Any:
    from antlr4.error.ErrorListener import ErrorListener  # noqa: PLC0415 - of the same library
    from proto_schema_parser.parser import Parser  # noqa: PLC0415 - an extra

    class Raising(ErrorListener):  # type: ignore[misc]  # the library has no types
        def syntaxError(self, *place: Any) -> None:  # noqa: N802 - antlr's name
            _recognizer, _symbol, line, column, message, _error = place
            said = message.partition(" expecting ")[0]
            raise bad(f"{name}:{line}:{column + 1}: {said}", key="schema")

    def set_up(recognizer: Any) -> None:
        recognizer.removeErrorListeners()
        recognizer.addErrorListener(Raising())

    try:
        return Parser(setup_lexer=set_up, setup_parser=set_up).parse(text)
    except (ValueError, RecursionError) as fault:
        raise bad(f"{name}: it cannot be read: {fault}", key="schema") from None


def _message(element: Any, made: Any, syntax: str | None, file: str, depth: int) -> None:
    from proto_schema_parser import ast  # noqa: PLC0415 - an extra

    if depth > DEPTH_MAX:
        raise bad(f"{file}: messages are nested deeper than {DEPTH_MAX} levels", key="schema")
    if any(isinstance(each, ast.Group) for each in element.elements):
        raise bad(f"{file}: {element.name} has a group, which is not known here", key="schema")
    made.name = element.name
    for each in element.elements:
        if isinstance(each, ast.Field):
            _field(each, made.field.add(), syntax)
        elif isinstance(each, ast.MapField):
            _map(each, made)
        elif isinstance(each, ast.OneOf):
            _one_of(each, made, syntax)
        elif isinstance(each, ast.Message):
            _message(each, made.nested_type.add(), syntax, file, depth + 1)
        elif isinstance(each, ast.Enum):
            _enum(each, made.enum_type.add())
    _mark_optional(made)


def _mark_optional(made: Any) -> None:
    """Put optional fields of proto3 each into a oneof of its own, after all others."""
    for field in made.field:
        if field.proto3_optional:
            field.oneof_index = len(made.oneof_decl)
            made.oneof_decl.add(name=f"_{field.name}")


def _one_of(element: Any, made: Any, syntax: str | None) -> None:
    from proto_schema_parser import ast  # noqa: PLC0415 - an extra

    made.oneof_decl.add(name=element.name)
    for each in element.elements:
        if isinstance(each, ast.Field):
            chosen = made.field.add()
            _field(each, chosen, syntax)
            chosen.oneof_index = len(made.oneof_decl) - 1


def _field(element: Any, made: Any, syntax: str | None) -> None:
    made.name, made.number = element.name, element.number
    labels = {"OPTIONAL": 1, "REQUIRED": 2, "REPEATED": 3}
    cardinality = None if element.cardinality is None else element.cardinality.value
    made.label = labels[cardinality or "OPTIONAL"]
    made.proto3_optional = syntax == "proto3" and cardinality == "OPTIONAL"
    _type(element.type, made)
    for option in element.options:
        if option.name == "packed":
            made.options.packed = option.value is True
        elif option.name == "json_name":
            made.json_name = str(option.value)
        elif option.name == "default":
            is_flag = isinstance(option.value, bool)
            made.default_value = str(option.value).lower() if is_flag else str(option.value)


def _type(name: str, made: Any) -> None:
    if name in _SCALARS:
        made.type = _SCALARS[name]
    else:
        made.type_name = name  # whether a message or an enum, the pool finds out


def _map(element: Any, made: Any) -> None:
    words = element.name.split("_")
    entry = made.nested_type.add(name="".join(word[:1].upper() + word[1:] for word in words))
    entry.name += "Entry"
    entry.options.map_entry = True
    for number, (name, kind) in enumerate(
        (("key", element.key_type), ("value", element.value_type)), start=1
    ):
        field = entry.field.add(name=name, number=number, label=1)
        _type(kind, field)
    field = made.field.add(name=element.name, number=element.number, label=3)
    field.type_name = entry.name


def _enum(element: Any, made: Any) -> None:
    from proto_schema_parser import ast  # noqa: PLC0415 - an extra

    made.name = element.name
    for each in element.elements:
        if isinstance(each, ast.EnumValue):
            made.value.add(name=each.name, number=each.number)
        elif isinstance(each, ast.Option) and each.name == "allow_alias":
            made.options.allow_alias = each.value is True
