"""Helium, LORIOT, Everynet, Kerlink and ThingPark: their documented messages, both ways."""

from __future__ import annotations

import copy
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest

from pipeline.errors import MessageError
from pipeline.integrations.dialect import Dialect, dialects
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Request
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link, Report, Uplink

EUI = "0102030405060708"
LINK = Link(device_id=EUI, dev_eui=EUI)


def read(name: str, document: Any, **more: Any) -> Uplink:
    dialect = dialects()[name]
    options = dialect.options.model_validate(more.pop("options", {}))
    request = Request(body=orjson.dumps(document), **more)
    (uplink,) = dialect.read(request, options, dialect.device_template)
    return uplink


def call(name: str, downlink: Downlink, link: Link = LINK, **options: Any) -> Any:
    dialect: Dialect = dialects()[name]
    return dialect.send(downlink, link, dialect.options.model_validate(options))


def changed(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(document), **changes}


HELIUM: dict[str, Any] = {
    "app_eui": "6081F9D16837130E",
    "dev_eui": EUI,
    "devaddr": "B3000048",
    "fcnt": 19,
    "port": 2,
    "payload": "qg==",
    "id": "6f4e2f9a-0000-4000-8000-000000000000",
    "name": "Helium Test Device",
    "reported_at": 1_605_650_104_423,
    "hotspots": [
        {"id": "1", "name": "a", "frequency": 912.3, "rssi": -110, "snr": -3.5,
         "spreading": "SF9BW125"},
        {"id": "2", "name": "b", "frequency": 912.3, "rssi": -54, "snr": 9.8,
         "spreading": "SF9BW125"},
    ],
    "metadata": {"labels": [{"id": "l", "name": "field"}]},
    "decoded": {"payload": {"temperature": 21.5}, "status": "success"},
    "downlink_url": "https://console.helium.com/api/v1/down/x/y/z",
}  # fmt: skip


def test_every_field_of_heliums_uplink_lands_somewhere() -> None:
    """Ids, counters, bytes, what the console decoded, and the best of the hotspots are found."""
    uplink = read("helium", HELIUM)

    assert (uplink.device, uplink.time_ms) == (EUI, 1_605_650_104_423)
    assert (uplink.payload, uplink.fields) == (b"\xaa", {"temperature": 21.5})
    assert (uplink.f_port, uplink.f_cnt) == (2, 19)
    assert uplink.metadata == {
        "device_id": EUI,
        "device_name": "Helium Test Device",
        "uuid": HELIUM["id"],
        "app_eui": HELIUM["app_eui"],
        "dev_addr": "B3000048",
        "labels": HELIUM["metadata"]["labels"],
        "hotspots": HELIUM["hotspots"],
        "gateway_count": 2,
        "rssi": -54,
        "snr": 9.8,
        "frequency": 912.3,
        "data_rate": "SF9BW125",
    }
    assert uplink.link is not None
    assert uplink.link.urls == {"downlink": HELIUM["downlink_url"]}


def test_helium_repeats_a_confirmed_uplink_without_a_word() -> None:
    """The same counter and bytes at another time are a repeat; after a join they are not."""
    first = read("helium", HELIUM).repeat_key
    assert first == read("helium", changed(HELIUM, reported_at=1_605_650_109_000)).repeat_key
    assert first != read("helium", changed(HELIUM, devaddr="B3000049")).repeat_key


def test_heliums_downlink(downlink: Callable[..., Downlink]) -> None:
    """It goes to the uplink's own URL, or to the one in the options."""
    link = read("helium", HELIUM).link
    assert link is not None
    made = call("helium", downlink(), link)

    assert made.url == HELIUM["downlink_url"]
    assert orjson.loads(made.body) == {"payload_raw": "vu8=", "port": 15, "confirmed": False}
    with pytest.raises(MessageError) as caught:
        call("helium", downlink(), link, downlink_hosts=["other.example"])
    assert caught.value.code == "no_link"


LORIOT: dict[str, Any] = {
    "cmd": "rx",
    "EUI": EUI,
    "ts": 1_470_850_675_433,
    "ack": True,
    "bat": 254,
    "fcnt": 1,
    "port": 7,
    "data": "0102AABB",
    "rssi": -100,
    "snr": 7.5,
    "freq": 868_500_000,
    "toa": 61,
    "dr": "SF7 BW125 4/5",
}


