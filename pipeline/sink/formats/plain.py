"""Format `plain`: the body as JSON, and nothing else."""

from __future__ import annotations

from pipeline.model.delivery import Delivery
from pipeline.sink.formats.shaped import FormatPart, Shape, Shaped, encode


class PlainFormat(FormatPart):
    """`format: plain`: the body as it is; the default."""

    def shape(self, tenant: str, destination: str) -> Shape:  # noqa: ARG002 - the port's shape
        """See `FormatPart.shape`."""
        return _plain


def _plain(delivery: Delivery) -> Shaped:
    return Shaped(encode(delivery.body))
