"""The steps of a chain test, done one after the other on a rehearsal."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, NamedTuple

import msgspec
import orjson

from pipeline.model.event import DeviceEvent, DeviceMessage
from pipeline.model.http import Request, Response
from pipeline.model.record import Outgoing, device_key, headers_of
from pipeline.model.uplink import Link
from pipeline.rehearse.chain_test_config import (
    AttributesConfig,
    DeviceConfig,
    DownlinkConfig,
    GivenConfig,
    MessageConfig,
    ServiceAnswerConfig,
    StepConfig,
    UplinkConfig,
)
from pipeline.rehearse.harness import Rehearsal
from pipeline.rehearse.services import ANSWERING, ServiceAnswer
from pipeline.rehearse.uplinks import StepError, heard, request_of
from pipeline.rulebook.book import Integration
from pipeline.topics import DEVICE_EVENTS

_encode = msgspec.json.Encoder().encode


class _Sent(NamedTuple):
    """A request that the network server may repeat."""

    integration: str
    request: Request
    arrives: bool


class Performer:
    """Does what `given` and `when` of one test say. `device` is the device under test: the one
    given, or else the first that a step names; `answers` are those to uplinks.
    """

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.device: str | None = None
        self.answers: list[Response] = []
        self._rehearsal = rehearsal
        self._book = rehearsal.book
        self._given = DeviceConfig(name="~")
        self._last: _Sent | None = None
        self._counter = 0

    async def give(self, given: GivenConfig) -> None:
        """Make what is there before the test. StepError: it cannot be."""
        self._play(given)
        device = given.device
        if device is None and given.attributes:
            raise StepError("`attributes` are of a device: name it, `device: …`")
        if device is None:
            return
        self._given = DeviceConfig(name=device) if isinstance(device, str) else device
        self.device = self._given.name
        with self._rehearsal.without_chains():
            if not isinstance(device, str):
                await self._introduce(self._given)
            for scope, values in given.attributes.items():
                if values:
                    await self._patch(self.device, scope, values)

    def _play(self, given: GivenConfig) -> None:
        """Say what services answer."""
        for sink, answers in given.services.items():
            entry = self._book.sinks.get(sink)
            if entry is None:
                raise StepError(f"`services`: there is no sink `{sink}`")
            if entry.transport != ANSWERING:
                raise StepError(
                    f"`services`: the sink `{sink}` is of transport {entry.transport}, which gives"
                    f" no answers: name one of transport {ANSWERING}"
                )
            self._rehearsal.services.answers[sink] = [_answer(each) for each in answers]

    async def do(self, step: StepConfig) -> None:
        """Do one step. StepError: it cannot be done, or it was refused."""
        if step.uplink is not None:
            await self._uplink(step.uplink)
        elif step.again is not None:
            await self._again()
        elif step.message is not None:
            await self._message(step.message)
        elif step.attributes is not None:
            await self._attributes(step.attributes)
        elif step.downlink is not None:
            await self._downlink(step.downlink)
        elif step.cancel is not None:
            name = None if step.cancel is True else step.cancel
            await self._ask("DELETE", self._named(name), "downlinks")
        elif step.wait is not None:
            await self._rehearsal.wait(round(step.wait * 1_000))
        else:
            assert step.network_server is not None
            self._rehearsal.mood = step.network_server
            await self._rehearsal.append(())

    async def event(self, event: DeviceEvent) -> None:
        """Append an event of a device, as `device.events` may have it; it is this tenant's."""
        await self._append(msgspec.structs.replace(event, tenant=self._book.tenant))

    async def twin(self, device: str) -> dict[str, Any]:
        """Return what the API says of a device; nothing, where it is unknown."""
        answer = await self._rehearsal.ask("GET", device)
        found: dict[str, Any] = orjson.loads(answer.body) if answer.status == 200 else {}
        return found

    async def _introduce(self, device: DeviceConfig) -> None:
        integration = self._integration(device.integration)
        uplink = heard(integration, device, self._rehearsal.now_ms()) if integration else None
        message = DeviceMessage(
            id="given",
            type="status",
            tenant=self._book.tenant,
            device=device.name,
            integration=integration.name if integration else "",
            time_ms=self._rehearsal.now_ms(),
            received_ms=self._rehearsal.now_ms(),
            device_type=device.type or (integration.device_type if integration else ""),
            customer=device.customer,
            group=device.group,
            dev_eui=device.dev_eui or (uplink.dev_eui if uplink else ""),
            link=(uplink.link if uplink else None) or Link(device_id=device.name),
        )
        await self._append(message)

    async def _uplink(self, uplink: UplinkConfig) -> None:
        name = uplink.integration or self._given.integration
        integration = self._integration(name)
        if integration is None:
            raise StepError("says no `integration`, and neither does the device in `given`")
        self._counter += 1
        request = request_of(
            uplink,
            integration,
            device=self.device,
            counter=self._counter,
            now_ms=self._rehearsal.now_ms(),
        )
        self._last = _Sent(integration.name, request, uplink.answer_arrives)
        await self._again()

    async def _again(self) -> None:
        if self._last is None:
            raise StepError("there is no `uplink` before it that could be repeated")
        integration, request, arrives = self._last
        before = len(self._rehearsal.records(DEVICE_EVENTS))
        answer = await self._rehearsal.enter(
            integration, request, outcome="answered" if arrives else "not_answered"
        )
        self.answers.append(answer)
        for record in self._rehearsal.records(DEVICE_EVENTS, before - 1)[:1]:
            self._named(record.key.partition("/")[2])

    async def _message(self, given: MessageConfig) -> None:
        now_ms = self._rehearsal.now_ms()
        name = self._named(given.device)
        self._counter += 1
        integration = self._integration(given.integration or self._given.integration)
        known = self._given if name == self._given.name else None
        device_type = given.device_type or (known.type if known else None)
        await self._append(
            DeviceMessage(
                id=f"m{self._counter}",
                type=given.type,
                tenant=self._book.tenant,
                device=name,
                integration=integration.name if integration else "",
                time_ms=now_ms if given.time is None else given.time,
                received_ms=now_ms,
                device_type=device_type or (integration.device_type if integration else ""),
                f_port=given.f_port,
                f_cnt=given.f_cnt,
                payload=given.bytes,
                telemetry=given.telemetry,
                attributes=given.attributes,
                metadata=given.metadata,
            )
        )

    async def _attributes(self, change: AttributesConfig) -> None:
        values = {**change.set, **dict.fromkeys(change.delete)}
        await self._patch(self._named(change.device), change.scope, values)

    async def _patch(self, device: str, scope: str, values: dict[str, Any]) -> None:
        await self._ask("PATCH", device, f"attributes/{scope}", orjson.dumps(values))

    async def _downlink(self, asked: DownlinkConfig) -> None:
        said = asked.model_dump(exclude={"device", "bytes"}, exclude_none=True)
        if asked.bytes is not None:
            said["payload"] = b64encode(asked.bytes).decode()
        name = self._named(asked.device)
        answer = await self._rehearsal.ask("POST", name, "downlinks", body=orjson.dumps(said))
        if answer.status == 422:  # it failed: that is for `downlinks` of the test to judge
            return
        _check(answer)

    async def _ask(self, method: str, device: str, resource: str, body: bytes = b"") -> None:
        _check(await self._rehearsal.ask(method, device, resource, body=body))

    async def _append(self, message: DeviceEvent) -> None:
        headers = headers_of(
            event_id=message.id,
            trace=message.id,
            cause=message.id,
            tenant=message.tenant,
            rules=self._book.version,
        )
        key = device_key(message.tenant, message.device)
        await self._rehearsal.append([Outgoing(DEVICE_EVENTS, key, _encode(message), headers)])

    def _named(self, name: str | None) -> str:
        name = name or self.device
        if name is None:
            raise StepError("says no `device`, and `given` has none")
        if self.device is None:
            self.device = name
        return name

    def _integration(self, name: str | None) -> Integration | None:
        return None if name is None else self._book.integrations[name]


def _answer(config: ServiceAnswerConfig) -> ServiceAnswer:
    body = config.body
    raw = b"" if body is None else body.encode() if isinstance(body, str) else _encode(body)
    after_ms = round(config.after * 1_000)
    return ServiceAnswer(config.status, raw, after_ms, is_away=bool(config.is_away))


def _check(answer: Response) -> None:
    if answer.status >= 400:
        raise StepError(f"the API answered {answer.status}: {answer.body.decode(errors='replace')}")