def test_every_field_of_loriots_uplink_lands_somewhere() -> None:
    """`rx` has one reception, `gw` the gateways; either is the uplink."""
    uplink = read("loriot", LORIOT)

    assert (uplink.device, uplink.time_ms) == (EUI, 1_470_850_675_433)
    assert uplink.payload == b"\x01\x02\xaa\xbb"
    assert (uplink.f_port, uplink.f_cnt, uplink.confirmed) == (7, 1, True)
    assert uplink.metadata == {
        "device_id": EUI,
        "frequency": 868_500_000,
        "data_rate": "SF7 BW125 4/5",
        "battery": 254,
        "time_on_air_ms": 61,
        "rssi": -100,
        "snr": 7.5,
    }
    gateways = [{"rssi": -90, "snr": 3}, {"rssi": -40, "snr": 9}]
    heard = read("loriot", changed(LORIOT, cmd="gw", gws=gateways)).metadata
    assert (heard["gateway_count"], heard["rssi"], heard["snr"]) == (2, -40, 9)


def test_what_loriot_cannot_decrypt_is_no_payload() -> None:
    """Without an AppSKey there are only encrypted bytes, which no converter is to read."""
    document = changed(LORIOT, encdata="ffff")
    del document["data"]
    uplink = read("loriot", document)

    assert (uplink.payload, uplink.metadata["encrypted_payload"]) == (None, "ffff")


def test_loriots_downlink_and_its_report(downlink: Callable[..., Downlink]) -> None:
    """The answer's counter is the one that `txd` names."""
    made = call("loriot", downlink(), server="https://eu1.loriot.io", api_key="t0k",
                application_id="BE7A0001")  # fmt: skip

    assert made.url == "https://eu1.loriot.io/1/rest"
    assert made.headers["authorization"] == "Bearer t0k"
    assert orjson.loads(made.body) == {
        "cmd": "tx",
        "appid": "BE7A0001",
        "EUI": EUI,
        "port": 15,
        "confirmed": False,
        "data": "beef",
    }
    dialect: Any = dialects()["loriot"]
    reference = dialect.reference(b'{"cmd":"tx","seqdn":12}')
    (report,) = read("loriot", {"cmd": "txd", "EUI": EUI, "seqdn": 12, "ts": 1}).reports
    assert report == Report(
        state=State.ACCEPTED,
        reference=reference,
        detail={"event": "txd", "transmitted": True, "f_cnt": 12},
    )


EVERYNET: dict[str, Any] = {
    "type": "uplink",
    "meta": {
        "network": "75697b95",
        "packet_hash": "889a72ab34a647f504ef37d598589431",
        "application": "70b3d54b17db0106",
        "device_addr": "36c365b4",
        "time": 1504806725.252,
        "device": "faa73111a2aead2c",
        "packet_id": "bfa4be139911fe8ff80bc0afbf110fa3",
        "gateway": "7c95bd79864622a4",
    },
    "params": {
        "rx_time": 1504806725.245,
        "port": 55,
        "counter_up": 118,
        "payload": "qg==",
        "encrypted_payload": "ehMc",
        "duplicate": False,
        "radio": {
            "freq": 868.1,
            "modulation": {"bandwidth": 125000, "spreading": 7, "coderate": "4/5"},
            "hardware": {"rssi": -50, "snr": 9.5},
        },
    },
}


def asks(payload: bytes | None) -> tuple[Any, Any]:
    """Return a request for a downlink and the answer to it."""
    document = {**EVERYNET, "type": "downlink_request",
                "params": {"counter_down": 7, "max_size": 51, "tx_time": 1.5}}  # fmt: skip
    dialect = dialects()["everynet"]
    request = Request(body=orjson.dumps(document))
    reply = Reply("r", device="d", downlink_id="l1", payload=payload, f_port=15)
    return document, dialect.answer([reply], request, dialect.options())


