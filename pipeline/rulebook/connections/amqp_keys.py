"""Routing keys of AMQP 0-9-1, addresses of 1.0: what they say of devices, where downlinks go.

In: keys as `plant.north.1A2B.up`, templates as `plant.{line}.{device_id}.{kind}`. Out: names from a
key's words, topics of dialects that MQTT carries, binding keys, keys to publish with. A word has no
dot: a name with one cannot stand in a key, as it would lead to another place.
"""

from __future__ import annotations

import re
from functools import lru_cache

from pipeline.errors import MessageError
from pipeline.model.downlink import Downlink
from pipeline.model.uplink import Link

KEY_BYTES_MAX = 255  # a short string of the protocol
RESERVED = ("exchange", "routing_key")
"""What a message's query says of itself."""
DOWNLINK_NAMES = ("device", "device_id", "dev_eui", "application_id")
"""What may stand in braces in a downlink's key."""
_DOTS = frozenset({".", ".."})
_NAME = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def check_template(template: str) -> str:
    """Return a template of keys that come in. ValueError: it is none."""
    words = template.split(".")
    for place, word in enumerate(words):
        if (word == "#" and place == len(words) - 1) or _NAME.fullmatch(word):
            continue
        if any(sign in word for sign in "{}*#"):
            raise ValueError(
                f"the word `{word}` must be a name in braces or plain text; `#` stands last"
            )
    names = _NAME.findall(template)
    if len(names) != len(set(names)):
        raise ValueError("has a name twice")
    for name in names:
        if name in RESERVED:
            raise ValueError(f"`{{{name}}}` is a name that each message has: choose another")
    return template


def check_downlink_template(template: str) -> str:
    """Return a template of a downlink's key. ValueError: it is none."""
    for name in _NAME.findall(template):
        if name not in DOWNLINK_NAMES:
            listed = ", ".join(f"{{{each}}}" for each in DOWNLINK_NAMES)
            raise ValueError(f"{{{name}}} is not known here; there are {listed}")
    rest = _NAME.sub("", template)
    if "{" in rest or "}" in rest:
        raise ValueError("a brace has no other half")
    return template


def named_words(template: str, key: str) -> dict[str, str]:
    """Return what a template names in a key; empty where the key is not of the template."""
    match = _pattern(template).fullmatch(key)
    return match.groupdict() if match is not None else {}


def binding_of_template(template: str) -> str:
    """Return the binding key that takes all keys of a template."""
    return _NAME.sub("*", template)


def binding_of_filter(topic_filter: str) -> str:
    """Return an MQTT filter as a binding key."""
    return topic_filter.replace("+", "*").replace("/", ".")


def topic_of(key: str) -> str | None:
    """Return a key as an MQTT topic; None: a word of it has a `/`, which would be read as two."""
    return None if "/" in key else key.replace(".", "/")


def key_of(topic: str) -> str:
    """Return an MQTT topic as a key. MessageError `no_link`: a level of it has a dot, or it is
    too long.
    """
    return _checked(".".join(_word(level) for level in topic.split("/")))


def downlink_key(template: str, downlink: Downlink, link: Link) -> str:
    """Return the key of a downlink. MessageError `no_link`: a name is missing or cannot be a
    word.
    """
    values = _values(downlink, link)
    return _checked(_NAME.sub(lambda match: _word(values[match[1]]), template))


def downlink_address(template: str, downlink: Downlink, link: Link) -> str:
    """Return the address of a downlink over AMQP 1.0. MessageError `no_link`: a name is missing,
    or would lead to another place.
    """
    values = _values(downlink, link)
    return _NAME.sub(lambda match: _segment(values[match[1]]), template)


def _values(downlink: Downlink, link: Link) -> dict[str, str]:
    return {
        "device": downlink.device,
        "device_id": link.device_id or downlink.device,
        "dev_eui": link.dev_eui,
        "application_id": link.application_id,
    }


def _segment(name: str) -> str:
    if not name or not name.isprintable() or any(sign in name for sign in "/?#*") or name in _DOTS:
        raise MessageError(
            f"{name[:100]!r} cannot be a part of an address: the downlink has no way",
            code="no_link",
        )
    return name


def _word(name: str) -> str:
    if not name or any(sign in name for sign in ".*#\0"):
        raise MessageError(
            f"{name[:100]!r} cannot be a word of a routing key: the downlink has no way",
            code="no_link",
        )
    return name


def _checked(key: str) -> str:
    if len(key.encode(errors="replace")) > KEY_BYTES_MAX:
        raise MessageError(
            f"the routing key has more than {KEY_BYTES_MAX} bytes: the downlink has no way",
            code="no_link",
        )
    return key


@lru_cache(maxsize=1024)
def _pattern(template: str) -> re.Pattern[str]:
    """Return the template as a regular expression: a name is one word, `#` any number."""
    text = ""
    for place, word in enumerate(template.split(".")):
        dot = r"\." if place else ""
        name = _NAME.fullmatch(word)
        if word == "#":
            text += f"(?:{dot}.*)?"
        elif name:
            text += f"{dot}(?P<{name[1]}>[^.]*)"
        else:
            text += dot + re.escape(word)
    return re.compile(text, re.DOTALL)
