"""`framing:` of a connection: where one message ends and the next begins in a stream of bytes.

In: chunks as they come. Out: frames, without their length or delimiter; and the way back.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.errors import MessageError
from pipeline.part import Part
from pipeline.rulebook.connections.octets import Octets

NOT_FRAMABLE = "not_framable"


class FramingConfig(Part):
    r"""One of three: `{length: 2}`, a number before each message says how many bytes it has;
    `{delimiter: "\n"}`, these bytes end each message; `{fixed: 16}`, each has so many bytes.

    Of `length` (1, 2 or 4 bytes): `order` `big` or `little`; `includes_itself`: the number counts
    its own bytes too.
    """

    length: Literal[1, 2, 4] | None = None
    order: Literal["big", "little"] = "big"
    includes_itself: bool = False
    delimiter: Octets | None = None
    fixed: Annotated[int, Field(ge=1, le=1_048_576)] | None = None

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        given = [name for name in ("length", "delimiter", "fixed") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError('must be one of `{length: 2}`, `{delimiter: "\\n"}`, `{fixed: 16}`')
        if self.length is None and not {"order", "includes_itself"}.isdisjoint(
            self.model_fields_set
        ):
            raise ValueError("`order` and `includes_itself` are of `length`")
        return self

    def frame(self, message: bytes) -> bytes:
        """Return a message as it goes over the wire.

        MessageError `not_framable`: it is longer than its length can say, or holds the delimiter.
        One of `fixed` goes as it is: what a device takes is its own affair.
        """
        if self.delimiter is not None:
            if self.delimiter in message:
                raise MessageError(
                    "the message holds the delimiter that would end it", code=NOT_FRAMABLE
                )
            return message + self.delimiter
        if self.length is None:
            return message
        number = len(message) + (self.length if self.includes_itself else 0)
        if number >= 1 << (8 * self.length):
            raise MessageError(
                f"the message has {len(message)} bytes; a length of {self.length} bytes cannot"
                " say that",
                code=NOT_FRAMABLE,
            )
        return number.to_bytes(self.length, self.order) + message


class FrameReader:
    """One stream's frames. An empty frame is a sign of life, and is none."""

    def __init__(self, framing: FramingConfig, frame_bytes_max: int) -> None:
        self._framing = framing
        self._bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._searched = 0  # so many bytes of it hold no delimiter
        self.fault = ""
        """Why the stream cannot be read on; then `rest` begins with what was too long."""

    @property
    def rest(self) -> bytes:
        """What came of a frame that is not whole."""
        return bytes(self._buffer)

    @property
    def within(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the frames that are whole now. Check `fault` afterwards."""
        self._buffer += chunk
        framing = self._framing
        if framing.delimiter is not None:
            return self._delimited(framing.delimiter)
        if framing.fixed is not None:
            return self._fixed(framing.fixed)
        assert framing.length is not None
        return self._prefixed(framing.length)

    def _delimited(self, delimiter: bytes) -> list[bytes]:
        frames = []
        buffer, begin = self._buffer, 0
        end = buffer.find(delimiter, self._searched)
        while end >= 0 and end - begin <= self._bytes_max:
            if end > begin:
                frames.append(bytes(buffer[begin:end]))
            begin = end + len(delimiter)
            end = buffer.find(delimiter, begin)
        del buffer[:begin]
        self._searched = max(0, len(buffer) - len(delimiter) + 1)
        if len(buffer) >= self._bytes_max + len(delimiter) or end >= 0:
            self.fault = f"no end within {self._bytes_max} bytes"
        return frames

    def _fixed(self, size: int) -> list[bytes]:
        buffer = self._buffer
        whole = len(buffer) // size * size
        frames = [bytes(buffer[begin : begin + size]) for begin in range(0, whole, size)]
        del buffer[:whole]
        return frames

    def _prefixed(self, size: int) -> list[bytes]:
        frames = []
        buffer, begin = self._buffer, 0
        own = size if self._framing.includes_itself else 0
        while len(buffer) - begin >= size:
            number = int.from_bytes(buffer[begin : begin + size], self._framing.order) - own
            if number < 0 or number > self._bytes_max:
                self.fault = (
                    f"its length says {number} bytes; {self._bytes_max} are allowed"
                    if number >= 0
                    else "its length does not count itself"
                )
                break
            if len(buffer) - begin < size + number:
                break
            begin += size
            if number:
                frames.append(bytes(buffer[begin : begin + number]))
            begin += number
        del buffer[:begin]
        return frames
