"""A server of AMQP 1.0 that plays Azure's side, made of Qpid Proton's own container: an event hub
with partitions, a queue of Service Bus with locks, the management of both, and IoT Hub's way to
devices. It is no Azure: what it does is what the documents of their protocol say.
"""

from __future__ import annotations

import re
import threading
import time
from typing import Any, Self
from uuid import UUID, uuid4

import proton
from proton.handlers import MessagingHandler
from proton.reactor import Container

from tests.real.servers import free_port, listens, until

START_S = 10.0
_PARTITION = re.compile(r"hub/ConsumerGroups/([^/]+)/Partitions/(\d+)")
_AFTER = re.compile(r"amqp\.annotation\.x-opt-offset > '([^']*)'")
_SELECTOR = "apache.org:selector-filter:string"


class Azure:
    """Starts on a free port of loopback; keeps what it has over a `stop` and `start`."""

    def __init__(self, *, partitions: int = 2, lock_s: float = 60.0) -> None:
        self.port = free_port()
        self.lock_s = lock_s
        self.partitions: list[list[bytes]] = [[] for _ in range(partitions)]
        self.queue: dict[int, bytes] = {}  # sequence number → message
        self.locks: dict[bytes, tuple[int, float]] = {}  # tag → sequence number, until
        self.sent = 0  # messages of the queue that were given out, again ones too
        self.renewals = 0
        self.selectors: list[str] = []
        self.devicebound: list[proton.Message] = []
        self.answers = "accept"
        self._sequence = 0
        self._container: Container | None = None
        self._side: _Side | None = None
        self._thread: threading.Thread | None = None

    def put_event(self, partition: int, body: Any, **more: Any) -> None:
        """Write an event, which has an offset and a number then."""
        number = len(self.partitions[partition])
        message = proton.Message(body=body, **{"inferred": True, **more})
        message.annotations = {
            proton.symbol("x-opt-offset"): str(100 * (number + 1)),
            proton.symbol("x-opt-sequence-number"): number,
            proton.symbol("iothub-connection-device-id"): "d1",
        }
        self.partitions[partition].append(message.encode())

    def put_message(self, body: Any, **more: Any) -> None:
        """Put a message into the queue."""
        self._sequence += 1
        message = proton.Message(body=body, **{"inferred": True, **more})
        message.annotations = {proton.symbol("x-opt-sequence-number"): self._sequence}
        self.queue[self._sequence] = message.encode()

    def put_raw(self, data: bytes) -> None:
        """Put bytes into the queue that need not be a message."""
        self._sequence += 1
        self.queue[self._sequence] = data

    def start(self) -> Self:
        """Start it, and wait until it listens."""
        self._side = _Side(self)
        self._container = Container(self._side)
        self._thread = threading.Thread(target=self._container.run, daemon=True)
        self._thread.start()
        until(lambda: listens(self.port), START_S, "the server listens")
        return self

    def stop(self) -> None:
        """End it, with all connections; locks end with them."""
        container, self._container = self._container, None
        if container is None:
            return
        assert self._side is not None
        self._side.ending = True
        assert self._thread is not None
        self._thread.join(START_S)
        assert not self._thread.is_alive()
        self.locks.clear()