def test_every_field_of_everynets_uplink_lands_somewhere() -> None:
    """Ids, counters, bytes and radio are found; an uplink itself carries no answer."""
    uplink = read("everynet", EVERYNET)

    assert (uplink.device, uplink.time_ms) == ("faa73111a2aead2c", 1_504_806_725_245)
    assert (uplink.payload, uplink.f_port, uplink.f_cnt) == (b"\xaa", 55, 118)
    assert uplink.answerable is False
    assert uplink.metadata == {
        "device_id": "faa73111a2aead2c",
        "application_id": "70b3d54b17db0106",
        "dev_addr": "36c365b4",
        "network_id": "75697b95",
        "gateway_id": "7c95bd79864622a4",
        "packet_hash": "889a72ab34a647f504ef37d598589431",
        "packet_id": "bfa4be139911fe8ff80bc0afbf110fa3",
        "radio": EVERYNET["params"]["radio"],
        "frequency": 868.1,
        "bandwidth": 125000,
        "spreading_factor": 7,
        "coding_rate": "4/5",
        "rssi": -50,
        "snr": 9.5,
    }


def test_everynets_duplicates_are_one_uplink() -> None:
    """Another gateway's reception has the same hash and another id: it is the same frame."""
    other = changed(EVERYNET)
    other["meta"] |= {"packet_id": "other", "gateway": "x"}
    other["params"]["duplicate"] = True

    assert read("everynet", other).repeat_key == read("everynet", EVERYNET).repeat_key


def test_everynet_is_answered_with_its_own_meta() -> None:
    """A downlink is the answer to `downlink_request`, known by the hash in its `meta`."""
    document, response = asks(b"\xbe\xef")
    uplink = read("everynet", document)

    assert (uplink.type, uplink.answerable) == ("service_data", True)
    assert uplink.fields == document["params"]
    assert response.status == 200
    assert orjson.loads(response.body) == {
        "type": "downlink_response",
        "meta": document["meta"],
        "params": {"port": 15, "payload": "vu8=", "counter_down": 7},
    }
    assert asks(None)[1].status == 204


def test_everynets_other_messages() -> None:
    """A transmission is a report; joins, states and errors are messages of the device."""
    sent = read("everynet", {**EVERYNET, "type": "downlink", "params": {"counter_down": 7}})
    assert sent.type is None
    assert sent.reports[0].state is State.ACCEPTED
    kinds = {"join_request": "join", "status_response": "status", "error": "service_data"}
    for kind, ours in kinds.items():
        uplink = read("everynet", {**EVERYNET, "type": kind, "params": {"a": 1}})
        assert (uplink.type, uplink.answerable) == (ours, False)


KERLINK: dict[str, Any] = {
    "id": "5d2342ac71a1270001035042",
    "endDevice": {"devEui": "343737394A336F09", "devAddr": "24004F6B", "cluster": {"id": 1}},
    "fPort": 2,
    "fCntDown": 0,
    "fCntUp": 6940,
    "adr": False,
    "confirmed": True,
    "encrypted": False,
    "payload": "0027800b",
    "recvTime": 1_562_591_916_089,
    "ulFrequency": 868.3,
    "modulation": "LORA",
    "dataRate": "SF12BW125",
    "codingRate": "4/5",
    "gwCnt": 1,
    "gwInfo": [{"gwEui": "7276FF0039030436", "rssi": -107, "snr": -7}],
}


def test_every_field_of_kerlinks_uplink_lands_somewhere() -> None:
    """The sample of the maker's migration page, field by field."""
    uplink = read("kerlink", KERLINK)

    assert (uplink.device, uplink.time_ms) == ("343737394a336f09", 1_562_591_916_089)
    assert (uplink.payload, uplink.f_port, uplink.f_cnt) == (b"\x00\x27\x80\x0b", 2, 6940)
    assert (uplink.confirmed, uplink.repeat_key) == (True, "5d2342ac71a1270001035042")
    assert uplink.metadata == {
        "device_id": "343737394a336f09",
        "dev_addr": "24004F6B",
        "cluster_id": "1",
        "f_cnt_down": 0,
        "adr": False,
        "frequency": 868.3,
        "data_rate": "SF12BW125",
        "coding_rate": "4/5",
        "gateways": KERLINK["gwInfo"],
        "gateway_count": 1,
        "rssi": -107,
        "snr": -7,
    }


def test_kerlinks_encodings() -> None:
    """Base64 is read where Kerlink says so; encrypted bytes are no payload."""
    coded = changed(KERLINK, payload="qg==", encodingType="BASE64")
    assert read("kerlink", coded).payload == b"\xaa"
    hidden = read("kerlink", changed(KERLINK, encrypted=True))
    assert (hidden.payload, hidden.metadata["encrypted_payload"]) == (None, "0027800b")


