"""The uplinks that `funicular send` sends: counted, apart, the dialect's own or a file's."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.model.http import Request
from pipeline.rehearse.samples import samples


def test_many_are_counted_and_apart(book: Any) -> None:
    """Each sample has the next counter; between two of them, and only there, is the interval."""
    waits = list[float]()
    uplinks = samples(
        book.integrations["lora"], device_id="a", count=3, counter=7, interval_s=0.5,
        wait=waits.append,
    )  # fmt: skip

    waited = []
    for number, request in uplinks:
        assert b'"counter":%d' % number in request.body
        waited.append((number, len(waits)))

    assert waited == [(7, 0), (8, 1), (9, 2)]
    assert waits == [0.5, 0.5]


def test_a_request_goes_as_it_is(book: Any) -> None:
    """A request that is given is sent in place of a sample, each time."""
    given = Request(body=b"as it is")
    assert list(samples(book.integrations["lora"], request=given, count=2)) == [
        (1, given),
        (2, given),
    ]


def test_a_sample_that_cannot_be(book: Any) -> None:
    """A device id that the network server does not have is the user's mistake."""
    with pytest.raises(UsageError, match="sigfox has no such uplink: `device` must be"):
        list(samples(book.integrations["fox"], device_id="hall"))