class _Side(MessagingHandler):  # type: ignore[misc]
    """Runs in the container's thread; looks every few milliseconds for what is to be sent."""

    def __init__(self, azure: Azure) -> None:
        super().__init__(auto_accept=False, auto_settle=False, prefetch=100)
        self._azure = azure
        self.ending = False
        self._acceptor: Any = None
        self._connections: list[Any] = []
        self._places: dict[Any, tuple[int, int]] = {}  # link → partition, next number
        self._queue_links: list[Any] = []
        self._refused: list[Any] = []
        self._replies: dict[str, Any] = {}  # reply address → link

    def on_start(self, event: Any) -> None:
        self._acceptor = event.container.listen(f"127.0.0.1:{self._azure.port}")
        event.container.schedule(0.01, self)

    def on_timer_task(self, event: Any) -> None:
        if self.ending:
            self._acceptor.close()
            for connection in self._connections:
                connection.close()
            return
        while self._refused:
            link = self._refused.pop()
            link.condition = proton.Condition("amqp:not-found", "there is no such address")
            link.close()
        for link in list(self._places):
            self._send_events(link)
        for link in list(self._queue_links):
            self._send_messages(link)
        event.container.schedule(0.01, self)

    def on_connection_opening(self, event: Any) -> None:
        self._connections.append(event.connection)

    def on_link_opening(self, event: Any) -> None:
        link = event.link
        link.target.address = link.remote_target.address
        if link.is_receiver:
            return
        link.source.address = link.remote_source.address
        address = link.remote_source.address or ""
        partition = _PARTITION.fullmatch(address)
        if partition and int(partition[2]) < len(self._azure.partitions):
            self._places[link] = (int(partition[2]), self._first(link, int(partition[2])))
        elif address == "queue":
            self._queue_links.append(link)
        elif address.endswith("$management"):
            self._replies[link.remote_target.address] = link
        else:
            link.source.type = proton.Terminus.UNSPECIFIED  # a refusal, which its reason follows
            link.source.address = None
            self._refused.append(link)

    def _first(self, link: Any, partition: int) -> int:
        given = link.remote_source.filter
        given.rewind()
        filters = given.get_dict() if given.next() else {}
        selector = str(filters[proton.symbol(_SELECTOR)].value)
        self._azure.selectors.append(f"{partition}: {selector}")
        match = _AFTER.fullmatch(selector)
        assert match, selector
        offset = match[1]
        if offset == "@latest":
            return len(self._azure.partitions[partition])
        return 0 if offset == "-1" else int(offset) // 100

    def _send_events(self, link: Any) -> None:
        partition, number = self._places[link]
        events = self._azure.partitions[partition]
        while link.credit > 0 and number < len(events):
            self._send(link, uuid4().bytes, events[number])
            number += 1
        self._places[link] = (partition, number)

    def _send_messages(self, link: Any) -> None:
        azure, now = self._azure, time.monotonic()
        for tag, (_, ends) in list(azure.locks.items()):
            if ends < now:
                del azure.locks[tag]
        locked = {number for number, _ in azure.locks.values()}
        for number, data in list(azure.queue.items()):
            if link.credit <= 0:
                return
            if number not in locked:
                token = uuid4()
                azure.locks[token.bytes_le] = (number, now + azure.lock_s)
                azure.sent += 1
                self._send(link, token.bytes_le, data)

    @staticmethod
    def _send(link: Any, tag: bytes, data: bytes) -> None:
        link.delivery(tag)
        link.stream(data)
        link.advance()

    def on_accepted(self, event: Any) -> None:
        import cproton

        found = cproton.lib.pn_delivery_tag(event.delivery._impl)
        tag = bytes(cproton.ffi.unpack(found.start, found.size))
        lock = self._azure.locks.pop(tag, None)
        if lock is not None:
            self._azure.queue.pop(lock[0], None)
        event.delivery.settle()

    def on_message(self, event: Any) -> None:
        address = event.link.target.address or ""
        message, azure = event.message, self._azure
        if address.endswith("$management"):
            self.accept(event.delivery)
            self._reply(message)
        elif azure.answers == "accept":
            self.accept(event.delivery)
            if address == "queue":
                azure.put_message(bytes(message.body))
            else:
                azure.devicebound.append(message)
        elif azure.answers == "reject":
            self.reject(event.delivery)
        else:
            self.release(event.delivery, delivered=False)

    def _reply(self, asked: proton.Message) -> None:
        azure = self._azure
        operation = asked.properties["operation"]
        body: Any = None
        status = 200
        if operation == "READ" and asked.properties["name"] == "hub":
            ids = [str(number) for number in range(len(azure.partitions))]
            body = {"name": "hub", "partition_ids": proton.Array(
                proton.UNDESCRIBED, proton.Data.STRING, *ids)}  # fmt: skip
        elif operation == "com.microsoft:renew-lock":
            for token in asked.body["lock-tokens"].elements:
                tag = UUID(str(token)).bytes_le
                if tag in azure.locks:
                    azure.locks[tag] = (azure.locks[tag][0], time.monotonic() + azure.lock_s)
                    azure.renewals += 1
                else:
                    status = 410
        else:
            status = 404
        answer = proton.Message(
            body=body, properties={"statusCode": status}, correlation_id=asked.id
        )
        self._send(self._replies[asked.reply_to], uuid4().bytes, answer.encode())

    def on_disconnected(self, event: Any) -> None:
        gone = event.connection
        self._connections = [each for each in self._connections if each != gone]
        self._places = {k: v for k, v in self._places.items() if k.connection != gone}
        self._queue_links = [k for k in self._queue_links if k.connection != gone]
        self._azure.locks.clear()