def test_kerlinks_downlink(downlink: Callable[..., Downlink]) -> None:
    """The API's `dataDown`, in hexadecimal."""
    made = call("kerlink", downlink(confirmed=True), server="https://wmc.example/gms", api_key="t")

    assert made.url == "https://wmc.example/gms/application/dataDown"
    assert made.headers["authorization"] == "Bearer t"
    assert orjson.loads(made.body) == {
        "endDevice": {"devEui": EUI},
        "fPort": 15,
        "confirmed": True,
        "contentType": "HEXA",
        "payload": "beef",
    }


# KPN's example of a request from ThingPark («JSON untyped»), with its token and key.
AS_KEY = "00112233445566778899AABBCCDDEEFF"
THINGPARK_QUERY = {
    "LrnDevEui": "0059AC000010020D",
    "LrnFPort": "2",
    "LrnInfos": "TWA_100006246.167.AS-1-1361149",
    "AS_ID": "hookbin",
    "Time": "2016-07-05T08:58:26.911+02:00",
    "Token": "18f44bb294f9dd33b5168eeb92a0c7f9fa807914097dc9bb2ed5a789a65fad33",
}
THINGPARK: dict[str, Any] = {
    "Time": "2016-07-05T08:58:26.654+02:00",
    "DevEUI": "0059AC000010020D",
    "FPort": "2",
    "FCntUp": "3",
    "ADRbit": "1",
    "MType": "4",
    "FCntDn": "3",
    "payload_hex": "00277c0878fd9b2e000000000000ffff",
    "LrrRSSI": "-100.000000",
    "LrrSNR": "5.750000",
    "SpFact": "12",
    "SubBand": "G0",
    "Channel": "LC7",
    "Lrrs": {"Lrr": [{"Lrrid": "080603DB", "LrrRSSI": "-100.000000"}]},
    "CustomerID": "100006246",
    "CustomerData": {"alr": {"pro": "SMTC/LoRaMote", "ver": "1"}},
    "AppSKey": "34216a533ceb98b5c811a9acf72e6822",
}


def thingpark(body: dict[str, Any], root: str = "DevEUI_uplink", **more: Any) -> Uplink:
    return read("thingpark", {root: body}, **more)


def test_every_field_of_thingparks_uplink_lands_somewhere() -> None:
    """Numbers in quotes are numbers; the session's key is left out."""
    uplink = thingpark(THINGPARK)

    assert (uplink.device, uplink.time_ms) == ("0059ac000010020d", 1_467_701_906_654)
    assert uplink.payload == bytes.fromhex(THINGPARK["payload_hex"])
    assert (uplink.f_port, uplink.f_cnt, uplink.confirmed) == (2, 3, True)
    assert uplink.metadata == {
        "device_id": "0059ac000010020d",
        "customer_id": "100006246",
        "customer_data": THINGPARK["CustomerData"],
        "f_cnt_down": 3,
        "spreading_factor": 12,
        "rssi": -100,
        "snr": 5.75,
        "channel": "LC7",
        "sub_band": "G0",
        "adr": True,
        "gateways": THINGPARK["Lrrs"]["Lrr"],
        "gateway_count": 1,
    }


@pytest.mark.parametrize(
    "query",
    [THINGPARK_QUERY, {**THINGPARK_QUERY, "Time": "2016-07-05T08:58:26.911 02:00"}],
)
def test_thingparks_token_is_accepted(query: dict[str, str]) -> None:
    """KPN's published request is proven by its key, also where a plus was read as a space."""
    uplink = thingpark(THINGPARK, query=query, options={"as_key": AS_KEY})

    assert uplink.device == "0059ac000010020d"


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ({}, THINGPARK),
        ({**THINGPARK_QUERY, "Token": "0" * 64}, THINGPARK),
        ({**THINGPARK_QUERY, "Token": "ü"}, THINGPARK),
        ({**THINGPARK_QUERY, "Time": "2016-07-05T08:58:27.911+02:00"}, THINGPARK),
        (THINGPARK_QUERY, {**THINGPARK, "payload_hex": "00"}),
        (THINGPARK_QUERY, {**THINGPARK, "DevEUI": "0059AC000010020E"}),
    ],
)
def test_a_request_that_thingpark_did_not_sign_is_refused(
    query: dict[str, str], body: dict[str, Any]
) -> None:
    """Another time, device or payload, or no token: `token`, and nothing is read."""
    with pytest.raises(MessageError) as caught:
        thingpark(body, query=query, options={"as_key": AS_KEY})
    assert caught.value.code == "token"


