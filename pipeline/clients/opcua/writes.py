"""Writes: what fields of a device are to be → values of nodes, by each node's own data type.

In: a Session, nodes, JSON values by field. Out: what the server said of each, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from asyncua import ua
from asyncua.common.ua_utils import data_type_to_variant_type

from pipeline.errors import MessageError

from .nodes import Node
from .session import Session, asking, in_batches
from .values import name_of, variant_of

_BUILT_IN_MAX = 25  # the ids of data types that are variants' own
_ANY = (ua.VariantType.Null, ua.VariantType.Variant)


class Kind(NamedTuple):
    """How a node's value is written."""

    type: ua.VariantType
    array: bool


class Kinds:
    """The data types of a session's nodes, asked for once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._kinds: dict[str, Kind] = {}

    async def of(self, nodes: Sequence[Node]) -> list[Kind]:
        """Return each node's kind. ServerError: the server does not say."""
        new = [node for node in nodes if node.key not in self._kinds]
        for batch in in_batches(new, self._session.limit("read")):
            ids = [node.id for node in batch]
            client = self._session.client.uaclient
            with asking("the server does not say what its nodes are"):
                values = await client.read_attributes(ids, ua.AttributeIds.Value)
                types = await client.read_attributes(ids, ua.AttributeIds.DataType)
                ranks = await client.read_attributes(ids, ua.AttributeIds.ValueRank)
            for node, value, type_, rank in zip(batch, values, types, ranks, strict=True):
                self._kinds[node.key] = await self._kind(value, type_, rank)
        return [self._kinds[node.key] for node in nodes]

    async def _kind(self, value: ua.DataValue, type_: ua.DataValue, rank: ua.DataValue) -> Kind:
        """Return a node's kind: that of its value, where it has one; else of its data type."""
        said = value.Value
        ranked = _said(rank)
        if said is not None and said.VariantType not in _ANY and said.Value is not None:
            return Kind(said.VariantType, bool(said.is_array))
        # Of rank -2 and -3 it may be both: one value is what people write.
        array = isinstance(ranked, int) and ranked >= 0
        declared = _said(type_)
        if not isinstance(declared, ua.NodeId):
            return Kind(ua.VariantType.Null, array)
        if declared.NamespaceIndex == 0 and declared.Identifier in range(1, _BUILT_IN_MAX + 1):
            return Kind(ua.VariantType(declared.Identifier), array)
        with asking("the server does not say what a data type is"):
            found = await data_type_to_variant_type(self._session.client.get_node(declared))
        return Kind(found, array)


async def write(
    session: Session, kinds: Kinds, values: Mapping[str, Any], nodes: Mapping[str, Node]
) -> dict[str, str]:
    """Write each field's value to its node, in as few requests as the server allows; return its
    status by field. MessageError `field`: a value is not of its node's type, and nothing is
    written. ServerError: the server does not answer; some may be written.
    """
    fields = list(values)
    of = await kinds.of([nodes[field] for field in fields])
    asked = [_written(field, values[field], nodes[field], kind)
             for field, kind in zip(fields, of, strict=True)]  # fmt: skip
    codes: list[ua.StatusCode] = []
    for batch in in_batches(asked, session.limit("write")):
        parameters = ua.WriteParameters()
        parameters.NodesToWrite = list(batch)
        with asking("the server does not say what became of a write"):
            codes += await session.client.uaclient.write(parameters)
    return {field: name_of(code) for field, code in zip(fields, codes, strict=True)}


def _written(field: str, value: Any, node: Node, kind: Kind) -> ua.WriteValue:
    if kind.type is ua.VariantType.Null:
        raise MessageError(
            f"the server does not say what `{field}` is: {node.key}", code="field", field=field
        )
    asked = ua.WriteValue()
    asked.NodeId = node.id
    asked.AttributeId = ua.AttributeIds.Value
    # Without times and status: many servers refuse to have them written.
    asked.Value = ua.DataValue(variant_of(field, value, kind.type, array=kind.array))
    return asked


def _said(value: ua.DataValue) -> Any:
    return value.Value.Value if value.Value is not None else None