@pytest.mark.parametrize(
    ("said", "state", "reason"),
    [
        ({"DeliveryStatus": "1"}, State.ACCEPTED, ""),
        ({"DeliveryStatus": 0, "DeliveryFailedCause1": "A1"}, State.FAILED, "not_delivered_a1"),
        ({"DeliveryStatus": 0, "DeliveryFailedCause1": "00"}, State.FAILED, "not_delivered"),
    ],
)
def test_what_became_of_thingparks_downlink(
    said: dict[str, Any], state: State, reason: str
) -> None:
    """`DevEUI_downlink_Sent` says whether the last downlink left, and why it did not."""
    (report,) = thingpark({"DevEUI": EUI, "FCntDn": "7", **said}, "DevEUI_downlink_Sent").reports

    assert (report.state, report.reason, report.detail["f_cnt"]) == (state, reason, 7)


def test_thingparks_location_and_notification() -> None:
    """Places are numbers; a notification is told without keys."""
    place = {"DevEUI": EUI, "DevLAT": "51.9", "DevLON": 4.5, "DevAlt": "0.0", "DevAcc": ""}
    located = thingpark(place, "DevEUI_location")
    assert (located.type, located.fields) == (
        "location",
        {"latitude": 51.9, "longitude": 4.5, "altitude": 0},
    )
    told = thingpark({"DevEUI": EUI, "Type": "reset", "AppSKey": "x"}, "DevEUI_notification")
    assert told.fields == {"DevEUI": EUI, "Type": "reset"}
    assert told.metadata["service"] == "notification"


def test_thingparks_downlink_is_signed(downlink: Callable[..., Downlink]) -> None:
    """The token is the hash of the query, as it stands, and the key in lower case."""
    asked = downlink(queue="replace", confirmed=True, changed_ms=1_467_701_906_654)
    made = call(
        "thingpark",
        asked,
        downlink_url="https://tp.example/thingpark/lrc/rest/downlink",
        as_id="app",
        as_key=AS_KEY,
    )
    query = dict(parse_qsl(urlsplit(made.url).query))
    token = query.pop("Token")

    assert query == {
        "DevEUI": EUI,
        "FPort": "15",
        "Payload": "beef",
        "Confirmed": "1",
        "FlushDownlinkQueue": "1",
        "AS_ID": "app",
        "Time": "2016-07-05T06:58:26.654Z",
    }
    signed = "&".join(f"{name}={value}" for name, value in query.items()) + AS_KEY.lower()
    assert token == sha256(signed.encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "document", "field"),
    [
        ("helium", changed(HELIUM, dev_eui="1"), "dev_eui"),
        ("helium", changed(HELIUM, payload="%"), "payload"),
        ("loriot", changed(LORIOT, cmd="tx"), "cmd"),
        ("loriot", changed(LORIOT, data="0"), "data"),
        ("loriot", {"cmd": "txd", "EUI": EUI}, "seqdn"),
        ("everynet", changed(EVERYNET, type="downlink_response"), "type"),
        ("everynet", changed(EVERYNET, meta=None), "meta.device"),
        ("kerlink", changed(KERLINK, endDevice=None), "endDevice.devEui"),
        ("kerlink", changed(KERLINK, payload="xyz"), "payload"),
        ("thingpark", {}, "DevEUI_uplink"),
        ("thingpark", {"DevEUI_uplink": {**THINGPARK, "FPort": "x"}}, "DevEUI_uplink.FPort"),
        ("thingpark", {"DevEUI_uplink": {**THINGPARK, "FCntUp": 1.5}}, "DevEUI_uplink.FCntUp"),
    ],
)
def test_what_is_no_message_is_refused(name: str, document: Any, field: str) -> None:
    """What is not the network server's says which field is wrong."""
    with pytest.raises(MessageError) as caught:
        read(name, document)

    assert caught.value.detail["field"] == field
